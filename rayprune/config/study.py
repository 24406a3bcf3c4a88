"""An experiment, the search space around it, and where it runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from rayprune.config.experiment import Experiment
from rayprune.config.frozen import Frozen


class EarlyStop(Frozen):
    """Ray Tune's asynchronous successive halving, over the epochs of retraining."""

    grace_epochs: Annotated[int, Field(ge=1)] = 1
    """No trial is stopped before this many epochs after the dense run."""
    reduction: Annotated[int, Field(ge=2)] = 3
    """At each rung the best 1/reduction of the trials go on."""


class Dimension(Frozen):
    """One searched field; exactly one of its fields is given."""

    grid: tuple[Any, ...] | None = None
    """Every value, in combination with every value of the other grids."""
    cases: dict[str, dict[str, Any]] | None = None
    """Named bundles of field values, tried like a grid; the dimension's own name is a label."""
    choice: tuple[Any, ...] | None = None
    """A value at random."""
    uniform: tuple[float, float] | None = None
    """A number at random between low and high."""
    log_uniform: tuple[float, float] | None = None
    """A positive number at random, uniform in its logarithm."""
    integers: tuple[int, int] | None = None
    """A whole number at random, both ends included."""

    @model_validator(mode="after")
    def _one_kind(self) -> Dimension:
        kinds = [k for k in type(self).model_fields if getattr(self, k) is not None]
        if len(kinds) != 1:
            raise ValueError(f"takes exactly one of {', '.join(type(self).model_fields)}")
        values = getattr(self, kinds[0])
        if not values:
            raise ValueError(f"{kinds[0]} is empty")
        if kinds[0] in ("uniform", "log_uniform", "integers") and values[0] > values[1]:
            raise ValueError(f"{kinds[0]} must be [low, high], got {list(values)}")
        if kinds[0] == "log_uniform" and values[0] <= 0:
            raise ValueError(f"log_uniform must be > 0, got {list(values)}")
        return self


Space = dict[str, Dimension]


class Search(Frozen):
    """What is tried, and what counts as best."""

    space: Space = Field(default_factory=dict)
    """Field paths inside the experiment, and the values to try."""
    spaces: tuple[Space, ...] = ()
    """Instead of `space`: several, whose points are tried one space after the other."""
    num_samples: Annotated[int, Field(ge=1)] = 1
    """Draws of the random dimensions, for each point of the grid."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Every point is run once with each of these experiment seeds."""
    metric: Literal["val_accuracy", "val_loss", "val_mean_iou"] = "val_accuracy"
    """What the table is sorted by; the test split chooses nothing."""
    early_stop: EarlyStop | None = None
    """Stop weak trials early."""
    max_concurrent: Annotated[int, Field(ge=1)] | None = None
    """Trials that wait for stages at the same time; as many as keep the slots busy."""

    @field_validator("space", mode="before")
    @classmethod
    def _one_space(cls, space: Any) -> Any:
        if isinstance(space, list | tuple):
            raise ValueError("is one space, got a list. Write several as search.spaces")
        return space

    @model_validator(mode="after")
    def _space_or_spaces(self) -> Search:
        if self.space and self.spaces:
            raise ValueError(
                f"takes one of space and spaces, got both: space with {', '.join(self.space)}, "
                f"and {len(self.spaces)} spaces. Leave one out"
            )
        return self

    @property
    def all_spaces(self) -> tuple[Space, ...]:
        """The spaces whose points are tried, one after the other; at least one, maybe empty."""
        return self.spaces or (self.space,)

    @property
    def mode(self) -> Literal["max", "min"]:
        """Whether more of the metric is better."""
        return "min" if self.metric == "val_loss" else "max"


class Scaling(Frozen):
    """Where stages run: never part of what determines a result."""

    workers: Annotated[int, Field(ge=1)] = 1
    """Ray Train workers of a slot, each a rank of the DDP group."""
    cpus_per_worker: Annotated[int, Field(ge=1)] = 1
    """CPUs, and intra-op threads without a GPU, of a worker."""
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0.0
    """GPUs of a worker."""
    slots: Annotated[int, Field(ge=1)] | None = None
    """Stages that run at the same time; as many as the cluster's CPUs or GPUs hold."""
    max_failures: Annotated[int, Field(ge=-1)] = 3
    """How often a stage is tried again in the same epoch after its workers died; -1 is without end.
    Lost nodes do not count."""


class Study(Frozen):
    """An experiment, a search space, and where to run it."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "study"
    """Folder of the results below the storage; the file's name unless given."""
    experiment: Experiment = Experiment()
    """What to compute."""
    search: Search = Search()
    """What to try around the experiment, and what counts as best."""
    scaling: Scaling = Scaling()
    """Where stages run."""
    storage: str | None = None
    """Folder or URI of all results; RAYPRUNE_STORAGE, or ./rayprune_runs."""

    @model_validator(mode="after")
    def _metric_fits_task(self) -> Study:
        if self.search.metric == "val_mean_iou" and self.experiment.task != "segmentation":
            raise ValueError(
                f"search.metric val_mean_iou is measured for task segmentation, got task "
                f"{self.experiment.task}. Write search.metric: val_accuracy"
            )
        return self

    @model_validator(mode="after")
    def _batch_divides(self) -> Study:
        if self.experiment.batch_size % self.scaling.workers:
            raise ValueError(
                f"experiment.batch_size is the global batch: it must be a multiple of "
                f"scaling.workers={self.scaling.workers}, got {self.experiment.batch_size}"
            )
        return self
