"""An export's folder holds what it wrote; files of others stay, and so do folders it fails in."""

import errno
import os
import shutil

import pytest

from rayprune.exporting.exported import CARD
from rayprune.exporting.place import check_place, publish, workshop
from rayprune.results.storage import StorageError


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def made(folder, content, *files):
    with workshop(str(folder)) as work:
        for name in files:
            (work / name).write_text(content)
        publish(work, str(folder), files, "a card")


def test_files_are_moved_and_those_of_an_earlier_export_go(tmp_path):
    folder = tmp_path / "deep" / "export"
    made(folder, "one", "model.onnx", "model.mnn")
    (folder / "notes.txt").write_text("mine")
    check_place(str(folder))
    made(folder, "two", "model.onnx", "packed.py")
    assert names(folder) == sorted([CARD, "model.onnx", "packed.py", "notes.txt"])
    assert (folder / "model.onnx").read_text() == "two"


@pytest.mark.parametrize("name", [CARD, "model.safetensors", "small.py"])
def test_a_folder_with_files_of_others_is_refused(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=f"holds {name}, which no export wrote"):
        check_place(str(tmp_path))


def test_what_was_interrupted_while_it_was_moved_is_ours_and_says_so(tmp_path, monkeypatch):
    def stop(*paths):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "export", "one", "model.onnx")
    assert "interrupted" in (tmp_path / "export" / CARD).read_text()
    check_place(str(tmp_path / "export"))


def test_an_error_leaves_no_folder_that_was_not_there(tmp_path):
    with pytest.raises(RuntimeError), workshop(str(tmp_path / "a" / "b")):
        raise RuntimeError
    assert not names(tmp_path)


@pytest.mark.parametrize(
    ("error", "free"),
    [(OSError(errno.ENOSPC, "no room"), 1 << 30), (ValueError("a wrong network"), 4096)],
)
def test_a_full_disk_is_named_whatever_native_code_says(tmp_path, monkeypatch, error, free):
    usage = shutil.disk_usage(tmp_path)._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StorageError, match="the disk is full"), workshop(str(tmp_path)):
        raise error
