"""Bytes on a file system: a folder, or any URI that ``pyarrow.fs`` opens (s3://, gs://).

Passing troubles of a disk or a server are tried again; a file is whole or not there. On a local
file system it is written beside its name and renamed; an object store does the same of itself.
"""

from __future__ import annotations

import errno
import time
import uuid
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from typing import TypeVar
from urllib.parse import unquote

import pyarrow.fs as pafs

from rayprune.results.faults import reach

WAITS_S = (0.2, 0.8, 3.2)  # before the second, third and fourth try; Arrow asks S3 for 6 s in each
FULL = {errno.ENOSPC, errno.EDQUOT}
REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
MISPLACED = {errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}
# A server's errors come without a number.
PERMANENT = ("NO_SUCH_BUCKET", "ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH")
NUM_READERS = 16  # threads: each mostly waits for the storage to answer

T = TypeVar("T")


class StorageError(OSError):
    """A result could not be written or read; the message says which file and why."""


def read_bytes(uri: str) -> bytes | None:
    """Content of a file, or None if there is none. Raises ``StorageError``."""

    def read(fs: pafs.FileSystem, path: str) -> bytes | None:
        reach("storage.read")
        try:
            with fs.open_input_stream(path) as stream:
                return stream.read()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            if _is_local(fs) and fs.get_file_info(path).type == pafs.FileType.Directory:
                return None
            raise

    return _tried(f"read {uri}", uri, read)


def read_side_by_side(read: Callable[[str], T], keys: Collection[str]) -> dict[str, T]:
    """What `read` finds of each of many keys. Raises what it raises."""
    with ThreadPoolExecutor(NUM_READERS) as threads:
        return dict(zip(keys, threads.map(read, keys), strict=True))


def modified(uri: str) -> int | None:
    """When a file was written, in nanoseconds; None if there is none. Raises ``StorageError``."""

    def look(fs: pafs.FileSystem, path: str) -> int | None:
        reach("storage.read")
        info = fs.get_file_info(path)
        return info.mtime_ns if info.type == pafs.FileType.File else None

    return _tried(f"read {uri}", uri, look)


def write_bytes(uri: str, content: bytes) -> None:
    """Write a file whole or not at all, with its folders. Raises ``StorageError``."""

    def write(fs: pafs.FileSystem, path: str) -> None:
        if reach("storage.write") == "torn":
            _put(fs, path, content[: len(content) // 2])
            raise StorageError(f"cannot write {uri}: it was cut off")
        if _is_local(fs):
            _put_renamed(fs, path, content)
        else:  # there, a rename is a copy, and a folder is a file
            _put(fs, path, content)
            reach("storage.written")

    _tried(f"write {uri} ({len(content)} bytes)", uri, write)


def delete(uri: str) -> None:
    """Delete a file if it is there. Raises ``StorageError``."""

    def remove(fs: pafs.FileSystem, path: str) -> None:
        reach("storage.delete")
        with suppress(FileNotFoundError, NotADirectoryError):
            fs.delete_file(path)

    _tried(f"delete {uri}", uri, remove)


def local_path(uri: str) -> str | None:
    """The path of a file on a local file system; None on any other. Raises ``StorageError``."""
    return _tried(f"open {uri}", uri, lambda fs, path: path if _is_local(fs) else None)


def _put_renamed(fs: pafs.FileSystem, path: str, content: bytes) -> None:
    """Of a process that is killed meanwhile, a file is left beside that nobody reads."""
    beside = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        _put(fs, beside, content)
        reach("storage.written")
        fs.move(beside, path)
    except BaseException:
        with suppress(OSError):
            fs.delete_file(beside)
        raise


def _put(fs: pafs.FileSystem, path: str, content: bytes) -> None:
    if _is_local(fs):
        fs.create_dir(path.rpartition("/")[0], recursive=True)
    with fs.open_output_stream(path) as stream:
        stream.write(content)


def _tried(what: str, uri: str, do: Callable[[pafs.FileSystem, str], T]) -> T:
    """Do it, and again after a passing trouble."""
    for wait_s in (*WAITS_S, None):
        try:
            return do(*_open(uri))
        except StorageError:
            raise
        except OSError as error:
            if wait_s is None or _is_permanent(error):
                raise StorageError(f"cannot {what}: {reason_of(error)}") from error
        time.sleep(wait_s)
    raise AssertionError("the last try returns or raises")


def _is_permanent(error: OSError) -> bool:
    known = error.errno in FULL | REFUSED | MISPLACED
    return known or any(word in str(error) for word in PERMANENT)


def reason_of(error: OSError) -> str:
    return "the disk is full" if error.errno in FULL else str(error)


def _open(uri: str) -> tuple[pafs.FileSystem, str]:
    """A URI's file system, and its path there."""
    if not uri.startswith("s3://"):
        return pafs.FileSystem.from_uri(uri)
    bucket, _, path = uri.removeprefix("s3://").partition("/")
    fs, root = _open_bucket(bucket)
    return fs, f"{root}/{unquote(path)}"


@lru_cache(maxsize=8)
def _open_bucket(bucket: str) -> tuple[pafs.FileSystem, str]:
    """One client for a bucket: each asks for credentials and opens connections of its own."""
    # With it, a small file is one request and not the three of a multipart upload.
    return pafs.FileSystem.from_uri(f"s3://{bucket}?allow_delayed_open=true")


def _is_local(fs: pafs.FileSystem) -> bool:
    while isinstance(fs, pafs.SubTreeFileSystem):
        fs = fs.base_fs
    return isinstance(fs, pafs.LocalFileSystem)
