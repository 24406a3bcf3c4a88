"""Where Ray Tune's trials come from: a list that was made before, or one of Tune's searchers."""

from __future__ import annotations

import math
import statistics
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from rayprune.config import Study
from rayprune.config.goals import goals_of
from rayprune.distributed.trial import FAILED
from rayprune.results.proposed import Proposal
from rayprune.trials import TrialPlan

Point = Mapping[str, Any]


class Trials(Searcher):
    """Hands trials to Tune, which knows them by ``config["trial"]`` and their searched values.

    No more than `limit()` at a time: Tune's own limit could not grow with the cluster.
    """

    def __init__(self, limit: Callable[[], int]) -> None:
        super().__init__()
        self._limit = limit
        self._running: set[str] = set()

    def suggest(self, trial_id: str) -> Any:
        """The next trial's configuration, None for not now, or FINISHED."""
        config = self._next_config(trial_id) if len(self._running) < self._limit() else None
        if isinstance(config, dict):
            self._running.add(trial_id)
        return config

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """A trial is over; its last result, if it has one."""
        self._running.discard(trial_id)
        self._learn(trial_id, result or {}, error)

    @abstractmethod
    def _next_config(self, trial_id: str) -> Any: ...

    def _learn(self, trial_id: str, result: dict[str, Any], error: bool) -> None:
        """A list learns nothing."""

    def set_search_properties(self, *arguments: Any, **spec: Any) -> bool:
        """Tune asks whether the metric is right."""
        return True

    def save(self, checkpoint_path: str) -> None:
        """What Tune writes down, for a restore that nothing here uses."""
        Path(checkpoint_path).touch()


class Listed(Trials):
    """Trials that are known, or that a study makes of its own results while it runs."""

    def __init__(
        self,
        trials: Sequence[TrialPlan],
        limit: Callable[[], int],
        more: Callable[[], Sequence[TrialPlan] | None] = tuple,
    ) -> None:
        """`more` returns what has come since it was asked last; None: none yet, but maybe later."""
        super().__init__(limit)
        self._left, self._more = list(reversed(trials)), more

    def _next_config(self, trial_id: str) -> Any:
        if not self._left:
            more = self._more()
            if more is None:
                return None
            self._left = list(reversed(more))
        return _config(self._left.pop()) if self._left else Searcher.FINISHED


@dataclass
class _Group:
    """A point with all its seeds: the searcher learns the mean over them."""

    first: str
    """Tune's id of its first trial, by which the searcher knows the point."""
    left: int
    results: list[Mapping[str, float] | None] = field(default_factory=list)
    """None for a trial that failed, or came to no finite value."""


@dataclass
class KnownPoint:
    """A point that an earlier start proposed, and its trials."""

    point: Point
    trials: dict[int | None, TrialPlan] = field(default_factory=dict)
    """Seed -> trial."""


def known_points(known: Sequence[tuple[Proposal, TrialPlan]]) -> list[KnownPoint]:
    """The points of these proposals, in their order; one that was proposed twice is there twice."""
    points: list[KnownPoint] = []
    for proposal, trial in known:
        lacking = (p for p in points if p.point == proposal.point and proposal.seed not in p.trials)
        point = next(lacking, None)
        if point is None:
            point = KnownPoint(proposal.point)
            points.append(point)
        point.trials[proposal.seed] = trial
    return points


class Searched(Trials):
    """Trials of the points that a searcher proposes; what earlier starts proposed comes first."""

    def __init__(
        self,
        searcher: Searcher,
        study: Study,
        known: Sequence[KnownPoint],
        propose: Callable[[Point, int | None], TrialPlan],
        limit: Callable[[], int],
    ) -> None:
        """`searcher` proposes the `known` points first, in any order; `propose` makes trials."""
        super().__init__(limit)
        self._searcher, self._search, self._propose = searcher, study.search, propose
        self._goals, self._modes = _told(study)
        self._known = list(known)
        self._points_left = max(study.search.num_samples, len(known))
        self._next: list[tuple[_Group, TrialPlan]] = []
        self._groups: dict[str, _Group] = {}
        self._worst: dict[str, float] = {}
        self._without_result: list[str] = []

    def _next_config(self, trial_id: str) -> Any:
        if not self._next:
            if self._points_left == 0:
                return Searcher.FINISHED
            point = self._searcher.suggest(trial_id)
            if point is None or isinstance(point, str):
                return point
            self._points_left -= 1
            trials = self._trials_of(point)
            group = _Group(trial_id, left=len(trials))
            self._next = [(group, trial) for trial in trials]
        self._groups[trial_id], trial = self._next.pop(0)
        return _config(trial)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Values on the way: a searcher that knows fidelities learns from those of retraining."""
        goals, group = self._goals, self._groups[trial_id]
        is_told = result.get("phase") == "retrain" and len(goals) == 1 and goals[0] in result
        if is_told and group.left == 1 and not group.results:
            self._searcher.on_trial_result(trial_id, result)

    def _learn(self, trial_id: str, result: dict[str, Any], error: bool) -> None:
        group, goals = self._groups.pop(trial_id), self._goals
        # No searcher learns from a loss that is no number, and none is worse than it.
        has_values = all(math.isfinite(result.get(goal, math.nan)) for goal in goals)
        is_good = not error and FAILED not in result and has_values
        group.results.append({goal: result[goal] for goal in goals} if is_good else None)
        group.left -= 1
        if group.left:
            return
        good = [each for each in group.results if each is not None]
        if len(good) == len(group.results):
            means = {goal: statistics.fmean(each[goal] for each in good) for goal in goals}
            self._searcher.on_trial_complete(group.first, {**result, **means})
            self._note_worst(means)
        else:
            self._without_result.append(group.first)
        self._tell_of_failures()

    def _note_worst(self, means: Mapping[str, float]) -> None:
        for goal, mode in zip(self._goals, self._modes, strict=True):
            worse = min if mode == "max" else max
            self._worst[goal] = worse(means[goal], self._worst.get(goal, means[goal]))

    def _tell_of_failures(self) -> None:
        """A point without a result is as bad as the worst: searchers learn nothing from an error.

        Told as one, it would be proposed again and again.
        """
        while self._worst and self._without_result:
            self._searcher.on_trial_complete(self._without_result.pop(), dict(self._worst))

    def _trials_of(self, point: Point) -> list[TrialPlan]:
        """The trials of a point, one for each seed: those that there are, and new ones."""
        known = next((p for p in self._known if _is_same(p.point, point)), None)
        if known is None:
            known = KnownPoint(point)
        else:
            self._known.remove(known)
        seeds: Sequence[int | None] = self._search.seeds or (None,)
        # A seed that the study has no more: its trial was begun, and is brought to its end.
        seeds = list(dict.fromkeys([*seeds, *known.trials]))
        return [known.trials.get(seed) or self._propose(known.point, seed) for seed in seeds]


def _told(study: Study) -> tuple[Sequence[str], Sequence[str]]:
    """What a searcher is told of every trial, and for each whether more or less is better."""
    goals = goals_of(study)
    if goals.within_dense is not None:
        return (goals.tune_metric,), (goals.tune_mode,)
    return goals.metrics, goals.modes


def _config(trial: TrialPlan) -> dict[str, Any]:
    phase = {"phase": trial.phase} if trial.phase else {}
    return {"trial": trial.name, **phase, **trial.values}


def _is_same(one: Point, other: Point) -> bool:
    """Whether two points are one, as far as a searcher keeps the bits of its numbers."""
    return one.keys() == other.keys() and all(_is_equal(one[k], other[k]) for k in one)


def _is_equal(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-9)
    return bool(one == other)
