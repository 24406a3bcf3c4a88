"""What to compute: one model, its data, and one way to make it sparse."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from rayprune.config.data import Data, Share
from rayprune.config.frozen import Frozen
from rayprune.config.model import Model
from rayprune.config.optim import Optim
from rayprune.config.pattern import check_sparsity, n_of_m
from rayprune.config.sparsify import Allocation, Sparsify
from rayprune.config.task import NAMED_TASKS, AnyTask, OwnTask
from rayprune.schedules import OWN_SCHEDULES, DenseSchedule, RetrainSchedule

Fraction = Annotated[float, Field(ge=0, lt=1)]


class Dense(Frozen):
    """The dense run, stage 0; with `epochs: 0` a network that was trained elsewhere."""

    epochs: Annotated[int, Field(ge=0)] | None = None
    """Epochs; 12 unless a budget says it. 0 takes `model.weights` as they are, and the fields below
    then say how they were trained, as far as a schedule of the cycles asks for it."""
    schedule: DenseSchedule | None = None
    """LR schedule; stepped, or linear under a budget."""
    trained_epochs: Annotated[int, Field(ge=1)] | None = None
    """With epochs 0: how long the network was trained for. Without it ALLR goes by d1 alone."""
    smallest_lr: Annotated[float, Field(gt=0)] | None = None
    """With epochs 0: the smallest learning rate that it was trained with, warm-up left out."""
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
    include: tuple[str, ...] = ()
    """Name patterns of weights that may be pruned beside those of convolution and linear layers,
    such as *.c_attn.weight, a matrix in a layer of the model's own."""
    round_channels: Annotated[int, Field(ge=1)] = 1
    """pattern filter only: each convolution keeps a multiple of this many filters, or all that it
    has; 8 keeps an exported network fast. The sparsity comes as near to the goal as that allows.
    With couple_filters this goes for each part of a convolution whose filters go with the same
    others: where one part keeps all that it has, the sum need be no multiple."""
    couple_filters: bool = False
    """pattern filter only: filters whose outputs are summed, as in residual networks, go together,
    chosen by their mean magnitude, so that exporting removes channels between blocks, too. Needs
    torch-pruning."""
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
        if n_of_m(self.pattern) and self.include:
            raise ValueError(
                f"pattern {self.pattern} runs along a layer's inputs, and nothing says which "
                "dimension that is of the weights in include. Write pattern: unstructured"
            )
        if n_of_m(self.pattern) and (self.cycles > 1 or self.fraction_per_cycle):
            raise ValueError(f"pattern {self.pattern} is one cycle's work. Write cycles: 1")
        return self

    @field_validator("round_channels", mode="before")
    @classmethod
    def _number_of_channels(cls, number: Any) -> Any:
        if isinstance(number, bool):
            raise ValueError(f"must be a number of filters, got {number}. Write round_channels: 8")
        return number

    @model_validator(mode="after")
    def _filter_options_have_filters(self) -> Prune:
        for name, default in (("round_channels", 1), ("couple_filters", False)):
            value = getattr(self, name)
            if self.pattern != "filter" and value != default:
                raise ValueError(
                    f"{name} is of pattern filter, got {name} {value} and pattern {self.pattern}. "
                    f"Write pattern: filter, or leave {name} out"
                )
        if self.pattern == "filter" and self.allocation == "lamp":
            raise ValueError(
                "allocation lamp scores single weights, and pattern filter removes whole filters. "
                "Write allocation: global, or pattern: unstructured"
            )
        if self.couple_filters and self.allocation == "uniform_plus":
            raise ValueError(
                "couple_filters lets the first convolution lose what others lose, and allocation "
                "uniform_plus keeps it whole. Write allocation: uniform, or couple_filters: false"
            )
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
    dense_epochs: Annotated[int, Field(ge=0)] | None = None
    """Epochs of the dense run, 0 for a network that was trained elsewhere; or give
    `dense_share`."""
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
    """Its samples."""
    task: AnyTask = "classification"
    """Names loss and metrics; {target: "my_nets:task"} is a rayprune.Task of your own."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """classification and segmentation: part of each target that is spread over all classes."""
    batch_size: Annotated[int, Field(ge=1)] = 128
    """Samples a step, over all workers together."""
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

    @field_validator("task", mode="before")
    @classmethod
    def _named_or_own(cls, task: Any) -> Any:
        if isinstance(task, str) and task not in NAMED_TASKS:
            target = task if ":" in task else "my_nets:task"
            raise ValueError(
                f"must be one of {', '.join(NAMED_TASKS)}, or your own, got {task!r}. "
                f"Write {{target: {target!r}}}"
            )
        return task

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

    @property
    def is_brought(self) -> bool:
        """Whether its dense network was trained elsewhere: stage 0 only measures it."""
        epochs = self.dense.epochs if self.budget is None else self.budget.dense_epochs
        return epochs == 0

    @model_validator(mode="after")
    def _past_is_of_a_trained_network(self) -> Experiment:
        dense, field = self.dense, "dense.epochs" if self.budget is None else "budget.dense_epochs"
        if self.is_brought:
            if self.model.weights is None and self.model.target is None:
                raise ValueError(
                    f"{field}: 0 takes a trained network, got untrained {self.model.name}. "
                    "Add model.weights: FILE"
                )
            if self.prune.rewind is not None:
                raise ValueError(
                    f"prune.rewind goes back into the dense run, and {field}: 0 has none. Leave "
                    "one of the two out"
                )
            if dense.sparsify is not None:
                raise ValueError(
                    f"dense.sparsify works during the dense run, and {field}: 0 has none. Write "
                    f"{field}: 12, or leave sparsify out"
                )
            return self
        for name in ("trained_epochs", "smallest_lr"):
            if getattr(dense, name) is not None:
                raise ValueError(
                    f"dense.{name} says how a network was trained elsewhere, and this one is "
                    f"trained here. Write {field}: 0, or leave {name} out"
                )
        return self

    @model_validator(mode="after")
    def _loss_is_smoothed_by_its_task(self) -> Experiment:
        if self.label_smoothing and isinstance(self.task, OwnTask):
            raise ValueError(
                f"label_smoothing is of classification and segmentation, and the task is "
                f"{self.task.target}. Leave it out, and smooth in your loss"
            )
        return self

    @model_validator(mode="after")
    def _method_fits_optimiser(self) -> Experiment:
        method = self.dense.sparsify.method if self.dense.sparsify else None
        if method == "gsm" and self.optim.name != "sgd":
            raise ValueError(
                f"dense.sparsify.method gsm is a rule for SGD's momentum, got optim.name "
                f"{self.optim.name}. Write optim.name: sgd"
            )
        pull = {"lc": "mu", "str": "theta_decay"}.get(method or "")
        if pull and not self.optim.weight_decay and getattr(self.dense.sparsify, pull) is None:
            raise ValueError(
                f"dense.sparsify.method {method} goes by optim.weight_decay, which is 0, unless "
                f"{pull} is given. Add dense.sparsify.{pull}: 0.05"
            )
        if method is not None and self.optim.ema_decay is not None:
            raise ValueError(
                f"optim.ema_decay averages weights of one mask, and the masks of "
                f"dense.sparsify.method {method} move. Leave one of the two out"
            )
        return self
