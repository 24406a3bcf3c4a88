"""What the fields of a search must be together; every mistake with what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rayprune.config.dependence import in_order, mistakes_in
from rayprune.config.goals import DEPLOYED
from rayprune.config.tuning_rules import mistakes_of_tuning

if TYPE_CHECKING:
    from rayprune.config.study import Search

LISTED = ("grid", "random")
SEARCHERS = ("optuna", "hyperopt", "bayesopt", "ax", "nevergrad", "zoopt", "hebo")
SEVERAL_GOALS = (*LISTED, "optuna")
SCHEDULERS = (
    "asha",
    "async_hyperband",
    "asynchyperband",
    "median_stopping_rule",
    "medianstopping",
    "hyperband",
    "fifo",
)
# Of Tune's schedulers those that do not fit, and why.
UNFIT = dict.fromkeys(
    ("pbt", "pbt_replay", "pb2"),
    "it changes fields of a trial that runs, and a trial's stages are shared with others",
) | {
    "resource_changing": "it changes what a trial runs on, and the slots of scaling run all trials",
    "hb_bohb": "it works with the searcher bohb alone, which is not among search.algorithm's",
}
TRACKERS = ("mlflow", "wandb")
SET_BY_US = {
    "algorithm": {
        "space": "search.space",
        "metric": "search.metric",
        "mode": "search.metric",
        "points_to_evaluate": "what the study has finished",
        "evaluated_rewards": "what the study has finished",
    },
    "scheduler": {
        "metric": "search.metric",
        "mode": "search.metric",
        "time_attr": "search.scheduler.unit",
    },
}


def check_name(name: str, known: Sequence[str], kind: str) -> None:
    """Raises a ``ValueError`` that names the nearest, and all that there are."""
    if name not in known:
        there = f"There are {', '.join(known)}"
        raise ValueError(f"no {kind} {name!r}.{_near(name, known)} {there}")


def check_scheduler_name(name: str) -> None:
    """Raises a ``ValueError``, with the reason for one of Tune's that does not fit."""
    if name.lower() in UNFIT:
        raise ValueError(
            f"{name} does not fit: {UNFIT[name.lower()]}. Write one of {', '.join(SCHEDULERS)}"
        )
    check_name(name, SCHEDULERS, "scheduler")


def check_arguments(arguments: Collection[str], kind: str) -> None:
    """Raises a ``ValueError`` for an argument that follows from other fields of the study."""
    ours = SET_BY_US[kind]
    mistakes = [f"{a} follows from {ours[a]}. Leave it out" for a in arguments if a in ours]
    if mistakes:
        raise ValueError("\n".join(mistakes))


def check_search(search: Search) -> None:
    """Raises a ``ValueError`` with a line for every rule that is broken."""
    rules = (
        _of_metrics,
        _of_measure,
        _of_algorithm,
        _of_expressions,
        mistakes_of_tuning,
        _of_reference,
    )
    mistakes = [mistake for rule in rules for mistake in rule(search)]
    if mistakes:
        raise ValueError("\n".join(mistakes))


def _of_metrics(search: Search) -> Iterator[str]:
    metrics, first = search.metrics, search.metrics[0]
    listed = f"[{', '.join(metrics)}]"
    if len(metrics) == 1:
        if not first.startswith("val_"):
            yield (
                f"metric {first} alone is best where nothing is learned. Write metric: "
                f"[val_accuracy, {first}] for both, or {_instead_of(first)}"
            )
        return
    if not first.startswith("val_"):
        yield (
            f"metric must begin with one that is measured on the validation split, got {listed}. "
            f"Write [val_accuracy, {', '.join(m for m in metrics if m != 'val_accuracy')}]"
        )
    if search.algorithm.name not in SEVERAL_GOALS and not DEPLOYED.keys() & {*metrics}:
        yield (
            f"algorithm {search.algorithm.name} knows one goal, and metric is {listed}. Write "
            f"algorithm: optuna, or one metric"
        )
    if search.scheduler is not None:
        yield (
            f"scheduler {search.scheduler.name} compares trials by one metric, and metric is "
            f"{listed}. Leave one of the two out"
        )
    if search.within_dense is not None:
        yield (
            f"within_dense makes one question of accuracy and sparsity, and metric is {listed}. "
            "Leave within_dense out, or write one metric"
        )


def _instead_of(count: str) -> str:
    """What asks for the best of a count without having it as a goal."""
    if count in DEPLOYED:
        return f"within: {{{count}: …}} for the best metric within a limit"
    return "within_dense: 0.01 for the sparsest model within one point of its dense run"


def _of_measure(search: Search) -> Iterator[str]:
    """Goals and limits on what is measured once all trials are trained."""
    goals = [metric for metric in search.metrics if metric in DEPLOYED]
    for name in search.within:
        if name not in DEPLOYED:
            yield (
                f"within.{name}: nothing of that name is measured.{_near(name, [*DEPLOYED])} "
                f"There are {' and '.join(DEPLOYED)}"
            )
    limits = [f"within.{name}" for name in search.within if name in DEPLOYED]
    if search.measure is None and (goals or limits):
        named = ", ".join([*(f"metric {goal}" for goal in goals), *limits])
        yield (
            f"{named}: is measured in a runtime, and measure names none. Write measure: mnn, or "
            "one of onnx, openvino and torch"
        )
    if goals and not search.algorithm.is_listed:
        others = [metric for metric in search.metrics if metric not in DEPLOYED]
        yield (
            f"algorithm {search.algorithm.name} learns from each trial as it ends, and "
            f"{' and '.join(goals)} is measured after all are trained, when nothing else of ours "
            f"runs. Write algorithm: random, or metric: {', '.join(others) or 'val_accuracy'} "
            f"and within: {{{goals[0]}: …}}"
        )


def _of_algorithm(search: Search) -> Iterator[str]:
    algorithm, scheduler = search.algorithm, search.scheduler
    if algorithm.is_listed:
        if algorithm.arguments:
            yield f"algorithm {algorithm.name} takes no {', '.join(algorithm.arguments)}. Leave out"
        return
    if search.spaces:
        yield (
            f"algorithm {algorithm.name} searches one space, got search.spaces. Write one "
            "search.space, in which `when` says where a dimension belongs"
        )
    elif all(dimension.equals is not None for dimension in search.space.values()):
        yield (
            f"algorithm {algorithm.name} has no dimension to search. Write such as "
            "space: {optim.lr: {log_uniform: [0.01, 1]}}"
        )
    for name, dimension in search.space.items():
        if "/" in name:
            yield f"space.{name}: algorithm {algorithm.name} takes no / in a name. Leave it out"
        if algorithm.name == "bayesopt" and dimension.uniform is None and dimension.equals is None:
            yield (
                f"space.{name}: bayesopt takes uniform alone. Write {{uniform: [low, high]}}, or "
                "algorithm: optuna, which takes all"
            )
    is_hyperband = scheduler is not None and scheduler.name == "hyperband"
    if scheduler is not None and is_hyperband and "max_t" not in scheduler.arguments:
        yield (
            f"scheduler hyperband needs the most {scheduler.unit} that a trial retrains, which "
            f"nobody knows before {algorithm.name} proposes it. "
            "Write scheduler: {name: hyperband, max_t: …}"
        )


def _of_reference(search: Search) -> Iterator[str]:
    reference = search.reference
    if reference is None:
        return
    searched = list(dict.fromkeys(name for space in search.all_spaces for name in space))
    if not reference:
        yield "reference is empty. Write such as reference: {retrain.schedule: allr}, or leave out"
    for name, value in reference.items():
        if name == "seed":
            yield "reference.seed: a setting is compared over all its seeds. Leave it out"
        elif name not in searched:
            there = f"Searched are {', '.join(searched)}" if searched else "Nothing is searched"
            yield f"reference.{name}: no searched dimension {name}.{_near(name, searched)} {there}"
        else:
            yield from _of_reference_value(search, name, value)


def _of_reference_value(search: Search, name: str, value: Any) -> Iterator[str]:
    """A value that no setting can have, where all that there are are listed."""
    dimensions = [space[name] for space in search.all_spaces if name in space]
    lists = [list(d.grid or d.cases or d.choice or ()) for d in dimensions]
    is_everywhere = len(dimensions) == len(search.all_spaces)
    may_be_unset = not is_everywhere or any(d.when is not None for d in dimensions)
    options = [option for listed in lists for option in listed]
    if not all(lists) or value in options or (value is None and may_be_unset):
        return
    words = list(dict.fromkeys(map(str, options)))
    yield (
        f"reference.{name} must be one of {', '.join(words)}, got {value!r}."
        f"{_near(str(value), words)}"
    )


def _near(word: str, known: Sequence[str]) -> str:
    near = {option.lower(): option for option in known}
    matches = difflib.get_close_matches(word.lower(), near, 1)
    return f" Did you mean {near[matches[0]]}?" if matches else ""


def _of_expressions(search: Search) -> Iterator[str]:
    several = bool(search.spaces)
    for number, space in enumerate(search.all_spaces):
        place = f"spaces.{number}" if several else "space"
        mistakes = [
            mistake
            for name, dimension in space.items()
            for word in ("when", "equals")
            for mistake in mistakes_in(getattr(dimension, word), f"{place}.{name}.{word}", space)
        ]
        yield from mistakes
        if not mistakes:
            try:
                in_order(space)
            except ValueError as error:
                yield f"{place}: {error}"
    every = {name: d for space in search.all_spaces for name, d in space.items()}
    for space in search.tune.all_spaces.values() if search.tune else ():
        every |= space
    for text in search.where:
        yield from mistakes_in(text, "where", every)
