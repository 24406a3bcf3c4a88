"""From a study to its trials: every point of the search space as an experiment with its plan."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rayprune.config import ConfigError, Dimension, Experiment, Space, Study
from rayprune.config.load import make_paths_absolute, set_field
from rayprune.config.messages import validated
from rayprune.plan import Stage, make_plan, share_dense_runs


@dataclass(frozen=True)
class TrialPlan:
    """One point of the search space: its searched values, and the stages they lead to."""

    name: str
    values: Mapping[str, Any]
    experiment: Experiment
    plan: tuple[Stage, ...]
    mistake: str = ""
    """Why a point that a searcher proposed cannot be run; its plan is empty then."""

    @property
    def key(self) -> str:
        """Of its last stage, and so of its result; empty for a point that cannot be run."""
        return self.plan[-1].key if self.plan else ""


def make_trials(study: Study) -> tuple[TrialPlan, ...]:
    """Every point of the search space as a checked experiment with its plan, in a fixed order.

    What is drawn depends on the experiment's seed, the point of the grid and the number of the
    sample alone: a rerun draws the same, and a study that grows keeps the trials that it has.
    Raises ``ConfigError`` naming the point that cannot be run.
    """
    points = list(_points(study))
    width = len(str(len(points) - 1))
    experiments: list[Experiment] = []
    mistakes: dict[str, list[str]] = {}  # mistake -> the points that have it
    for values, fields in points:
        try:
            experiment = _experiment(study, fields)
            make_plan(experiment)  # fields may contradict each other
        except ValueError as error:
            point = ", ".join(f"{path}={value}" for path, value in values.items())
            for line in str(error).split("\n"):
                mistakes.setdefault(line, []).append(point)
        else:
            experiments.append(experiment)
    if mistakes:
        lines = (f"{line}{_at(where, len(points))}" for line, where in mistakes.items())
        raise ConfigError("\n".join(lines))
    plans = share_dense_runs(experiments)
    return tuple(
        TrialPlan(f"{number:0{width}d}", values, experiment, plan)
        for number, ((values, _), experiment, plan) in enumerate(
            zip(points, experiments, plans, strict=True)
        )
    )


def num_trials(study: Study) -> int:
    """How many trials the study will have, those of a searcher included."""
    search = study.search
    if search.algorithm.is_listed:
        return len(make_trials(study))
    return search.num_samples * max(1, len(search.seeds))


def _at(where: list[str], num_points: int) -> str:
    """Where a mistake is, if it is not everywhere."""
    if not where[0] or len(where) == num_points > 1:
        return ""
    more = f" and {len(where) - 1} more" if len(where) > 1 else ""
    return f" (at {where[0]}{more})"


def _experiment(study: Study, fields: Mapping[str, Any]) -> Experiment:
    """The study's experiment with these fields set. Raises ``ValueError``."""
    raw = {"experiment": study.experiment.model_dump(mode="json", exclude_unset=True)}
    for path, value in fields.items():
        set_field(raw, ["experiment", *path.split(".")], value)
    make_paths_absolute(raw["experiment"])
    experiment = validated(Experiment, raw["experiment"], at="experiment")
    if experiment.batch_size % study.scaling.workers:
        raise ValueError(
            f"experiment.batch_size={experiment.batch_size} must be a multiple of "
            f"scaling.workers={study.scaling.workers}"
        )
    return experiment


def _points(study: Study) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(searched values for the table, fields to set) of every trial.

    Each point is repeated with every seed, so that seeds are paired, drawn values included.
    """
    search = study.search
    names = dict.fromkeys(name for space in search.all_spaces for name in space)
    for space in search.all_spaces:
        for values, fields in _points_of(space, search.num_samples, study.experiment.seed):
            values = {name: values.get(name) for name in names}
            for seed in search.seeds:
                yield values | {"seed": seed}, fields | {"seed": seed}
            if not search.seeds:
                yield values, fields


def _points_of(
    space: Space, num_samples: int, seed: int
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    listed = {name: _listed(d) for name, d in space.items() if d.grid or d.cases}
    drawn = {name: d for name, d in space.items() if name not in listed}
    for point in itertools.product(*listed.values()):
        at = {name: value for name, (value, _) in zip(listed, point, strict=True)}
        for sample in range(num_samples if drawn else 1):
            values: dict[str, Any] = dict(at)
            fields: dict[str, Any] = {}
            for name, (value, sets) in zip(listed, point, strict=True):
                fields |= {name: value} if sets is None else sets
            for name, dimension in drawn.items():
                # Not the values of the grids: they may get more. Nor the order of the fields.
                place = [seed, sorted(space), at, sample, name]
                draw = random.Random(json.dumps(place, sort_keys=True, default=str))
                values[name] = fields[name] = _draw(dimension, draw)
            yield values, fields


def _listed(dimension: Dimension) -> list[tuple[Any, dict[str, Any] | None]]:
    if dimension.cases:
        return list(dimension.cases.items())
    assert dimension.grid
    return [(value, None) for value in dimension.grid]


def _draw(dimension: Dimension, draw: random.Random) -> Any:
    if dimension.choice:
        return draw.choice(dimension.choice)
    if dimension.uniform:
        return draw.uniform(*dimension.uniform)
    if dimension.integers:
        return draw.randint(*dimension.integers)
    assert dimension.log_uniform
    low, high = dimension.log_uniform
    return low * (high / low) ** draw.random()
