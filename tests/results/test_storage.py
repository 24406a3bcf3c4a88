"""Files are written whole or not at all, and passing troubles are tried again."""

import errno
import json
import os
import signal
import subprocess
import sys

import pytest

from rayprune.results import faults, storage
from rayprune.results.storage import (
    StorageError,
    delete,
    local_path,
    modified,
    read_bytes,
    write_bytes,
)


@pytest.fixture
def fault(monkeypatch):
    """Lets something go wrong from here on, as RAYPRUNE_FAULTS does; the waits are none."""
    monkeypatch.setattr(storage, "WAITS_S", (0, 0, 0))

    def set_fault(**fields):
        monkeypatch.setattr(faults, "_times", type(faults._times)())
        monkeypatch.setenv(faults.VARIABLE, json.dumps([fields]))

    return set_fault


def use(file, operation):
    """Use a file that holds b"old" in one of the four ways."""
    ways = {"read": read_bytes, "modified": modified, "delete": delete}
    return ways[operation](file) if operation in ways else write_bytes(file, b"new")


def test_what_is_written_is_what_is_read(tmp_path):
    file = str(tmp_path / "folder" / "a")
    assert read_bytes(file) is None and modified(file) is None
    write_bytes(file, b"content")
    assert read_bytes(file) == b"content"
    assert modified(file) == os.stat(file).st_mtime_ns
    assert os.listdir(tmp_path / "folder") == ["a"]
    delete(file)
    delete(file)
    assert read_bytes(file) is None


def test_a_folder_is_no_file_and_a_file_no_folder(tmp_path):
    assert read_bytes(str(tmp_path)) is None and modified(str(tmp_path)) is None
    (tmp_path / "a").touch()
    below = str(tmp_path / "a" / "b")
    assert read_bytes(below) is None and modified(below) is None
    delete(below)
    with pytest.raises(StorageError, match=r"cannot write .*a/b .*: .*non-directory entry"):
        write_bytes(below, b"x")


def test_a_write_that_fails_leaves_the_old_file_and_says_why(tmp_path):
    file = tmp_path / "folder" / "a"
    write_bytes(str(file), b"old")
    file.unlink()
    (file / "in_the_way").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"cannot write .*folder/a \(3 bytes\)"):
        write_bytes(str(file), b"new")
    assert os.listdir(tmp_path / "folder") == ["a"]


def test_only_a_path_on_a_local_file_system_is_one(tmp_path):
    assert local_path(str(tmp_path / "a")) == str(tmp_path / "a")
    assert local_path((tmp_path / "a").as_uri()) == str(tmp_path / "a")
    assert local_path("mock:///a") is None


WAYS = [("read", "read"), ("modified", "read"), ("write", "write"), ("delete", "delete")]


@pytest.mark.parametrize(("operation", "point"), [*WAYS, ("write", "written")])
def test_a_passing_trouble_is_tried_again(operation, point, fault, tmp_path):
    file = str(tmp_path / "a")
    write_bytes(file, b"old")
    fault(at=f"storage.{point}", do="unavailable", last=3)
    result = use(file, operation)
    assert result == {"read": b"old", "modified": os.path.exists(file) and modified(file)}.get(
        operation
    )
    assert read_bytes(file) == {"write": b"new", "delete": None}.get(operation, b"old")
    assert len(os.listdir(tmp_path)) == (operation != "delete")


@pytest.mark.parametrize(("operation", "point"), [*WAYS, ("write", "written")])
def test_a_trouble_that_stays_names_the_file_and_why(operation, point, fault, tmp_path):
    file = str(tmp_path / "a")
    write_bytes(file, b"old")
    fault(at=f"storage.{point}", do="unavailable", last=4)
    what = "read" if operation == "modified" else operation
    with pytest.raises(StorageError, match=rf"cannot {what} {file}.*503 Service Unavailable"):
        use(file, operation)
    assert os.listdir(tmp_path) == ["a"] and read_bytes(file) == b"old"


@pytest.mark.parametrize("point", ["write", "written"])
def test_a_full_disk_is_called_so_at_once(point, fault, tmp_path):
    file = str(tmp_path / "a")
    write_bytes(file, b"old")
    fault(at=f"storage.{point}", do="full")
    with pytest.raises(StorageError, match=r"a \(3 bytes\): the disk is full"):
        write_bytes(file, b"new")
    assert os.listdir(tmp_path) == ["a"] and read_bytes(file) == b"old"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
def test_arrow_keeps_the_number_of_a_full_disk():
    import pyarrow.fs as pafs

    with pytest.raises(OSError) as caught:  # noqa: SIM117
        with pafs.LocalFileSystem().open_output_stream("/dev/full") as stream:
            stream.write(b"x")
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS, errno.EDQUOT])
def test_what_will_not_pass_is_not_tried_again(number, monkeypatch, tmp_path):
    tries = []

    def refuse(fs, path, content):
        tries.append(path)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(storage, "_put_renamed", refuse)
    with pytest.raises(StorageError, match=f"cannot write {tmp_path}/a"):
        write_bytes(str(tmp_path / "a"), b"x")
    assert len(tries) == 1


def test_a_torn_write_is_an_error_and_leaves_half(fault, tmp_path):
    file = str(tmp_path / "a")
    fault(at="storage.write", do="torn")
    with pytest.raises(StorageError, match="cut off"):
        write_bytes(file, b"content!")
    assert read_bytes(file) == b"cont"


def test_a_process_that_is_killed_leaves_the_old_file(tmp_path):
    file = str(tmp_path / "a")
    write_bytes(file, b"old")
    code = f"from rayprune.results.storage import write_bytes; write_bytes({file!r}, b'new')"
    killed = json.dumps([{"at": "storage.written", "do": "kill"}])
    environment = {**os.environ, faults.VARIABLE: killed}
    done = subprocess.run([sys.executable, "-c", code], env=environment)
    assert done.returncode == -signal.SIGKILL
    assert read_bytes(file) == b"old"
    write_bytes(file, b"newer")
    assert read_bytes(file) == b"newer"
