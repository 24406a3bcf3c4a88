"""Rows of a results table that belong together: one setting, one trial, a run and its dense one."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rayprune.results.labels import Row, is_dense
from rayprune.results.setting import Mean, Setting, mean_of


def values_of(row: Row, fields: Sequence[str]) -> tuple[str, ...]:
    """What rows are equal by: the text of each of these fields."""
    return tuple(repr(row.get(name)) for name in fields)


def has_values(row: Row, wanted: Mapping[str, Any]) -> bool:
    """Whether a row has these values, as they are or as the text of a column of mixed kinds."""
    return all(row.get(name) in (value, json.dumps(value)) for name, value in wanted.items())


def grouped(finals: Sequence[Row], fields: Sequence[str]) -> list[list[Row]]:
    """Finals with equal fields, in the order of the table."""
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in finals:
        group = groups[values_of(row, fields)]
        # The same snapshot is one result, however many trials ended in it.
        if all(row["key"] != other["key"] for other in group):
            group.append(row)
    return list(groups.values())


def by_trial(rows: Sequence[Row]) -> Mapping[str, Sequence[Row]]:
    """Trial -> its rows, in the order of the table."""
    trials: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        trials[row["trial"]].append(row)
    return trials


def goal_of(row: Row) -> float | None:
    """The sparsity that a trial was to reach; None for a method that finds its own."""
    goal = row.get("goal_sparsity") or row.get("prune.sparsity")
    return None if goal is None else round(goal, 6)


def against_dense(
    metric: str,
    finals: Sequence[Row],
    rows: Mapping[str, Sequence[Row]],
    reference: Mapping[int, Row],
) -> dict[str, Mean | None]:
    """The finals against the dense run of each one's own trial, or else that of its seed."""
    own = {row["trial"]: d for row in finals for d in rows[row["trial"]] if is_dense(d)}
    pairs = [
        (row[metric], dense[metric])
        for row in finals
        if (dense := own.get(row["trial"]) or reference.get(row.get("seed", 0)))
        and row[metric] is not None
        and dense[metric] is not None
    ]
    return {
        "dense": mean_of(dense for _, dense in pairs),
        "change": mean_of(value - dense for value, dense in pairs),
    }


def distinctly_labelled(settings: Sequence[Setting]) -> list[Setting]:
    """Labels that two settings share get the trial's name."""
    shared = Counter((s.label, s.goal) for s in settings)
    return [
        replace(s, label=f"{s.label} (trial {s.finals[0]['trial']})")
        if shared[s.label, s.goal] > 1
        else s
        for s in settings
    ]
