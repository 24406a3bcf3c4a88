"""From a study to its trials: every point of the search space as an experiment with its plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from rayprune.config import ConfigError, Data, Dimension, Experiment, Model, Study
from rayprune.config.fields import is_field
from rayprune.config.load import make_paths_absolute
from rayprune.config.messages import no_such_field, validated
from rayprune.config.task import AnyTask
from rayprune.fingerprint import contents_of
from rayprune.plan import Conditions, Stage, make_plan, share_dense_runs
from rayprune.points import (
    Point,
    broken_condition,
    drawn_points,
    option_label,
    options_of,
    points_of,
    raw_experiment,
    resolve,
    tries_of,
    values_in,
)

Phase = Literal["", "tune", "report"]
"""Of a trial of a study that tunes: a try, or the choice of a setting on a seed of its own."""

TRIED_POINTS = 50  # of a searcher's space, before anything runs


@dataclass(frozen=True)
class TrialPlan:
    """One point of the search space: its searched values, and the stages they lead to."""

    name: str
    values: Mapping[str, Any]
    experiment: Experiment
    plan: tuple[Stage, ...]
    mistake: str = ""
    """Why a point that a searcher proposed cannot be run; its plan is empty then."""
    phase: Phase = ""
    setting: int = 0
    """Which of the settings that a study tunes it belongs to."""

    @property
    def key(self) -> str:
        """Of its last stage, and so of its result; empty for a point that cannot be run."""
        return self.plan[-1].key if self.plan else ""


def make_trials(study: Study) -> tuple[TrialPlan, ...]:
    """Every point of the search space as a checked experiment with its plan, in a fixed order.

    What is drawn depends on the experiment's seed, the point of the grid and the number of the
    sample alone: a rerun draws the same, and a study that grows keeps the trials that it has. None
    where a searcher proposes the points, see ``make_trial``. Raises ``ConfigError`` naming the
    point that cannot be run.
    """
    if not study.search.algorithm.is_listed:
        return ()
    points = list(_points(study))
    if not points:
        raise ConfigError(_nothing_left(study))
    plans = _planned(study, [point for _, point in points])
    phase: Phase = "tune" if study.search.tune else ""
    width = _width(study, len(points))
    return tuple(
        TrialPlan(f"{number:0{width}d}", point.values, experiment, plan, "", phase, setting)
        for number, ((setting, point), (experiment, plan)) in enumerate(
            zip(points, plans, strict=True)
        )
    )


def report_trials(study: Study, tries: Sequence[TrialPlan], choice: TrialPlan) -> list[TrialPlan]:
    """The trials that report on a setting whose `choice` among all `tries` of the study is made.

    One for each of `search.seeds`. Their names follow on those of the tries, by settings.
    """
    trials, conditions = [], _conditions(study)
    # Where other tries go back to one of its epochs, other choices may: the dense run ends there.
    cuts = {stage.last_epoch for stage in choice.plan if stage.part_of is not None}
    seeds, width = study.search.seeds, len(choice.name)
    for number, seed in enumerate(seeds, start=len(tries) + choice.setting * len(seeds)):
        experiment = choice.experiment.model_copy(update={"seed": seed})
        trial = TrialPlan(
            f"{number:0{width}d}",
            {**choice.values, "seed": seed},
            experiment,
            make_plan(experiment, conditions(experiment), cut_dense_at=cuts),
            phase="report",
            setting=choice.setting,
        )
        trials.append(trial)
    return trials


def num_settings(study: Study) -> int:
    """How many settings a study tunes and compares."""
    return len(_settings(study))


def tuned_names(study: Study) -> tuple[str, ...]:
    """The dimensions whose values are chosen for each setting; none of a study without tuning."""
    spaces = study.search.tune.all_spaces.values() if study.search.tune else ()
    return tuple(dict.fromkeys(name for space in spaces for name in space))


def num_reports(study: Study) -> int:
    """How many trials follow on the tries of a study that tunes, if no setting fails as a whole."""
    return num_settings(study) * len(study.search.seeds) if study.search.tune else 0


def num_proposed(study: Study) -> int:
    """How many trials a searcher is to propose, those of all seeds together."""
    return study.search.num_samples * max(1, len(study.search.seeds))


def make_trial(study: Study, name: str, values: Mapping[str, Any]) -> TrialPlan:
    """The trial of a point that a searcher proposed: dimension -> value, maybe with a `seed`.

    What is proposed for a dimension that follows from others, or that `when` leaves unset, is not
    looked at. A point that cannot be run has a `mistake`, no plan, and the study's own experiment.
    """
    space = study.search.space
    point = Point(dict.fromkeys(space) | dict(values))

    def choose(name: str, dimension: Dimension) -> Any:
        if values.get(name) is None and None not in options_of(dimension):
            raise ValueError(f"{name} was not proposed")
        return _as_written(name, dimension, values[name])

    try:
        point = resolve(study, space, choose)
        if "seed" in values and "seed" not in space:
            point = _with_seed(point, int(values["seed"]))
        _check_conditions(study, point)
        experiment = _experiment(study, point)
        plan = make_plan(experiment, conditions_of(study, experiment))
    except ValueError as error:
        mistake = "; ".join(str(error).split("\n"))
        return TrialPlan(name, _shown(study, point), study.experiment, (), mistake)
    return TrialPlan(name, _shown(study, point), experiment, plan)


def conditions_of(study: Study, experiment: Experiment) -> Conditions:
    """What a study's stages run under: its workers and their devices, and what lies in files."""
    scaling = study.scaling
    on_gpu = scaling.gpus_per_worker > 0
    return Conditions(
        workers=scaling.workers,
        device="cuda" if on_gpu else "cpu",
        threads=0 if on_gpu else scaling.cpus_per_worker,
        contents=contents_of(experiment),
    )


def _conditions(study: Study) -> Callable[[Experiment], Conditions]:
    """`conditions_of`, which looks once at what several experiments name: a folder may be large."""
    known: dict[tuple[Model, Data, AnyTask], Conditions] = {}

    def conditions(experiment: Experiment) -> Conditions:
        named = experiment.model, experiment.data, experiment.task
        if named not in known:
            known[named] = conditions_of(study, experiment)
        return known[named]

    return conditions


def check_space(study: Study) -> None:
    """Try points of a searcher's space, so that one that has none is told before anything runs.

    Raises ``ConfigError`` with the mistake that most of them have.
    """
    space = study.search.space
    paths = [
        path
        for n, d in space.items()
        for case in (d.cases or {n: {n: 0}}).values()
        for path in case
    ]
    unknown = [path for path in dict.fromkeys(paths) if not is_field(path)]
    if unknown:
        lines = [no_such_field(Experiment, path.split("."), "experiment") for path in unknown]
        raise ConfigError("\n".join(lines))
    mistakes: Counter[str] = Counter()
    for point in drawn_points(study, space, TRIED_POINTS):
        trial = make_trial(study, "0", point.values)
        if not trial.mistake:
            return
        mistakes[trial.mistake] += 1
    if not mistakes:
        raise ConfigError(_nothing_left(study))
    ((mistake, number),) = mistakes.most_common(1)
    raise ConfigError(
        f"search.space: none of {mistakes.total()} points that were tried can be run; "
        f"{number} of them because of: {mistake}"
    )


def _as_written(name: str, dimension: Dimension, value: Any) -> Any:
    """A proposed value as the study writes it: libraries have numbers of their own."""
    value = value.item() if hasattr(value, "item") else value
    if dimension.integers is not None and float(value).is_integer():
        return int(value)
    options = options_of(dimension)
    same = [option for option in options if option_label(option) in (value, option_label(value))]
    if dimension.cases is not None and not same:
        raise ValueError(f"{name}={value} is none of {', '.join(dimension.cases)}")
    return same[0] if same else value


def _check_conditions(study: Study, point: Point) -> None:
    broken = broken_condition(study, point)
    if broken is not None:
        raise ValueError(
            f"search.where: {broken} does not hold, at {values_in(study, point, broken)}"
        )


def _shown(study: Study, point: Point) -> dict[str, Any]:
    """The values for the table."""
    names = [*study.search.space, *(["seed"] if study.search.seeds else [])]
    return {name: point.values.get(name) for name in names}


def _nothing_left(study: Study) -> str:
    return f"search.where excludes every point of the space: {' and '.join(study.search.where)}"


def _with_seed(point: Point, seed: int) -> Point:
    values, fields = {**point.values, "seed": seed}, {**point.fields, "seed": seed}
    return replace(point, values=values, fields=fields)


def _at(where: list[str], num_points: int) -> str:
    """Where a mistake is, if it is not everywhere."""
    if not where[0] or len(where) == num_points > 1:
        return ""
    more = f" and {len(where) - 1} more" if len(where) > 1 else ""
    return f" (at {where[0]}{more})"


def _experiment(study: Study, point: Point) -> Experiment:
    """The study's experiment at a point. Raises ``ValueError``."""
    if point.mistake:
        raise ValueError(point.mistake)
    raw = raw_experiment(study, point.fields)
    make_paths_absolute(raw["experiment"])
    experiment = validated(Experiment, raw["experiment"], at="experiment")
    if experiment.batch_size % study.scaling.workers:
        raise ValueError(
            f"experiment.batch_size={experiment.batch_size} must be a multiple of "
            f"scaling.workers={study.scaling.workers}"
        )
    return experiment


def _points(study: Study) -> Iterator[tuple[int, Point]]:
    """Every point of every space, its table's values in one order, repeated with every seed.

    So seeds are paired, drawn values included. Of a study that tunes: every try, with the seeds of
    tuning and the number of the setting that it is of.
    """
    search, tune = study.search, study.search.tune
    spaces = [*search.all_spaces, *(tune.all_spaces.values() if tune else ())]
    names = dict.fromkeys(name for space in spaces for name in space)
    seeds = tune.seeds if tune else search.seeds
    for number, points in enumerate(_settings(study)):
        for point in points:
            point = replace(point, values={name: point.values.get(name) for name in names})
            yield from ((number, _with_seed(point, seed)) for seed in seeds)
            if not seeds:
                yield number, point


def _settings(study: Study) -> list[Sequence[Point]]:
    """For each setting that is compared its tries; a setting is its only one without tuning."""
    search = study.search
    if search.tune is None:
        return [[point] for space in search.all_spaces for point in points_of(study, space)]
    # Conditions may name what is tuned: they are for tries.
    free = study.model_copy(update={"search": search.model_copy(update={"where": ()})})
    tries = [
        tries_of(study, space, point)
        for space in search.all_spaces
        for point in points_of(free, space)
    ]
    return [points for points in tries if points]


def _planned(study: Study, points: Sequence[Point]) -> list[tuple[Experiment, tuple[Stage, ...]]]:
    """The experiments and plans of points. Raises ``ConfigError`` with all mistakes."""
    experiments: list[Experiment] = []
    mistakes: dict[str, list[str]] = {}  # mistake -> the points that have it
    for point in points:
        try:
            experiment = _experiment(study, point)
            make_plan(experiment)  # fields may contradict each other
        except ValueError as error:
            at = ", ".join(f"{path}={value}" for path, value in point.values.items())
            for line in str(error).split("\n"):
                mistakes.setdefault(line, []).append(at)
        else:
            experiments.append(experiment)
    if mistakes:
        lines = (f"{line}{_at(where, len(points))}" for line, where in mistakes.items())
        raise ConfigError("\n".join(lines))
    _check_told_apart(points, experiments)
    plans = share_dense_runs(experiments, _conditions(study))
    return list(zip(experiments, plans, strict=True))


def _check_told_apart(points: Sequence[Point], experiments: Sequence[Experiment]) -> None:
    """Trials are one setting by their values. Raises ``ConfigError``."""
    known: dict[str, Experiment] = {}
    for point, experiment in zip(points, experiments, strict=True):
        if known.setdefault(repr(point.values), experiment) != experiment:
            at = ", ".join(f"{path}={value}" for path, value in point.values.items())
            raise ConfigError(
                f"search: two trials are {at}, and are not the same. Give cases of several spaces "
                "different names"
            )


def _width(study: Study, num_listed: int) -> int:
    """Letters of a trial's name: those of the last one's number."""
    return len(str(num_listed + num_reports(study) - 1))
