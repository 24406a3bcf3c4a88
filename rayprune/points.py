"""Points of a search space: the value of every dimension, and the fields that they set."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from rayprune.config import Dimension, Experiment, Space, Study
from rayprune.config.dependence import followed, in_order, used
from rayprune.config.expression import evaluate, names
from rayprune.config.fields import is_whole, value_at
from rayprune.config.load import set_field
from rayprune.plan.numbers import cycle_epochs, dense_epochs, dense_schedule, retrain_schedule

Choose = Callable[[str, Dimension], Any]

MAX_TRIES = 100  # of a draw that `where` excludes, or that was drawn before

# Fields that say nothing by themselves, and what they mean then.
MEANINGS: Mapping[str, Callable[[Experiment], Any]] = {
    "dense.epochs": dense_epochs,
    "dense.schedule": dense_schedule,
    "retrain.epochs": lambda experiment: next(reversed(cycle_epochs(experiment)), None),
    "retrain.schedule": retrain_schedule,
}


@dataclass(frozen=True)
class Point:
    """A value for every dimension of a space; None for those that `when` leaves unset."""

    values: Mapping[str, Any] = field(default_factory=dict)
    """As the table shows them: a label for cases."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Paths inside the experiment -> what to set there."""
    mistake: str = ""
    """Why it has no values."""


def points_of(study: Study, space: Space) -> Iterator[Point]:
    """Every point that `search.where` does not exclude, in a fixed order.

    What is drawn depends on the experiment's seed, the point of the grid and the number of the
    sample alone.
    """
    if study.search.algorithm.name == "random":
        yield from drawn_points(study, space, study.search.num_samples)
        return
    listed = {name: d for name, d in space.items() if d.grid is not None or d.cases is not None}
    drawn = {name for name, d in space.items() if name not in listed and d.equals is None}
    before = {name: d for name, d in space.items() if not drawn & set(followed(space, name))}
    may_differ = not set(used(space, study.search.where)) <= set(before)
    may_repeat = any(dimension.when is not None for dimension in space.values())
    seen: set[str] = set()
    for chosen in itertools.product(*(options_of(d) for d in listed.values())):
        at = dict(zip(listed, chosen, strict=True))
        # What `when` leaves unset draws alike, whatever the grid has there.
        unset = _unset(study, before, at)
        place = {name: None if name in unset else value for name, value in at.items()}
        for sample in range(study.search.num_samples if drawn else 1):
            tries = range(MAX_TRIES if may_differ else 1)
            drawings = (_drawn(study, space, at, [place, sample, again]) for again in tries)
            point = next((point for point in drawings if not _is_excluded(study, point)), None)
            if point is not None and not (may_repeat and _is_known(point, seen)):
                yield point


def tries_of(study: Study, space: Space, setting: Point) -> list[Point]:
    """The different points that are tried for a setting; first what is tuned as it is written.

    `setting` is a point of `space`, which lists what is compared. Fewer than `search.tune.tries`
    where there are not as many.
    """
    tune = study.search.tune
    assert tune is not None
    tuned = dict(tune.space)
    for name, dimension in space.items():
        if dimension.cases is not None:
            tuned |= tune.spaces.get(str(setting.values[name]), {})
    at = {name: v for name, v in setting.values.items() if space[name].equals is None}
    try:
        as_written = Experiment.model_validate(raw_experiment(study, setting.fields)["experiment"])
    except ValueError as error:
        return [Point(setting.values, mistake=str(error))]
    written = {name: value_at(as_written, name) for name, d in tuned.items() if d.is_drawn}
    whole: Space = {**space, **tuned}
    found: list[Point] = []
    seen: set[str] = set()
    for sample in range(tune.tries + 1):  # one more where what is written is excluded
        first = {**at, **written} if sample == 0 else at
        tries = range(MAX_TRIES if sample else 1)
        drawings = (_drawn(study, whole, first, [at, sample, again]) for again in tries)
        good = (p for p in drawings if not _is_excluded(study, p) and not _is_known(p, seen))
        found += itertools.islice(good, 1)
    return found[: tune.tries]


def drawn_points(study: Study, space: Space, number: int) -> Iterator[Point]:
    """Different points with every dimension drawn; fewer where the space has not as many."""
    seen: set[str] = set()
    for sample in range(number):
        drawings = (_drawn(study, space, {}, [{}, sample, again]) for again in range(MAX_TRIES))
        yield from itertools.islice(
            (p for p in drawings if not _is_excluded(study, p) and not _is_known(p, seen)), 1
        )


def resolve(study: Study, space: Space, choose: Choose) -> Point:
    """The point with the values that `choose` takes for the dimensions that are set.

    It is asked for each after all that its `when` follows from. Raises ``ValueError`` where an
    expression has no value.
    """
    values: dict[str, Any] = {}
    sets: dict[str, Mapping[str, Any]] = {}

    def value_of(name: str) -> Any:
        return _value_of(study, name, values, _merged(space, sets))

    for name in in_order(space):
        dimension = space[name]
        if dimension.when is not None and not evaluate(dimension.when, value_of):
            values[name] = None
            continue
        if dimension.equals is not None:
            values[name] = _whole(name, evaluate(dimension.equals, value_of))
        else:
            values[name] = choose(name, dimension)
        sets[name] = {name: values[name]}
        if dimension.cases is not None:
            sets[name] = dimension.cases[values[name]]
    return Point({name: values[name] for name in space}, _merged(space, sets))


def broken_condition(study: Study, point: Point) -> str | None:
    """The first condition of `search.where` that does not hold. Raises ``ValueError``."""

    def value_of(name: str) -> Any:
        return _value_of(study, name, point.values, point.fields)

    return next((text for text in study.search.where if not evaluate(text, value_of)), None)


def values_in(study: Study, point: Point, text: str) -> str:
    """The names of an expression with their values at a point, to be shown."""
    return ", ".join(
        f"{name}={_value_of(study, name, point.values, point.fields)}" for name in names(text)
    )


def raw_experiment(study: Study, fields: Mapping[str, Any]) -> dict[str, Any]:
    """{"experiment": the study's, with these fields set}. Raises ``ValueError``."""
    raw = {"experiment": study.experiment.model_dump(mode="json", exclude_unset=True)}
    for path, value in fields.items():
        # A copy: a field inside of what a case sets may be set after it.
        set_field(raw, ["experiment", *path.split(".")], deepcopy(value))
    return raw


def _value_of(study: Study, name: str, values: Mapping[str, Any], fields: Mapping[str, Any]) -> Any:
    """Of a dimension or a field: the point's, else the experiment's, else what it means then."""
    if values.get(name) is not None:
        return values[name]
    value = value_at(study.experiment, name)
    for path, given in fields.items():
        if name == path:
            value = given
        elif name.startswith(f"{path}."):
            value = value_at(given, name.removeprefix(f"{path}."))
    if value is not None or name not in MEANINGS:
        return value
    try:
        experiment = Experiment.model_validate(raw_experiment(study, fields)["experiment"])
    except ValueError:  # not all is set yet
        experiment = study.experiment
    return MEANINGS[name](experiment)


def _merged(space: Space, sets: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """All fields that are set: drawn ones after listed ones, and what follows last."""

    def turn(name: str) -> int:
        dimension = space[name]
        if dimension.equals is not None:
            return 2
        return 0 if dimension.grid is not None or dimension.cases is not None else 1

    inner = (sets[name] for name in sorted(space, key=turn) if name in sets)
    return {path: value for fields in inner for path, value in fields.items()}


def _whole(name: str, value: Any) -> Any:
    """Of a whole field the int: 2.0 is 2 there, and stays what it is elsewhere."""
    is_exact = isinstance(value, float) and value.is_integer()
    return int(value) if is_exact and is_whole(name) else value


def _unset(study: Study, space: Space, at: Mapping[str, Any]) -> set[str]:
    """The dimensions that are not set at a point of the grid."""
    if all(dimension.when is None for dimension in space.values()):
        return set()
    chosen: set[str] = set()

    def choose(name: str, dimension: Dimension) -> Any:
        chosen.add(name)
        return at[name]

    try:
        resolve(study, space, choose)
    except ValueError:  # it is told when the point itself is made
        return set()
    return {name for name in space if name in at and name not in chosen}


def _drawn(study: Study, space: Space, at: Mapping[str, Any], place: list[Any]) -> Point:
    """The point with the values of `at`, and all others drawn: equal ones at equal places."""
    *place, again = place
    values = dict(at)

    def choose(name: str, dimension: Dimension) -> Any:
        if name in at:
            return at[name]
        values[name] = draw(dimension, generator(name))
        return values[name]

    def generator(name: str) -> random.Random:
        # Not the values of the grids: they may get more. Nor the order of the fields.
        where = [study.experiment.seed, sorted(space), *place, name, *([again] if again else [])]
        return random.Random(json.dumps(where, sort_keys=True, default=str))

    try:
        point = resolve(study, space, choose)
        broken_condition(study, point)
    except ValueError as error:
        return Point(values, mistake=str(error))
    return point


def _is_excluded(study: Study, point: Point) -> bool:
    return not point.mistake and broken_condition(study, point) is not None


def _is_known(point: Point, seen: set[str]) -> bool:
    """Whether an equal point is in `seen`; it is afterwards."""
    same = json.dumps([point.values, point.fields, point.mistake], sort_keys=True, default=str)
    if same in seen:
        return True
    seen.add(same)
    return False


def options_of(dimension: Dimension) -> list[Any]:
    """What a dimension chooses from, labels for cases; empty for numbers in a range."""
    return list(dimension.cases or dimension.grid or dimension.choice or ())


def option_label(option: Any) -> Any:
    """What stands for an option where only plain values can: lists and dictionaries as a text."""
    is_plain = isinstance(option, str | int | float | None)
    return option if is_plain else json.dumps(option, sort_keys=True, default=str)


def draw(dimension: Dimension, random_: random.Random) -> Any:
    """A value of any dimension but one that follows from others; a label for cases."""
    options = options_of(dimension)
    if options:
        return random_.choice(options)
    if dimension.uniform:
        return random_.uniform(*dimension.uniform)
    if dimension.integers:
        return random_.randint(*dimension.integers)
    assert dimension.log_uniform
    low, high = dimension.log_uniform
    return low * (high / low) ** random_.random()
