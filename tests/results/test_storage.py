"""Files are written whole or not at all."""

import errno
import os

import pyarrow.fs as pafs
import pytest

from rayprune.results import storage
from rayprune.results.storage import StorageError, delete, modified, read_bytes, write_bytes


def test_what_is_written_is_what_is_read(tmp_path):
    file = str(tmp_path / "folder" / "a")
    assert read_bytes(file) is None and modified(file) is None
    write_bytes(file, b"content")
    assert read_bytes(file) == b"content"
    assert modified(file) == os.stat(file).st_mtime_ns
    delete(file)
    delete(file)
    assert read_bytes(file) is None


def test_a_folder_is_no_file(tmp_path):
    assert read_bytes(str(tmp_path)) is None and modified(str(tmp_path)) is None


def test_a_write_that_fails_leaves_the_old_file_and_says_why(tmp_path):
    file = tmp_path / "folder" / "a"
    write_bytes(str(file), b"old")
    file.unlink()
    (file / "in_the_way").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"cannot write .*folder/a \(3 bytes\)"):
        write_bytes(str(file), b"new")
    assert os.listdir(tmp_path / "folder") == ["a"]


def test_a_full_disk_is_called_so(monkeypatch, tmp_path):
    class Full(pafs.LocalFileSystem):
        def open_output_stream(self, *args, **kwargs):
            raise OSError(errno.ENOSPC, "No space left on device")

    class Opened:
        FileType = pafs.FileType

        class FileSystem:
            from_uri = staticmethod(lambda uri: (Full(), uri))

    monkeypatch.setattr(storage, "pafs", Opened)
    with pytest.raises(StorageError, match="the disk is full"):
        write_bytes(str(tmp_path / "a"), b"x")
