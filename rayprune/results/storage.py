"""Bytes on a file system: a folder, or any URI that ``pyarrow.fs`` opens (s3://, gs://)."""

from __future__ import annotations

import errno
import uuid

import pyarrow.fs as pafs


class StorageError(OSError):
    """A result could not be written or read; the message says which file and why."""


def read_bytes(uri: str) -> bytes | None:
    """Content of a file, or None if there is none. Raises ``StorageError``."""
    try:
        fs, path = pafs.FileSystem.from_uri(uri)
        if fs.get_file_info(path).type != pafs.FileType.File:
            return None
        with fs.open_input_stream(path) as stream:
            return stream.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot read {uri}: {error}") from error


def modified(uri: str) -> int | None:
    """When a file was written, in nanoseconds; None if there is none. Raises ``StorageError``."""
    try:
        fs, path = pafs.FileSystem.from_uri(uri)
        info = fs.get_file_info(path)
        return info.mtime_ns if info.type == pafs.FileType.File else None
    except OSError as error:
        raise StorageError(f"cannot read {uri}: {error}") from error


def write_bytes(uri: str, content: bytes) -> None:
    """Write a file whole or not at all, with its folders. Raises ``StorageError``."""
    try:
        fs, path = pafs.FileSystem.from_uri(uri)
        fs.create_dir(path.rsplit("/", 1)[0], recursive=True)
        beside = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
        try:
            with fs.open_output_stream(beside) as stream:
                stream.write(content)
            fs.move(beside, path)
        except OSError:
            _delete(fs, beside)
            raise
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else str(error)
        raise StorageError(f"cannot write {uri} ({len(content)} bytes): {reason}") from error


def delete(uri: str) -> None:
    """Delete a file if it is there. Raises ``StorageError``."""
    try:
        fs, path = pafs.FileSystem.from_uri(uri)
        _delete(fs, path)
    except OSError as error:
        raise StorageError(f"cannot delete {uri}: {error}") from error


def _delete(fs: pafs.FileSystem, path: str) -> None:
    if fs.get_file_info(path).type == pafs.FileType.File:
        fs.delete_file(path)
