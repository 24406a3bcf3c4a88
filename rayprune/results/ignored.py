"""Results stay out of git, and out of what ``ray job submit --working-dir .`` uploads."""

from __future__ import annotations

from pathlib import Path

ALL = "*\n"


def make_ignored(storage: str, *folders: str) -> None:
    """Make a local storage, with a .gitignore of everything where it is new.

    Where the storage was there before, it may be a folder of the user's and is left alone: then the
    new ones of `folders` in it get the file.
    """
    if "://" in storage:
        return
    try:
        if _make(storage) or _is_ours(Path(storage) / ".gitignore"):
            return
        for folder in folders:
            _make(folder)
    except OSError:
        return  # what is written there next says why it cannot be


def _make(folder: str) -> bool:
    """Return whether the folder is new."""
    path = Path(folder)
    if path.exists():
        return False
    path.mkdir(parents=True)
    (path / ".gitignore").write_text(ALL)
    return True


def _is_ours(file: Path) -> bool:
    return file.is_file() and file.read_text() == ALL
