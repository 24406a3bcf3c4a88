"""Trees of image files with one folder a class: root/train/<class>/…, root/test/<class>/…."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import torch
from torch import Tensor

from rayprune.data.images import Mode, common_mode, decode_image
from rayprune.data.sources import BadSampleError, Sources

NUM_FIRST = 16  # images that decide between grey and colour
FIELD = "experiment.data.root"


def check_folders(root: str | None) -> dict[str, Path]:
    """Folders of the parts train, test and, where both exist, val.

    A tree with val/ and no test/, such as ImageNet's, is tested on val/. Raises a `ValueError` when
    a folder is missing.
    """
    if root is None:
        raise ValueError(f"{FIELD} must be a folder with train/ and test/ for name: image_folder")
    folders = {name: Path(root).expanduser() / name for name in ("train", "test", "val")}
    found = {name: folder for name, folder in folders.items() if folder.is_dir()}
    if "test" not in found and "val" in found:
        found["test"] = found.pop("val")
    missing = [name for name in ("train", "test") if name not in found]
    if missing:
        raise ValueError(
            f"{FIELD} must be a folder with train/<class>/ and test/<class>/ (or val/<class>/), "
            f"but {folders[missing[0]]} is missing, got {root}"
        )
    return found


def open_folders(root: str | None) -> Sources:
    """The parts of an image tree; the classes are the folders of train/, sorted by name."""
    folders = check_folders(root)
    classes = _subfolders(folders["train"])
    if not classes:
        raise ValueError(f"{FIELD}: {folders['train']} has no folders, one a class")
    parts = {name: _list_images(folder, classes) for name, folder in folders.items()}
    mode = common_mode(
        parts["train"].read(row) for row in range(min(NUM_FIRST, len(parts["train"])))
    )
    parts = {name: FolderRows(part.paths, part.labels, mode) for name, part in parts.items()}
    return Sources(parts["train"], parts["test"], parts.get("val"), classes)


def _subfolders(folder: Path) -> tuple[str, ...]:
    """Hidden ones, as editors and notebooks leave them, are no classes."""
    names = (entry.name for entry in os.scandir(folder) if entry.is_dir())
    return tuple(sorted(name for name in names if not name.startswith(".")))


def _list_images(folder: Path, classes: tuple[str, ...]) -> FolderRows:
    from torchvision.datasets.folder import IMG_EXTENSIONS  # seconds: not for other sources

    unknown = set(_subfolders(folder)) - set(classes)
    if unknown:
        raise ValueError(
            f"{FIELD}: {folder / min(unknown)} is a class that train/ does not have, "
            f"only {', '.join(classes[:10])}{' …' if len(classes) > 10 else ''}"
        )
    paths: list[str] = []
    labels: list[int] = []
    for number, name in enumerate(classes):
        found = sorted(
            os.path.join(parent, file)
            for parent, _, files in os.walk(folder / name, followlinks=True)
            for file in files
            if file.lower().endswith(IMG_EXTENSIONS)
        )
        paths += found
        labels += [number] * len(found)
    return FolderRows(pa.array(paths, pa.large_string()), torch.tensor(labels, dtype=torch.int64))


@dataclass(frozen=True, eq=False)
class FolderRows:
    """Image files and their class numbers, in the order of class and path."""

    paths: pa.Array  # one buffer: a million Python strings would be copied into each loader process
    labels: Tensor  # (n,) int64
    mode: Mode = "RGB"

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        try:
            return decode_image(self.read(row), self.mode), self.labels[row]
        except (OSError, ValueError) as error:
            raise BadSampleError(self.place(row), str(error)) from error

    def read(self, row: int) -> bytes:
        """The encoded image."""
        return Path(self.paths[row].as_py()).read_bytes()

    def place(self, row: int) -> str:
        return f"{FIELD}: {self.paths[row].as_py()}"

    def streamed(self) -> FolderRows:
        return self
