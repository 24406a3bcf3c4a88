"""What lies in the files that an experiment names, as short texts: equal bytes, equal texts.

Weights, in a folder every file, and a user's modules are read whole. Of images, which may be
terabytes, all sizes count, and of up to `SAMPLED_FILES` files the beginning, the end (in Parquet
the footer, with the place and statistics of every column chunk) and blocks between. Where a file
lies and when it was written do not count, so a copy elsewhere is the same; nor does its name, but
in a folder of weights, in a tree of images, whose folders are classes, and where weights are called
like one of torchvision's files, which says how images become inputs.
"""

from __future__ import annotations

import fnmatch
import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import fs

from rayprune.config import Data, Experiment, Model
from rayprune.config.brought import MASKS, MODEL, PROVENANCE, find_weights, our_folder
from rayprune.config.entries import entry_of_file
from rayprune.config.task import OwnTask

SAMPLED_FILES = 32
SAMPLED_BLOCKS = 16
BLOCK = 1 << 16
LARGE = 1 << 30  # bytes from which on a file that a function is given is sampled, too
ABSENT = "nothing there"  # the checks before a study say what is wrong
# Where sets have their files below `data.root`: results may lie beside them, and grow.
FOLDERS = {
    "mnist": ("MNIST/raw",),
    "fashion_mnist": ("FashionMNIST/raw",),
    "cifar10": ("cifar-10-batches-py",),
    "cifar100": ("cifar-100-python",),
    "image_folder": ("train", "test", "val"),
}
# How torchvision knows an image.
IMAGES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


# How torchvision calls its files of weights, such as resnet18-f37072fd.pth.
TORCHVISIONS = re.compile(r".+-[0-9a-f]{8}\.pth")


class File(NamedTuple):
    """A file that was found."""

    path: str
    size: int
    written_ns: int


def contents_of(experiment: Experiment) -> dict[str, str]:
    """Field -> fingerprint of what lies where it points, for the fields that name files or code.

    What cannot be read has one, too, of its name: an error here would hide the better message of a
    check.
    """
    model, data = experiment.model, experiment.data
    contents: dict[str, str] = {}
    if model.weights is not None:
        with suppress(OSError, ValueError):  # an entry without its file is its name
            path = find_weights(model.name, model.target, model.weights)
            entry = _entry_of(model, path)
            contents["model.weights"] = " ".join([_of_weights(path), *([entry] if entry else [])])
    task = experiment.task.target if isinstance(experiment.task, OwnTask) else None
    targets = {"model.target": model.target, "data.target": data.target, "task.target": task}
    for field, target in targets.items():
        if target is not None:
            contents[field] = f"{target} {_of_module(target.partition(':')[0])}"
    return contents | _of_kwargs(experiment) | _of_images(data)


def _of_kwargs(experiment: Experiment) -> dict[str, str]:
    """Of the files that a function of the user's is given, with how their names end."""
    task = experiment.task.kwargs if isinstance(experiment.task, OwnTask) else {}
    given = {"model": experiment.model.kwargs, "data": experiment.data.kwargs, "task": task}
    contents = {}
    for field, kwargs in given.items():
        for name, value in kwargs.items():
            if isinstance(value, str) and os.path.isfile(value):
                with suppress(OSError):
                    is_large = os.path.getsize(value) > LARGE
                    found = _of_files(value) if is_large else _of_whole(value)
                    contents[f"{field}.kwargs.{name}"] = f"{Path(value).suffix} {found}"
    return contents


def _entry_of(model: Model, path: Path) -> str | None:
    """Which of torchvision's entries a file is by its name, if it is one.

    By that name the network's images are made as the entry's were, so here a name does count.
    """
    if not TORCHVISIONS.fullmatch(path.name):
        return None
    entry = entry_of_file(model.name, model.target, path)
    return None if entry is None else entry.title


def _of_weights(path: Path) -> str:
    """Of a file, or of all that lies in a folder, with its name there.

    What says where a network of ours comes from holds dates and names that do not matter.
    """
    ours = our_folder(path)
    if ours is not None:
        provenance = json.loads((ours / PROVENANCE).read_bytes())
        said = provenance.get("preprocessing") if isinstance(provenance, dict) else None
        parts = [_of_whole(str(ours / name)) for name in (MODEL, MASKS) if (ours / name).is_file()]
        return _short(hashlib.sha256(json.dumps([*parts, said], sort_keys=True).encode()))
    if path.is_file():
        return _of_whole(str(path))
    names = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
    named = [(name, _of_whole(str(path / name))) for name in names if not _is_left_behind(name)]
    return _short(hashlib.sha256(json.dumps(named).encode()))


def _of_images(data: Data) -> dict[str, str]:
    if data.parquet is not None:
        parts = {name: getattr(data.parquet, name) for name in ("train", "test")}
        return {f"data.parquet.{name}": _of_files(place) for name, place in parts.items()}
    if data.root is not None and data.name in FOLDERS:
        return {"data.root": _of_folders(data.root, FOLDERS[data.name])}
    return {}


def find_files(location: str, pattern: str = "*.parquet") -> tuple[fs.FileSystem, list[str]]:
    """File system and sorted paths of a file, a folder (all like `pattern` below it) or a glob.

    Locations with a scheme, such as s3://, go to pyarrow's file system for it.
    """
    return _open(location)[0], [file.path for file in _find(location, pattern)]


def _open(location: str) -> tuple[fs.FileSystem, str]:
    """File system, and the path on it of what comes before the first wildcard."""
    fixed = _before_wildcard(location)
    root = location if fixed == location else fixed.rpartition("/")[0] or "."
    if "://" in root:
        return fs.FileSystem.from_uri(root)
    return fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(root))


def _before_wildcard(location: str) -> str:
    return re.split(r"[*?[]", location)[0]


def _find(location: str, pattern: str) -> list[File]:
    filesystem, path = _open(location)
    fixed = _before_wildcard(location)
    if fixed != location:
        pattern = f"{path}/{location[fixed.rfind('/') + 1 :]}"
    elif (info := filesystem.get_file_info(path)).type == fs.FileType.File:
        return [File(path, info.size, info.mtime_ns)]
    return [file for file in _below(filesystem, path) if fnmatch.fnmatchcase(file.path, pattern)]


def _below(filesystem: fs.FileSystem, path: str) -> list[File]:
    """All files below a folder, sorted; none where it is missing."""
    selector = fs.FileSelector(path, allow_not_found=True, recursive=True)
    found = [info for info in filesystem.get_file_info(selector) if info.is_file]
    return sorted(File(info.path, info.size, info.mtime_ns) for info in found)


def _of_files(location: str) -> str:
    """Of Parquet files in the order of their paths, which is that of their rows."""
    try:
        found = tuple(_find(location, "*.parquet"))
        return _of_found(location, found) if found else f"{ABSENT}: {location}"
    except (OSError, pa.ArrowException):
        return f"{ABSENT}: {location}"


def _of_folders(root: str, folders: Sequence[str]) -> str:
    """Of files whose names below the root count: a class is the name of a folder.

    The names are taken as they are: a folder may be called [2024].
    """
    whole, disk = os.path.abspath(os.path.expanduser(root)), fs.LocalFileSystem()
    try:
        below = [file for each in folders for file in _below(disk, os.path.join(whole, each))]
        named = {os.path.relpath(file.path, whole): file for file in below}
        names = [name for name in named if not _is_left_behind(name)]
        found = tuple(named[name] for name in names)
        return _short(hashlib.sha256(f"{names} {_of_found(os.sep, found)}".encode()))
    except (OSError, pa.ArrowException):
        return f"{ABSENT}: {root}"


def _is_left_behind(name: str) -> bool:
    """What a desktop leaves in folders, such as .DS_Store; an image is read whatever its name."""
    is_hidden = any(part.startswith(".") for part in name.split(os.sep))
    return is_hidden and not name.lower().endswith(IMAGES)


@lru_cache(maxsize=64)  # a searcher's study asks for every trial; what was written anew differs
def _of_found(location: str, found: Sequence[File]) -> str:
    filesystem, _ = _open(location)
    digest = hashlib.sha256(repr([file.size for file in found]).encode())
    for number in _spread(len(found), SAMPLED_FILES):
        size = found[number].size
        with filesystem.open_input_file(found[number].path) as file:
            for block in _spread(-(-size // BLOCK), SAMPLED_BLOCKS):
                # Counted from the end, so that the last block, where a footer is, is a whole one.
                end = size - block * BLOCK
                digest.update(file.read_at(min(BLOCK, end), max(0, end - BLOCK)))
    return _short(digest)


def _spread(count: int, most: int) -> Sequence[int]:
    """Up to `most` of the numbers 0 .. count - 1, evenly, the first and the last among them."""
    if count <= most:
        return range(count)
    return [i * (count - 1) // (most - 1) for i in range(most)]


def _of_whole(path: str) -> str:
    info = os.stat(path)
    return _of_bytes(path, info.st_size, info.st_mtime_ns)


@lru_cache(maxsize=64)
def _of_bytes(path: str, size: int, written_ns: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(16 * BLOCK):
            digest.update(block)
    return _short(digest)


def _of_module(name: str) -> str:
    """Of the file that a module's code is in; what that imports does not count."""
    try:
        spec = importlib.util.find_spec(name)
        return _of_whole(spec.origin) if spec is not None and spec.origin is not None else ABSENT
    except (Exception, SystemExit):  # whatever a parent package raises as it is imported
        return ABSENT


def _short(digest: Any) -> str:
    return str(digest.hexdigest()[:20])
