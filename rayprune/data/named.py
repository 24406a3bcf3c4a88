"""Data sets that have a name: the embedded one, torchvision's, and image trees."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import torch

from rayprune import config
from rayprune.data.folders import check_folders, open_folders
from rayprune.data.parquet import open_parquet
from rayprune.data.sources import Sources, TensorRows

TORCHVISION = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
}
NAMES_WITH_ROOT = (*TORCHVISION, "image_folder")
NAMES = ("fashion_mini", *NAMES_WITH_ROOT)

FASHION_MINI = config.ParquetFiles(
    train=str(Path(__file__).parent / "fashion_mini" / "train.parquet"),
    test=str(Path(__file__).parent / "fashion_mini" / "test.parquet"),
)


def check_named(name: str, root: str | None) -> None:
    """Raises a `ValueError` unless the name is known and its files are where they belong."""
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0)[0]
        raise ValueError(
            f"experiment.data.name must be one of {', '.join(NAMES)}, got {name!r}. Write {near}"
        )
    if name == "image_folder":
        check_folders(root)
    if name in TORCHVISION:
        _check_files(name, root)


def open_named(name: str, root: str | None, *, on_bad: str) -> Sources:
    """Both parts of the data set `name`; nothing is ever downloaded."""
    check_named(name, root)
    if name == "image_folder":
        return open_folders(root)
    if name == "fashion_mini":
        return open_parquet(FASHION_MINI, on_bad=on_bad)
    try:
        parts = [_kind(name)(root, train=train, download=False) for train in (True, False)]
    except RuntimeError as error:  # the files are there, so their checksums are wrong
        raise ValueError(f"experiment.data.root: {root}: {error}. {_remedy(name)}") from error
    train, test = (_rows(name, part) for part in parts)
    return Sources(train, test, classes=tuple(parts[0].classes))


def _kind(name: str) -> Any:
    """torchvision's class; the package takes seconds to import, so only where it is asked for."""
    from torchvision import datasets

    return getattr(datasets, TORCHVISION[name])


def _rows(name: str, part: Any) -> TensorRows:
    images = torch.as_tensor(part.data)  # MNIST (n, H, W), CIFAR (n, H, W, C), uint8
    images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
    return TensorRows(name, images, torch.as_tensor(part.targets, dtype=torch.int64))


def _check_files(name: str, root: str | None) -> None:
    """torchvision only says that something is missing; this says which file, and where it goes."""
    if root is None:
        raise ValueError(
            f"experiment.data.root must be the folder of {name}'s files. {_remedy(name)}"
        )
    kind = _kind(name)
    if hasattr(kind, "resources"):  # the MNIST family
        folder = Path(root).expanduser() / kind.__name__ / "raw"
        files = [Path(archive).stem for archive, _ in kind.resources]
    else:
        folder = Path(root).expanduser() / kind.base_folder
        files = [file for file, _ in kind.train_list + kind.test_list]
    for file in files:
        if not (folder / file).is_file():
            raise ValueError(
                f"experiment.data.root: {folder / file} is missing, got {root}. {_remedy(name)}"
            )


def _remedy(name: str) -> str:
    return (
        "Nothing is downloaded here. Where there is a connection, run "
        f'python -c "from torchvision.datasets import {TORCHVISION[name]} as D; '
        "D('FOLDER', download=True)\" and write experiment.data.root: FOLDER"
    )
