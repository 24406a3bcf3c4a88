"""Which stage of a study is exported, and the experiment that it belongs to."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from rayprune.config import Experiment
from rayprune.results.earlier import read_earlier_study
from rayprune.results.files import storage_of, study_file
from rayprune.results.recorder import Recorder
from rayprune.trials import TrialPlan, make_trials

LEAST_LETTERS = 6  # of a stage's key
MOST_NAMED = 12

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A finished stage of a study."""

    key: str
    trial: str
    """One of the trials that it is a stage of."""
    experiment: Experiment


def choose_stage(
    folder: str, table: pa.Table, best: Row | None, trial: str | None, stage: str | None
) -> Chosen:
    """The last stage of the best trial, or of `trial`, or a `stage` by the beginning of its key.

    Raises ``ValueError`` where there is none, with those that there are.
    """
    rows = table.to_pylist()
    if stage is not None:
        row = _by_key(rows, stage)
    elif trial is not None:
        row = _by_trial(rows, trial)
    elif best is not None:
        row = best
    else:
        raise ValueError(f"no trial has finished in {folder}, so there is no best one")
    return Chosen(key=row["key"], trial=row["trial"], experiment=_plan_of(folder, row).experiment)


def _by_key(rows: Sequence[Row], stage: str) -> Row:
    found = {row["key"]: row for row in rows if row["key"].startswith(stage)}
    if len(found) != 1 or len(stage) < LEAST_LETTERS:
        keys = list(dict.fromkeys(row["key"] for row in rows))
        raise ValueError(
            f"--stage must be the key of a finished stage, or {LEAST_LETTERS} letters and more of "
            f"its beginning, got {stage!r}. There are {_listed(keys)}"
        )
    return next(iter(found.values()))


def _by_trial(rows: Sequence[Row], trial: str) -> Row:
    finals = {row["trial"]: row for row in rows if row["is_final"]}
    if trial not in finals:
        raise ValueError(
            f"--trial must be a finished trial, got {trial!r}. There are {_listed(sorted(finals))}"
        )
    return finals[trial]


def _plan_of(folder: str, row: Row) -> TrialPlan:
    """The trial of a row, as the study in the folder describes it."""
    study = read_earlier_study(folder)
    if study is None:
        raise ValueError(
            f"{study_file(folder)} is missing or cannot be read, and nothing else says which "
            "network this is. Run the study again: what is finished is found"
        )
    here = {"storage": storage_of(folder), "name": folder.rpartition("/")[2]}
    study = study.model_copy(update=here)
    with _without_warnings():  # that finished trials run again is of another start
        trials = Recorder(study, make_trials(study)).trials
    # Where data or code are no longer the same files, keys differ; the trial's name does not.
    named = [trial for trial in trials if trial.name == row["trial"]]
    same = [t for t in trials if any(stage.key == row["key"] for stage in t.plan)]
    both = [trial for trial in named if trial in same]
    if not same + named:
        raise ValueError(
            f"trial {row['trial']} is not in {study_file(folder)}, so nothing says which network "
            "it is. Run the study again, and export then"
        )
    return (both + same + named)[0]


@contextmanager
def _without_warnings() -> Iterator[None]:
    log = logging.getLogger(Recorder.__module__)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return (", ".join(names[:MOST_NAMED]) + more) or "none"
