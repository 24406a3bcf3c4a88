"""What torchvision's and timm's weights were trained with is what these say themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayprune import config
from rayprune.models.trained import Preprocessing, trained_preprocessing

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize("place", ["entry", "elsewhere"])
@pytest.mark.parametrize(
    ("weights", "file", "crop"),
    [
        ("IMAGENET1K_V1", "resnet50-0676ba61.pth", 224 / 256),
        ("IMAGENET1K_V2", "resnet50-11ad3fa6.pth", 224 / 232),
    ],
)
def test_of_torchvisions_entry_or_its_file(
    place: str, weights: str, file: str, crop: float, hub: Path, tmp_path: Path
) -> None:
    path = hub / file if place == "entry" else tmp_path / file
    path.write_bytes(b"weights")
    model = config.Model(name="resnet50", weights=weights if place == "entry" else str(path))
    assert trained_preprocessing(model) == Preprocessing(*IMAGENET, 224, crop, "bilinear")


def test_of_timms_network_whatever_the_file_is_called(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    (tmp_path / "mine.pth").write_bytes(b"weights")
    model = config.Model(name="timm/resnet10t", weights=str(tmp_path / "mine.pth"))
    assert trained_preprocessing(model) == Preprocessing(*IMAGENET, 176, 0.875, "bicubic")


def test_a_segmentation_network_has_a_size_and_no_crop(hub: Path) -> None:
    target = "torchvision.models.segmentation:lraspp_mobilenet_v3_large"
    (hub / "lraspp_mobilenet_v3_large-d234d4ea.pth").write_bytes(b"weights")
    model = config.Model(target=target, weights="DEFAULT")
    assert trained_preprocessing(model) == Preprocessing(*IMAGENET, 520, None, "bilinear")


def test_nothing_is_known_of_other_files_or_without_any(tmp_path: Path) -> None:
    (tmp_path / "mine.pth").write_bytes(b"weights")
    for name in ("resnet20", "resnet50"):
        assert trained_preprocessing(config.Model(name=name)) is None
        mine = config.Model(name=name, weights=str(tmp_path / "mine.pth"))
        assert trained_preprocessing(mine) is None
