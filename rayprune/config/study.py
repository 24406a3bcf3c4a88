"""An experiment, the search space around it, and where it runs."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema

from rayprune.config.experiment import Experiment
from rayprune.config.frozen import Frozen
from rayprune.config.goals import check_measured, check_metrics
from rayprune.config.measure import Measure
from rayprune.config.search_rules import (
    LISTED,
    SEARCHERS,
    TRACKERS,
    check_arguments,
    check_name,
    check_scheduler_name,
    check_search,
)


class Tool(Frozen):
    """Something of Ray's that a study names; its arguments are Ray's own, and handed on."""

    model_config = ConfigDict(extra="allow")

    name: str
    """What Ray calls it."""

    @model_validator(mode="before")
    @classmethod
    def _by_name_alone(cls, raw: Any) -> Any:
        return {"name": raw} if isinstance(raw, str) else raw

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [{"type": "string"}, handler(schema)]}

    @property
    def arguments(self) -> dict[str, Any]:
        """What is given beside our own fields."""
        return dict(self.model_extra or {})


class Algorithm(Tool):
    """Where the points of the search space come from."""

    @model_validator(mode="after")
    def _fits(self) -> Algorithm:
        check_name(self.name, (*LISTED, *SEARCHERS), "algorithm")
        check_arguments(self.arguments, "algorithm")
        return self

    @property
    def is_listed(self) -> bool:
        """Whether all points are known before anything runs; else a searcher proposes them."""
        return self.name in LISTED


class Scheduler(Tool):
    """Ray Tune's trial scheduler, which stops weak trials early."""

    unit: Literal["epochs", "cycles"] = "epochs"
    """What it counts: epochs of retraining, or whole cycles."""

    @model_validator(mode="after")
    def _fits(self) -> Scheduler:
        check_scheduler_name(self.name)
        check_arguments(self.arguments, "scheduler")
        return self


class Tracker(Tool):
    """An experiment tracker that hears of every trial."""

    @model_validator(mode="after")
    def _known(self) -> Tracker:
        check_name(self.name, TRACKERS, "tracker")
        return self


class Dimension(Frozen):
    """One searched field; exactly one of its fields is given, and maybe `when`."""

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
    equals: str | None = None
    """What follows from other fields, as an expression: "15 - retrain.epochs"."""
    when: str | None = None
    """Beside one of the others: a condition on other fields without which this one is not set."""

    @property
    def is_drawn(self) -> bool:
        """Whether it has a value at random, and not all of a list, or what follows from others."""
        return self.grid is None and self.cases is None and self.equals is None

    @model_validator(mode="after")
    def _one_kind(self) -> Dimension:
        names = [name for name in type(self).model_fields if name != "when"]
        kinds = [k for k in names if getattr(self, k) is not None]
        if len(kinds) != 1:
            raise ValueError(f"takes exactly one of {', '.join(names)}")
        values = getattr(self, kinds[0])
        if not values:
            raise ValueError(f"{kinds[0]} is empty")
        if kinds[0] in ("uniform", "log_uniform", "integers") and values[0] > values[1]:
            raise ValueError(f"{kinds[0]} must be [low, high], got {list(values)}")
        if kinds[0] == "log_uniform" and values[0] <= 0:
            raise ValueError(f"log_uniform must be > 0, got {list(values)}")
        return self


Space = dict[str, Dimension]


class Tuning(Frozen):
    """Equal tuning before a comparison: every point of the grid is a setting that is compared, and
    gets the same number of tries. The best try by validation is run again on `search.seeds`."""

    tries: Annotated[int, Field(ge=1)] = 8
    """Draws for each setting, the first of which is the experiment as it is written."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (100,)
    """Seeds that tries are run with: none of `search.seeds`, on which the choice is reported."""
    space: Space = Field(default_factory=dict)
    """What is drawn for every setting."""
    spaces: dict[str, Space] = Field(default_factory=dict)
    """Name of a case -> what is drawn for it besides, as a method's own options."""

    @property
    def all_spaces(self) -> dict[str, Space]:
        """Place in the study -> space."""
        return {"space": self.space} | {f"spaces.{name}": s for name, s in self.spaces.items()}


def _check_limit(given: Any) -> Any:
    try:
        number = math.nan if isinstance(given, bool) else float(given)
    except (TypeError, ValueError, OverflowError):
        return given  # pydantic says what it is instead
    if not 0 < number < math.inf:
        raise ValueError(f"must be a finite number > 0, got {given!r}")
    return given


Limit = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(_check_limit)]


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
    tune: Tuning | None = None
    """Tune every setting on seeds of its own before it is run on `seeds` and compared."""
    algorithm: Algorithm = Algorithm(name="grid")
    """grid: every combination; random: as many points as `num_samples`; or one of Ray Tune's
    searchers, which learns from what came before: optuna, hyperopt, bayesopt and others."""
    where: tuple[str, ...] = ()
    """Conditions that every point meets, such as "retrain.epochs * prune.cycles <= 6"."""
    metric: str | tuple[str, ...] = "val_accuracy"
    """What trials are compared by: val_ with a metric of the task, such as val_loss; the test split
    chooses nothing. As further goals also sparsity, compression, theoretical_speedup, num_nonzero,
    flops_nonzero, total_epochs and, with `measure`, latency_ms and file_mb; of several the first is
    measured on the validation split."""
    within_dense: Annotated[float, Field(ge=0)] | None = None
    """The question is how sparse: best is the sparsest trial that loses at most this much of the
    metric against its dense run; .01 is one point of accuracy."""
    measure: Measure | None = None
    """What every trained network is measured in, once all are trained: {runtime: mnn, threads: 1,
    batch: 1}, or the runtime alone; of a study that tunes, what it reports on."""
    within: dict[str, Limit] = Field(default_factory=dict)
    """Limits on what is measured, latency_ms and file_mb: best is the best metric among settings
    within these."""
    reference: dict[str, Any] | None = None
    """What the report compares all settings with: searched dimension -> its value, such as
    {method: BIMP}; unset, the setting of each sparsity that is best on the validation split."""
    scheduler: Scheduler | None = None
    """Stops weak trials early: asha, median_stopping_rule, hyperband."""
    max_concurrent: Annotated[int, Field(ge=1)] | None = None
    """Trials that wait for stages at the same time; as many as keep the slots busy."""

    @field_validator("space", mode="before")
    @classmethod
    def _one_space(cls, space: Any) -> Any:
        if isinstance(space, list | tuple):
            raise ValueError("is one space, got a list. Write several as search.spaces")
        return space

    @field_validator("metric", mode="before")
    @classmethod
    def _known_metrics(cls, metric: Any) -> Any:
        check_metrics(metric)
        return metric

    @model_validator(mode="after")
    def _space_or_spaces(self) -> Search:
        if self.space and self.spaces:
            raise ValueError(
                f"takes one of space and spaces, got both: space with {', '.join(self.space)}, "
                f"and {len(self.spaces)} spaces. Leave one out"
            )
        check_search(self)
        return self

    @property
    def all_spaces(self) -> tuple[Space, ...]:
        """The spaces whose points are tried, one after the other; at least one, maybe empty."""
        return self.spaces or (self.space,)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The goals, the first one first."""
        return self.metric if isinstance(self.metric, tuple) else (self.metric,)


class Scaling(Frozen):
    """Where stages run. How many workers share a batch, whether on GPUs, and how many threads share
    a CPU's sums, changes the last bits of a result, or more with batch norm: these three are in its
    key."""

    workers: Annotated[int, Field(ge=1)] = 1
    """Ray Train workers of a slot, each a rank of the DDP group. In the key of every result."""
    cpus_per_worker: Annotated[int, Field(ge=1)] = 1
    """CPUs of a worker; without a GPU also its intra-op threads, then in the key."""
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0.0
    """GPUs of a worker. Whether there is one is in the key."""
    accelerator_type: str | None = None
    """What Ray calls the GPU that a worker needs, such as A100, as in Ray Train's ScalingConfig."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels that a worker's node has, as in Ray's label selectors."""
    slots: Annotated[int, Field(ge=1)] | None = None
    """Most stages that run at the same time; unset, what the work and the cluster allow."""
    idle_timeout_s: Annotated[float, Field(ge=0)] = 60.0
    """Seconds without work after which a slot gives its CPUs and GPUs back."""
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
    tracking: tuple[Tracker, ...] = ()
    """Experiment trackers: mlflow, wandb."""
    storage: str | None = None
    """Folder or URI of all results; RAYPRUNE_STORAGE, or ./rayprune_runs."""

    @field_validator("search")
    @classmethod
    def _metric_fits_task(cls, search: Search, info: ValidationInfo) -> Search:
        if "experiment" in info.data:  # else it has mistakes of its own
            check_measured(search.metrics, info.data["experiment"].task)
        return search

    @model_validator(mode="after")
    def _batch_divides(self) -> Study:
        if self.experiment.batch_size % self.scaling.workers:
            raise ValueError(
                f"experiment.batch_size is the global batch: it must be a multiple of "
                f"scaling.workers={self.scaling.workers}, got {self.experiment.batch_size}"
            )
        return self
