from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from made_images import make_images
from torchvision import datasets

from rayprune import config
from rayprune.data import InMemory, load_data
from rayprune.data.named import open_named


def write_idx(path: Path, array: np.ndarray) -> None:
    """MNIST's format: two zero bytes, the type (8: uint8), the number of sizes, the sizes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes())


def write_mnist(root: Path, folder: str) -> None:
    for name, num, seed in (("train", 30, 0), ("t10k", 10, 1)):
        images = make_images(num, channels=1, side=28, seed=seed)
        write_idx(root / folder / "raw" / f"{name}-images-idx3-ubyte", images)
        labels = np.arange(num, dtype=np.uint8) % 10
        write_idx(root / folder / "raw" / f"{name}-labels-idx1-ubyte", labels)


def write_cifar(root: Path, kind: type[datasets.CIFAR10], monkeypatch: pytest.MonkeyPatch) -> None:
    """CIFAR's pickles; torchvision knows the real ones by checksum, so it is told of these."""
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    key = "fine_labels" if kind is datasets.CIFAR100 else "labels"
    num_classes = 100 if kind is datasets.CIFAR100 else 10

    def write(name: str, content: dict[str, object]) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    for field in ("train_list", "test_list"):
        entries = []
        for seed, (name, _) in enumerate(getattr(kind, field)):
            images = make_images(6, side=32, seed=seed).transpose(0, 3, 1, 2)
            labels = [(i + seed) % num_classes for i in range(6)]
            content = {"data": images.reshape(6, -1), key: labels}
            entries.append([name, write(name, content)])
        monkeypatch.setattr(kind, field, entries)
    names = [f"class{i}" for i in range(num_classes)]
    meta = dict(kind.meta)
    meta["md5"] = write(meta["filename"], {meta["key"]: names})
    monkeypatch.setattr(kind, "meta", meta)


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")]
)
def test_mnist_files_are_read(tmp_path: Path, name: str, folder: str) -> None:
    write_mnist(tmp_path, folder)
    data = load_data(config.Data(name=name, root=str(tmp_path)), seed=0)
    assert data.example[0].shape[1:] == (1, 28, 28)
    assert len(data.classes) == 10
    assert (len(data.train), len(data.val), len(data.test)) == (27, 3, 10)
    assert data.train.augmentation == "none"
    assert isinstance(data.test.samples, InMemory)
    expected = torch.from_numpy(make_images(10, channels=1, side=28, seed=1))
    assert torch.equal(data.test.samples.inputs[:, 0], expected)
    assert data.test.samples.targets.tolist() == list(range(10))


@pytest.mark.parametrize(
    ("name", "kind"), [("cifar10", datasets.CIFAR10), ("cifar100", datasets.CIFAR100)]
)
def test_cifar_files_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: type[datasets.CIFAR10]
) -> None:
    write_cifar(tmp_path, kind, monkeypatch)
    data = load_data(config.Data(name=name, root=str(tmp_path)), seed=0)
    assert data.example[0].shape[1:] == (3, 32, 32)
    assert data.classes[3] == "class3"
    assert len(data.classes) == (10 if name == "cifar10" else 100)
    assert len(data.train) + len(data.val) == 6 * len(kind.train_list)
    assert data.train.augmentation == "crop_flip"
    assert isinstance(data.test.samples, InMemory)
    expected = torch.from_numpy(make_images(6, side=32).transpose(0, 3, 1, 2).copy())
    assert torch.equal(data.test.samples.inputs, expected)


def test_a_missing_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    write_mnist(tmp_path, "MNIST")
    missing = tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    missing.unlink()
    with pytest.raises(ValueError, match=f"experiment.data.root: {missing} is missing.*MNIST as D"):
        open_named("mnist", str(tmp_path), on_bad="error")
    with pytest.raises(ValueError, match="must be the folder of cifar10's files"):
        open_named("cifar10", None, on_bad="error")


def test_wrong_checksums_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(tmp_path, datasets.CIFAR10, monkeypatch)
    batch = tmp_path / datasets.CIFAR10.base_folder / "data_batch_2"
    batch.write_bytes(batch.read_bytes() + b" ")
    with pytest.raises(ValueError, match=r"experiment.data.root: .*corrupted"):
        open_named("cifar10", str(tmp_path), on_bad="error")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("cifar-10", "cifar10"),
        ("Fashion-Mini", "fashion_mini"),
        ("imagefolder", "image_folder"),
        ("minst", "mnist"),
    ],
)
def test_an_unknown_name_meets_its_nearest(name: str, near: str) -> None:
    with pytest.raises(ValueError, match=f"experiment.data.name must be one of .* Write {near}$"):
        open_named(name, None, on_bad="error")
