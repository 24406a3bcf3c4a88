"""Which samples a network learns from, and how they become inputs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from rayprune.config.frozen import Frozen

Share = Annotated[float, Field(gt=0, lt=1)]


class ParquetFiles(Frozen):
    """Image-struct Parquet as on the Hugging Face hub; file, folder or glob, local, s3:// or gs://."""

    train: str
    """Training images."""
    test: str
    """Test images, read once, at the end."""
    image_column: str = "image"
    """Column of struct<bytes, path>, or of plain bytes."""
    label_column: str = "label"
    """Column of class numbers or names."""


class Normalize(Frozen):
    """inputs = (levels - mean) / std, a number for each channel, with levels from 0 to 1."""

    mean: tuple[float, ...]
    """What is subtracted."""
    std: tuple[Annotated[float, Field(ge=0.0039)], ...]
    """What the rest is divided by."""

    @model_validator(mode="after")
    def _a_pair_for_each_channel(self) -> Normalize:
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3):
            raise ValueError(
                f"takes one number for grey images or three for colour in mean and in std, got "
                f"{len(self.mean)} and {len(self.std)}. Write {{mean: [0.485, 0.456, 0.406], std: "
                "[0.229, 0.224, 0.225]}"
            )
        if max(map(abs, (*self.mean, *self.std))) > 10:
            raise ValueError(
                f"mean and std are of levels from 0 to 1, got {list(self.mean)} and "
                f"{list(self.std)}. Divide them by 255"
            )
        return self


class Data(Frozen):
    """Which samples. At most one of `name`, `parquet` and `target`; none means fashion_mini."""

    name: str | None = None
    """fashion_mini, mnist, fashion_mnist, cifar10, cifar100 or image_folder."""
    root: str | None = None
    """Folder of a torchvision set, or of an image_folder tree with train/ and test/."""
    parquet: ParquetFiles | None = None
    """Parquet files of your own."""
    target: str | None = None
    """`package.module:function` that returns {"train": …, "test": …[, "val": …, "classes": …,
    "collate": …]}."""
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the target."""
    augment: Literal["auto", "none", "crop_flip", "crop", "crop_flip_rotate", "imagenet"] = "auto"
    """Augmentation of training images; validation and test images are never augmented.
    crop_flip_rotate also turns them, by up to 15 degrees."""
    val_fraction: Share = 0.1
    """Part of the training images that is held out for validation, in (0, 1)."""
    channels: Literal[1, 3] | None = None
    """Colour channels that all images are brought to: 3 repeats grey ones, 1 makes them grey;
    unset, as they are."""
    normalize: Literal["auto", "none", "imagenet"] | Normalize = "auto"
    """How uint8 images become inputs: auto takes mean and standard deviation that the weights were
    trained with, else those of the training images; none only divides by 255."""
    resize: Annotated[int, Field(ge=8)] | Literal["auto"] | None = None
    """Side length in pixels that all images are brought to; auto: what the weights were trained
    with."""
    eval_crop: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] = "auto"
    """With resize: part of the shorter side that the centre crop of evaluation keeps, in (0, 1], as
    timm's crop_pct; auto: what the weights were trained with, else .875 with augment imagenet, 1
    without."""
    interpolation: Literal["auto", "bilinear", "bicubic"] = "auto"
    """With resize: auto is what the weights were trained with, else bilinear."""
    streaming: Literal["auto", "always", "never"] = "auto"
    """Read images while training instead of holding them on the device; auto: over 4 GB decoded."""
    loader_workers: Annotated[int, Field(ge=0)] = 2
    """Processes that decode streamed images, for each Ray Train worker."""
    on_bad: Literal["error", "skip"] = "error"
    """What a corrupt image does: stop with its file and row, or be skipped and counted."""

    @model_validator(mode="after")
    def _one_source(self) -> Data:
        given = [f for f in ("name", "parquet", "target") if getattr(self, f) is not None]
        if len(given) > 1:
            raise ValueError(f"takes one of name, parquet and target, got {' and '.join(given)}")
        return self

    @model_validator(mode="after")
    def _resized_before_it_is_cropped(self) -> Data:
        given = [f for f in ("eval_crop", "interpolation") if getattr(self, f) != "auto"]
        if given and self.resize is None:
            raise ValueError(f"{given[0]} goes with resize, got none. Add resize: 224")
        return self
