"""Trials as Tune shows them to callbacks, and what they report."""

from __future__ import annotations

import itertools
from pathlib import Path

from rayprune.config import Study
from rayprune.distributed.tracking import make_trackers
from rayprune.distributed.trial import IS_FINAL

_ids = itertools.count()


class MadeTrial:
    """What Ray's callbacks use of a Tune trial."""

    def __init__(self, name, folder, **values):
        self.trial_id = f"tune{next(_ids)}"
        self.config = {"trial": name, **values}
        self.evaluated_params = dict(self.config)
        self.last_result = {}
        self.local_path = str(Path(folder) / self.trial_id)

    def init_local_path(self):
        Path(self.local_path).mkdir(parents=True, exist_ok=True)


def result(step, *, ends_stage=False, is_final=False, **more):
    """What a trial reports after an epoch of its plan."""
    made = {
        "training_iteration": step,
        "phase": "dense" if step <= 2 else "retrain",
        "val_accuracy": 0.5 + step / 100,
        "val_loss": 1 / step,
        "time_total_s": 1.0,
        "pid": 7,
        IS_FINAL: is_final,
        **more,
    }
    return made | {"test_accuracy": 0.4, "num_nonzero": 10} if ends_stage else made


PLAN = [result(1), result(2, ends_stage=True), result(3), result(4, ends_stage=True, is_final=True)]


def started(folder, **named):
    """A tracker as a start of a study that names it makes it."""
    study = Study.model_validate({"name": "s", "tracking": [named]})
    tracker = make_trackers(study, str(folder / "s"), str(folder / "scratch"))[1]
    tracker.setup()
    return tracker


def tell(trackers, trial, results, end="on_trial_complete"):
    """What Tune says of a trial; without an end, as of one whose process died."""
    for tracker in trackers:
        tracker.on_trial_start(0, [], trial)
    for reported in results:
        for tracker in trackers:
            tracker.on_trial_result(0, [], trial, reported)
        trial.last_result = reported
    if end is not None:
        for tracker in trackers:
            getattr(tracker, end)(0, [], trial)
