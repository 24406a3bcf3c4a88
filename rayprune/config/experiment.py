"""What to compute: one model, its data, and one way to make it sparse."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from rayprune.config.frozen import Frozen
from rayprune.config.pattern import check_sparsity, n_of_m
from rayprune.config.sparsify import Allocation, Sparsify
from rayprune.schedules import OWN_SCHEDULES, DenseSchedule, RetrainSchedule

Fraction = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(gt=0, lt=1)]


class Model(Frozen):
    """Which network. Exactly one of `name` and `target`."""

    name: str | None = None
    """One of ours (small_cnn, resnet20 …), a torchvision classification model, or timm/<name>."""
    target: str | None = None
    """`package.module:function` that returns an nn.Module."""
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the builder."""
    weights: str | None = None
    """A .safetensors or .pt file of start weights, or the name of a torchvision weights entry."""

    @model_validator(mode="after")
    def _one_source(self) -> Model:
        if (self.name is None) == (self.target is None):
            raise ValueError("takes exactly one of name and target. Write {name: small_cnn}")
        return self


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


class Data(Frozen):
    """Which images. At most one of `name`, `parquet` and `target`; none means fashion_mini."""

    name: str | None = None
    """fashion_mini, mnist, fashion_mnist, cifar10, cifar100 or image_folder."""
    root: str | None = None
    """Folder of a torchvision set, or of an image_folder tree with train/ and test/."""
    parquet: ParquetFiles | None = None
    """Parquet files of your own."""
    target: str | None = None
    """`package.module:function` that returns {"train": …, "test": …[, "val": …]}."""
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the target."""
    augment: Literal["auto", "none", "crop_flip", "crop", "crop_flip_rotate", "imagenet"] = "auto"
    """Augmentation of training images; validation and test images are never augmented.
    crop_flip_rotate also turns them, by up to 15 degrees."""
    val_fraction: Share = 0.1
    """Part of the training images that is held out for validation, in (0, 1)."""
    resize: Annotated[int, Field(ge=8)] | None = None
    """Side length in pixels that all images are brought to."""
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


class Optim(Frozen):
    """SGD, with Nesterov momentum when there is weight decay."""

    lr: Annotated[float, Field(gt=0)] = 0.1
    """Initial learning rate of the dense run."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum, in [0, 1)."""
    weight_decay: Annotated[float, Field(ge=0)] = 5.0e-4
    """L2 penalty, applied once."""
    decay: Literal["all", "weights"] = "all"
    """What decays: all parameters, or only those with two and more dimensions."""


class Dense(Frozen):
    """The dense run, stage 0."""

    epochs: Annotated[int, Field(ge=1)] | None = None
    """Epochs; 12 unless a budget says it."""
    schedule: DenseSchedule | None = None
    """LR schedule; stepped, or linear under a budget."""
    warmup: Fraction = 0.0
    """Fraction of the run with a rising learning rate."""
    milestones: tuple[Share, ...] = (0.5, 0.75)
    """stepped: where the learning rate drops, as fractions of the run, its warm-up included."""
    factor: Share = 0.1
    """stepped: what each drop multiplies the learning rate by."""
    sparsify: Sparsify | None = None
    """A method that sparsifies during this run."""


class Rewind(Frozen):
    """Back to the weights of an earlier epoch, under the masks of a later one."""

    epoch: Annotated[int, Field(ge=0)]
    """Epoch of the dense run whose weights each cycle starts from; 0 is the lottery ticket."""


class Prune(Frozen):
    """How much is removed, in how many cycles, and which weights."""

    sparsity: Fraction = 0.95
    """Goal: zeros among the prunable weights, in [0, 1)."""
    cycles: Annotated[int, Field(ge=0)] = 1
    """Prune-and-retrain cycles; 1 is one-shot, 0 leaves the dense run as it is."""
    fraction_per_cycle: Share | None = None
    """Instead of `cycles`: remove this part of what remains until the goal is reached."""
    allocation: Allocation = "global"
    """How the removed weights are shared out over the layers."""
    pattern: str = "unstructured"
    """unstructured, filter, or n:m such as 2:4."""
    ignore: tuple[str, ...] = ()
    """Name patterns of weights that stay dense, such as conv1.* or head*."""
    rewind: Rewind | None = None
    """Weight rewinding (Frankle et al. 2020, Renda et al. 2020): each cycle retrains the dense
    run's weights at that epoch, under the masks of the pruned network."""

    @field_validator("pattern")
    @classmethod
    def _known_pattern(cls, pattern: str) -> str:
        n_of_m(pattern)
        return pattern

    @model_validator(mode="after")
    def _pattern_fits_sparsity(self) -> Prune:
        check_sparsity(self.pattern, self.sparsity)
        if n_of_m(self.pattern) and (self.cycles > 1 or self.fraction_per_cycle):
            raise ValueError(f"pattern {self.pattern} is one cycle's work. Write cycles: 1")
        return self


class Retrain(Frozen):
    """The training after each prune step."""

    epochs: Annotated[int, Field(ge=0)] | None = None
    """Epochs a cycle; 2 unless a budget says it; under prune.rewind the dense epochs after the
    rewinding epoch. 0 prunes without retraining."""
    schedule: RetrainSchedule | None = None
    """LR schedule; allr, or lrw under prune.rewind (the dense schedule from that epoch on).
    constant, stepped, cosine and linear take `lr` and `warmup`; stepped has the dense run's shape,
    resampled, from `lr` on."""
    lr: Annotated[float, Field(gt=0)] | None = None
    """constant, stepped, cosine, linear only: initial learning rate."""
    warmup: Fraction | None = None
    """constant, stepped, cosine, linear only: fraction of a cycle with a rising learning rate."""

    @model_validator(mode="after")
    def _lr_fits_schedule(self) -> Retrain:
        if self.schedule in OWN_SCHEDULES and self.lr is None:
            raise ValueError(f"schedule {self.schedule} needs an initial learning rate. Add lr: …")
        if self.schedule not in OWN_SCHEDULES and (self.lr is not None or self.warmup is not None):
            which = f"schedule {self.schedule}" if self.schedule else "the default schedule"
            raise ValueError(
                f"{which} takes its learning rates from the dense run. "
                f"Leave out lr and warmup, or choose one of {', '.join(OWN_SCHEDULES)}"
            )
        return self


class Allr(Frozen):
    """Adaptive linear learning-rate restarting."""

    adapt: Literal["every", "last"] = "every"
    """Which cycles adapt their peak; `last` is the paper's first version."""


class Budget(Frozen):
    """BIMP: epochs of the dense run and of all retraining together."""

    epochs: Annotated[int, Field(ge=1)]
    """Epochs in total."""
    dense_epochs: Annotated[int, Field(ge=1)] | None = None
    """Epochs of the dense run; or give `dense_share`."""
    dense_share: Share | None = None
    """Part of the budget that the dense run takes, in (0, 1)."""

    @model_validator(mode="after")
    def _split(self) -> Budget:
        if (self.dense_epochs is None) == (self.dense_share is None):
            raise ValueError("takes exactly one of dense_epochs and dense_share")
        if self.dense_epochs is not None and self.dense_epochs > self.epochs:
            raise ValueError(
                f"dense_epochs must be <= epochs={self.epochs}, got {self.dense_epochs}"
            )
        return self


class Experiment(Frozen):
    """One model, one way to make it sparse: all that determines the result."""

    model: Model = Model(name="small_cnn")
    """The network."""
    data: Data = Data(name="fashion_mini")
    """Its images."""
    task: Literal["classification", "segmentation"] = "classification"
    """Names loss and metrics."""
    batch_size: Annotated[int, Field(ge=1)] = 128
    """Images a step, over all workers together."""
    optim: Optim = Optim()
    """The optimiser, which every stage starts afresh."""
    dense: Dense = Dense()
    """The dense run, stage 0."""
    prune: Prune = Prune()
    """How much is removed, in how many cycles, and which weights."""
    retrain: Retrain = Retrain()
    """The training after each prune step."""
    allr: Allr = Allr()
    """Options of the schedule allr."""
    budget: Budget | None = None
    """BIMP: epochs of the dense run and of all retraining together, instead of their own."""
    recalibrate_batch_norm: bool = False
    """Estimate batch-norm statistics anew, on training images, after each prune step and at the end
    of each stage. A method that prunes at the end of its run has those of the unpruned model."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of the forward and backward pass; weights are always float32."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Initial weights, data split and data order."""

    @model_validator(mode="after")
    def _epochs_said_once(self) -> Experiment:
        given = [
            name
            for name, epochs in (
                ("dense.epochs", self.dense.epochs),
                ("retrain.epochs", self.retrain.epochs),
            )
            if epochs is not None
        ]
        if self.budget is not None and given:
            raise ValueError(
                f"{' and '.join(given)} and budget both say how long to train. Leave one out"
            )
        return self

    @model_validator(mode="after")
    def _rewinding_has_dense_weights_and_a_cycle(self) -> Experiment:
        if self.prune.rewind is None:
            return self
        if self.prune.cycles == 0:
            raise ValueError(
                "prune.rewind says what a cycle starts from, and prune.cycles: 0 has no cycle. "
                "Write prune.cycles: 1, or leave prune.rewind out"
            )
        if self.dense.sparsify is not None:
            raise ValueError(
                f"prune.rewind goes back to dense weights, and a run with dense.sparsify "
                f"{self.dense.sparsify.method} has none. Leave one of the two out"
            )
        return self
