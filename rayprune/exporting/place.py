"""The folder of an export: what is made there, moved there, and belongs to nobody else."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from rayprune.exporting.exported import ALL_FILES, CARD
from rayprune.results.storage import (
    FULL,
    StorageError,
    delete,
    local_path,
    modified,
    read_bytes,
    reason_of,
    write_bytes,
)

OURS = b"<!-- written by rayprune.export -->"  # the first line of every card
UNFINISHED = OURS + b"\nThis export was interrupted: the files beside are not whole.\n"
FULL_BELOW = 1 << 20  # free bytes: native code that failed then says something else of it


def check_place(folder: str) -> None:
    """Raises ``ValueError`` for a folder with files that an export would replace or delete, and
    that no export wrote."""
    if (read_bytes(f"{folder}/{CARD}") or b"").startswith(OURS):
        return
    foreign = [n for n in sorted({CARD, *ALL_FILES}) if modified(f"{folder}/{n}") is not None]
    if foreign:
        raise ValueError(
            f"{folder} holds {', '.join(foreign)}, which no export wrote, and this one would "
            "replace or delete. Choose another folder"
        )


@contextmanager
def workshop(folder: str) -> Iterator[Path]:
    """A folder for what is being made: inside the export's own, unless that is no local one.

    A disk that is full is a ``StorageError``, whatever native code says of it.
    """
    inside = local_path(folder)
    made_here = _make_folders(inside) if inside is not None else []
    try:
        with tempfile.TemporaryDirectory(prefix=".making-", dir=inside) as made:
            try:
                yield Path(made)
            except StorageError:
                raise
            except (ValueError, OSError) as error:
                is_full = isinstance(error, OSError) and error.errno in FULL
                if is_full or shutil.disk_usage(made).free < FULL_BELOW:
                    raise StorageError(f"cannot export to {folder}: the disk is full") from error
                raise
    finally:
        for each in reversed(made_here):
            with suppress(OSError):  # not empty: something was exported
                os.rmdir(each)


def publish(work: Path, folder: str, names: Sequence[str], card: str) -> None:
    """Move files to their place, the card last, and delete what an earlier export left there.

    In between, the card says that they are not whole. Raises ``StorageError``.
    """
    inside = local_path(folder)
    write_bytes(f"{folder}/{CARD}", UNFINISHED)
    for name in names:
        if inside is None:
            write_bytes(f"{folder}/{name}", (work / name).read_bytes())
        else:
            os.replace(work / name, f"{inside}/{name}")  # which needs no room
    for name in sorted(ALL_FILES - {*names}):
        delete(f"{folder}/{name}")
    write_bytes(f"{folder}/{CARD}", OURS + b"\n" + card.encode())


def _make_folders(folder: str) -> list[str]:
    """Make a folder and those it lies in; return the new ones, the outermost first."""
    missing = []
    while folder and not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for each in reversed(missing):
        try:
            os.mkdir(each)
        except OSError as error:
            raise StorageError(f"cannot make {each}: {reason_of(error)}") from error
    return missing[::-1]
