"""Where Ray Tune's trials come from: a list that was made before, or one of Tune's searchers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from rayprune.config import Search
from rayprune.distributed.trial import FAILED, GOAL
from rayprune.results.proposed import Proposal, points_of
from rayprune.trials import TrialPlan

Point = Mapping[str, Any]


class Trials(Searcher):
    """Hands trials to Tune, which knows them by ``config["trial"]`` and their searched values."""

    def set_search_properties(self, *arguments: Any, **spec: Any) -> bool:
        """Tune asks whether the metric is right."""
        return True

    def save(self, checkpoint_path: str) -> None:
        """What Tune writes down, for a restore that nothing here uses."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Never asked for: a study goes on from its own storage."""
        raise NotImplementedError


class Listed(Trials):
    """Trials that are all known."""

    def __init__(self, trials: Sequence[TrialPlan]) -> None:
        super().__init__()
        self._left = list(reversed(trials))

    def suggest(self, trial_id: str) -> Any:
        return _config(self._left.pop()) if self._left else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """A list learns nothing."""


@dataclass
class _Group:
    """A point with all its seeds: the searcher learns the mean over them."""

    first: str
    """Tune's id of its first trial, by which the searcher knows the point."""
    left: int
    results: list[Mapping[str, float] | None] = field(default_factory=list)
    """None for a trial that failed."""


class Searched(Trials):
    """Trials of the points that a searcher proposes; what earlier starts proposed comes first."""

    def __init__(
        self,
        searcher: Searcher,
        search: Search,
        known: Sequence[tuple[Proposal, TrialPlan]],
        propose: Callable[[Point, int | None], TrialPlan],
    ) -> None:
        """`searcher` proposes the `known` points first, in any order; `propose` makes trials."""
        super().__init__()
        self._searcher, self._search, self._propose = searcher, search, propose
        self._known = list(known)  # those that Tune does not have yet
        num_known = len(points_of([proposal for proposal, _ in known]))
        self._points_left = max(search.num_samples, num_known)
        self._next: list[tuple[_Group, TrialPlan]] = []
        self._groups: dict[str, _Group] = {}

    def suggest(self, trial_id: str) -> Any:
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

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        group, goals = self._groups.pop(trial_id), self._goals
        result = result or {}
        is_good = not error and FAILED not in result and all(goal in result for goal in goals)
        group.results.append({goal: result[goal] for goal in goals} if is_good else None)
        group.left -= 1
        if group.left:
            return
        good = [each for each in group.results if each is not None]
        if len(good) < len(group.results):
            self._searcher.on_trial_complete(group.first, None, error=True)
            return
        means = {goal: statistics.fmean(each[goal] for each in good) for goal in goals}
        self._searcher.on_trial_complete(group.first, {**result, **means})

    @property
    def _goals(self) -> Sequence[str]:
        return self._search.metrics if self._search.within_dense is None else (GOAL,)

    def _trials_of(self, point: Point) -> list[TrialPlan]:
        """The trials of a point, one for each seed: those that there are, each once, and new ones.

        So a point that a searcher proposes twice has trials for each time.
        """
        same = [(p, trial) for p, trial in self._known if _is_same(p.point, point)]
        exact = same[0][0].point if same else point
        trials = []
        for seed in self._search.seeds or (None,):
            known = next((pair for pair in same if pair[0].seed == seed), None)
            if known is not None:
                self._known.remove(known)
            trials.append(self._propose(exact, seed) if known is None else known[1])
        return trials


def _config(trial: TrialPlan) -> dict[str, Any]:
    return {"trial": trial.name, **trial.values}


def _is_same(one: Point, other: Point) -> bool:
    """Whether two points are one, as far as a searcher keeps the bits of its numbers."""
    return one.keys() == other.keys() and all(_is_equal(one[k], other[k]) for k in one)


def _is_equal(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-9)
    return bool(one == other)
