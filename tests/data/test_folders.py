from __future__ import annotations

from pathlib import Path

import pytest
import torch
from made_images import encode, make_images

from rayprune import config
from rayprune.data import load_data
from rayprune.data.folders import open_folders


def write_tree(
    root: Path, parts: dict[str, int], classes: tuple[str, ...] = ("ant", "bee")
) -> None:
    for seed, (part, num) in enumerate(parts.items()):
        for number, name in enumerate(classes):
            (root / part / name).mkdir(parents=True)
            for i, image in enumerate(make_images(num, seed=10 * seed + number)):
                (root / part / name / f"{i}.png").write_bytes(encode(image))


def test_folders_are_classes(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train": 6, "test": 2})
    (tmp_path / "train" / "ant" / "notes.txt").write_text("no image")
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "train" / "bee" / "deep").mkdir()
    (tmp_path / "train" / "bee" / "deep" / "x.JPEG").write_bytes(encode(make_images(1)[0], "JPEG"))
    sources = open_folders(str(tmp_path))
    assert sources.classes == ("ant", "bee")
    assert (len(sources.train), len(sources.test), sources.val) == (13, 4, None)
    image, target = sources.train[2]
    assert torch.equal(image, torch.from_numpy(make_images(6)[2]).permute(2, 0, 1))
    assert [int(sources.train[row][1]) for row in range(13)] == [0] * 6 + [1] * 7
    assert target == 0


def test_val_is_for_testing_unless_there_is_a_test(tmp_path: Path) -> None:
    write_tree(tmp_path / "a", {"train": 5, "val": 2})
    data = load_data(config.Data(name="image_folder", root=str(tmp_path / "a")), seed=0)
    assert (len(data.train), len(data.val), len(data.test)) == (9, 1, 4)
    write_tree(tmp_path / "b", {"train": 5, "val": 3, "test": 2})
    data = load_data(config.Data(name="image_folder", root=str(tmp_path / "b")), seed=0)
    assert (len(data.train), len(data.val), len(data.test)) == (10, 6, 4)


def test_streamed_and_in_memory_are_the_same(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train": 5, "test": 2})
    parts = []
    for streaming in ("never", "always"):
        data = config.Data.model_validate(
            {"name": "image_folder", "root": str(tmp_path), "resize": 9, "augment": "none",
             "streaming": streaming, "loader_workers": 1}
        )  # fmt: skip
        split = load_data(data, seed=0).train
        parts.append(next(split.batches([torch.arange(9)], device=torch.device("cpu"))))
    assert torch.equal(parts[0][0], parts[1][0])
    assert torch.equal(parts[0][1], parts[1][1])


def test_a_damaged_file_is_named_or_skipped(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train": 5, "test": 2})
    damaged = tmp_path / "test" / "bee" / "1.png"
    damaged.write_bytes(damaged.read_bytes()[:50])
    data = config.Data(name="image_folder", root=str(tmp_path))
    with pytest.raises(ValueError, match=f"experiment.data.root: {damaged}: the 50 bytes"):
        load_data(data, seed=0)
    skipped = load_data(data.model_copy(update={"on_bad": "skip"}), seed=0)
    assert (skipped.num_skipped, len(skipped.test)) == (1, 3)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"experiment.data.root must be a folder with train/"):
        open_folders(None)
    with pytest.raises(ValueError, match=f"{tmp_path / 'train'} is missing"):
        open_folders(str(tmp_path))
    (tmp_path / "train").mkdir()
    with pytest.raises(ValueError, match=f"{tmp_path / 'test'} is missing"):
        open_folders(str(tmp_path))
    (tmp_path / "test").mkdir()
    with pytest.raises(ValueError, match="has no folders, one a class"):
        open_folders(str(tmp_path))


def test_a_class_only_in_test_is_an_error(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train": 2, "test": 1})
    (tmp_path / "test" / "cat").mkdir()
    with pytest.raises(ValueError, match=r"test/cat is a class that train/ does not have"):
        open_folders(str(tmp_path))
