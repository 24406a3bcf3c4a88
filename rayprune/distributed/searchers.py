"""Ray Tune's searchers and schedulers, made from the words of a study."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any, NamedTuple

from ray import tune
from ray.tune.schedulers import SCHEDULER_IMPORT, TrialScheduler, create_scheduler
from ray.tune.search import SEARCH_ALG_IMPORT, Searcher

from rayprune.config import ConfigError, Dimension, Study
from rayprune.config.goals import goals_of
from rayprune.config.search_rules import SET_BY_US
from rayprune.distributed.trial import CYCLES_DONE, RETRAIN_EPOCHS
from rayprune.points import option_label, options_of, resolve


class Library(NamedTuple):
    """What a searcher needs, as `import` and pip call it."""

    module: str
    package: str
    extra: str = ""

    @property
    def install(self) -> str:
        """The command that installs it."""
        return f"pip install '{f'rayprune[{self.extra}]' if self.extra else self.package}'"


LIBRARIES = {
    "optuna": Library("optuna", "optuna", "optuna"),
    "hyperopt": Library("hyperopt", "hyperopt", "hyperopt"),
    "bayesopt": Library("bayes_opt", "bayesian-optimization", "bayesopt"),
    "ax": Library("ax", "ax-platform"),
    "nevergrad": Library("nevergrad", "nevergrad"),
    "zoopt": Library("zoopt", "zoopt"),
    "hebo": Library("hebo", "HEBO"),
}
SEED_ARGUMENTS = {
    "optuna": "seed",
    "hyperopt": "random_state_seed",
    "bayesopt": "random_state",
    "hebo": "random_state_seed",
}
ASHA = ("asha", "async_hyperband", "asynchyperband")
MEDIAN = ("median_stopping_rule", "medianstopping")
ANY_LENGTH = 1_000_000  # for a check before it is known how long trials are


def make_searcher(study: Study, points_to_evaluate: Sequence[Mapping[str, Any]] = ()) -> Searcher:
    """The searcher that `search.algorithm` names; it proposes `points_to_evaluate` first.

    A point is dimension -> value, as in a trial's values. Raises ``ConfigError`` where the library
    is missing, or does not take the arguments.
    """
    algorithm, space = study.search.algorithm, study.search.space
    _check_library(algorithm.name)
    kind = SEARCH_ALG_IMPORT[algorithm.name]()
    place = f"search.algorithm {algorithm.name}"
    _check_arguments(place, kind, algorithm.arguments, SET_BY_US["algorithm"])
    arguments = dict(algorithm.arguments)
    if algorithm.name in SEED_ARGUMENTS:
        # What it would draw first with a seed that was used before is known already.
        name = SEED_ARGUMENTS[algorithm.name]
        seed = arguments.get(name, study.experiment.seed)
        arguments[name] = seed + len(points_to_evaluate) if isinstance(seed, int) else seed
    searched = {name: d for name, d in space.items() if d.equals is None}
    is_optuna = algorithm.name == "optuna"
    points = [_as_proposed(searched, point, whole=not is_optuna) for point in points_to_evaluate]
    metric, mode = _goals(study)
    with _told_as(place), _quiet(algorithm.name):
        if is_optuna:
            return kind(
                space=OptunaSpace(study),
                metric=metric,
                mode=mode,
                points_to_evaluate=points,
                **arguments,
            )
        searcher = kind(points_to_evaluate=points or None, **arguments)
        domains = {name: _domain(dimension) for name, dimension in searched.items()}
        searcher.set_search_properties(metric, mode, domains)
        return searcher


def make_scheduler(study: Study, longest: int) -> TrialScheduler | None:
    """The scheduler that `search.scheduler` names, None if there is none.

    `longest` is how far the longest trial goes, in epochs of retraining or cycles as
    `search.scheduler.unit` says. Raises ``ConfigError`` for arguments that it does not take.
    """
    scheduler = study.search.scheduler
    if scheduler is None:
        return None
    name = "async_hyperband" if scheduler.name == "asha" else scheduler.name
    place = f"search.scheduler {scheduler.name}"
    kind: Any = SCHEDULER_IMPORT[name]
    _check_arguments(place, kind, scheduler.arguments, SET_BY_US["scheduler"])
    defaults: dict[str, Any] = {
        "time_attr": RETRAIN_EPOCHS if scheduler.unit == "epochs" else CYCLES_DONE
    }
    if scheduler.name in ASHA:
        defaults |= {"max_t": max(1, longest), "grace_period": 1, "reduction_factor": 3}
    elif scheduler.name in MEDIAN:
        defaults |= {"grace_period": 1}
    elif scheduler.name == "hyperband":
        defaults |= {"max_t": max(1, longest)}
    with _told_as(place):
        return create_scheduler(name, **{**defaults, **scheduler.arguments})


def check_search(study: Study) -> None:
    """Make searcher and scheduler once, before Ray starts. Raises ``ConfigError``."""
    make_scheduler(study, ANY_LENGTH)
    if not study.search.algorithm.is_listed:
        make_searcher(study)


class OptunaSpace:
    """A search space as Optuna asks for it: dimension by dimension, those that `when` allows."""

    def __init__(self, study: Study) -> None:
        self._study = study

    def __call__(self, trial: Any) -> None:
        """Ask an Optuna trial for a value of every dimension that is set."""

        def choose(name: str, dimension: Dimension) -> Any:
            return _suggest(trial, name, dimension)

        # A point without a value for an expression has a mistake, which the trial made of it says.
        with suppress(ValueError):
            resolve(self._study, self._study.search.space, choose)


def _suggest(trial: Any, name: str, dimension: Dimension) -> Any:
    """The proposed value, as the study writes it."""
    if dimension.uniform is not None:
        return trial.suggest_float(name, *dimension.uniform)
    if dimension.log_uniform is not None:
        return trial.suggest_float(name, *dimension.log_uniform, log=True)
    if dimension.integers is not None:
        return trial.suggest_int(name, *dimension.integers)
    options = {option_label(option): option for option in options_of(dimension)}
    return options[trial.suggest_categorical(name, list(options))]


def _domain(dimension: Dimension) -> Any:
    """A dimension in Tune's words."""
    if dimension.uniform is not None:
        return tune.uniform(*dimension.uniform)
    if dimension.log_uniform is not None:
        return tune.loguniform(*dimension.log_uniform)
    if dimension.integers is not None:
        low, high = dimension.integers
        return tune.randint(low, high + 1)
    return tune.choice([option_label(option) for option in options_of(dimension)])


def _as_proposed(
    searched: Mapping[str, Dimension], point: Mapping[str, Any], *, whole: bool
) -> dict[str, Any]:
    """A point as a searcher knows it; `whole` gives dimensions that are not set a value, too."""
    proposed = {}
    for name, dimension in searched.items():
        options = [option_label(option) for option in options_of(dimension)]
        value = option_label(point.get(name))
        if value is not None or None in options:
            proposed[name] = value
        elif whole:
            proposed[name] = options[0] if options else _low(dimension)
    return proposed


def _low(dimension: Dimension) -> Any:
    span = dimension.uniform or dimension.log_uniform or dimension.integers
    assert span is not None
    return span[0]


def _goals(study: Study) -> tuple[Any, Any]:
    """Metric and mode, in lists where there are several."""
    goals = goals_of(study)
    if len(goals.metrics) == 1:
        return goals.tune_metric, goals.tune_mode
    return list(goals.metrics), list(goals.modes)


def _check_library(name: str) -> None:
    library = LIBRARIES[name]
    try:
        module = import_module(library.module)
    except ImportError as error:
        is_itself = error.name is None or error.name.split(".")[0] == library.module
        reason = "" if is_itself else f", which needs {error.name}"
        raise ConfigError(
            f"search.algorithm {name} needs the package {library.package}{reason}: "
            f"{library.install}"
        ) from None
    if name == "bayesopt" and not hasattr(module, "UtilityFunction"):
        raise ConfigError(
            f"search.algorithm bayesopt: Ray Tune works with bayesian-optimization below 2, got "
            f"{module.__version__}: {library.install}"
        )


def _check_arguments(
    place: str, kind: Callable[..., Any], given: Mapping[str, Any], ours: Mapping[str, str]
) -> None:
    parameters = inspect.signature(kind).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):  # the library's own, which it checks
        return
    known = [p.name for p in parameters if p.name not in ours]
    unknown = [name for name in given if name not in known]
    if unknown:
        takes = f"It takes {', '.join(known)}" if known else "It takes none"
        raise ConfigError(f"{place}: no argument {', '.join(unknown)}. {takes}")


@contextmanager
def _told_as(place: str) -> Iterator[None]:
    """What a library finds wrong with its arguments is the study's mistake."""
    try:
        yield
    except (AssertionError, TypeError, ValueError, KeyError, ImportError, AttributeError) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ConfigError(f"{place}: {reason}") from error


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Optuna says on stderr that it made a study; its own level is afterwards what it was."""
    log = logging.getLogger(name)
    before = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(before)
