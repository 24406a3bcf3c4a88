"""Experiment trackers beside a study, by Ray's integrations: TensorBoard, MLflow, W&B.

A study is an experiment or a group, a trial is a run, and a run that is interrupted goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from rayprune.config import ConfigError, Study
from rayprune.config.study import Tracker as Named
from rayprune.distributed.tracking.mlflow import ARGUMENTS as OF_MLFLOW
from rayprune.distributed.tracking.mlflow import MLflow
from rayprune.distributed.tracking.runs import Runs
from rayprune.distributed.tracking.tensorboard import TensorBoard
from rayprune.distributed.tracking.tracker import Log, Tracker
from rayprune.results.files import (
    best_folder,
    model_file,
    provenance_file,
    report_file,
    table_file,
)
from rayprune.results.storage import read_bytes

FINISH_S = 600.0  # for the upload of a model

log = logging.getLogger(__name__)


def check_tracking(tracking: Sequence[Named]) -> None:
    """Whether the trackers can be used as written. Raises ``ConfigError``."""
    mistakes = [mistake for named in tracking for mistake in _mistakes(named)]
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def make_trackers(study: Study, folder: str, scratch: str) -> Sequence[Tracker]:
    """TensorBoard's events in the study's folder, then the trackers that the study names.

    `scratch` is a local folder that is there as long as the study runs.
    """
    runs = Runs(study, folder)
    made = [Tracker("tensorboard", partial(TensorBoard, runs, scratch), runs)]
    for named in study.tracking:
        made.append(Tracker(named.name, partial(_kind(named.name), runs, **named.arguments), runs))
    return made


def finish_trackers(
    trackers: Sequence[Tracker], folder: str, best: str | None, timeout_s: float = FINISH_S
) -> None:
    """Keep the results with the run of the best trial, and wait until all is told.

    While Ray is there: W&B's processes are Ray's.
    """
    with TemporaryDirectory(prefix="rayprune-", ignore_cleanup_errors=True) as local:
        if best is not None and _fetched(folder, local):
            for tracker in trackers:
                tracker.keep_files(best, local)
        for tracker in trackers:
            tracker.finish(timeout_s)


def _mistakes(named: Named) -> Sequence[str]:
    found = find_spec(named.name)
    if found is None or found.origin is None:  # not a mere folder, as ./wandb is of offline runs
        return [
            f"tracking: {named.name} needs the package {named.name}: "
            f"pip install 'rayprune[{named.name}]'"
        ]
    if named.name == "mlflow":
        return [
            f"tracking: mlflow has no argument {name}. It takes {', '.join(OF_MLFLOW)}"
            for name in named.arguments
            if name not in OF_MLFLOW
        ]
    from rayprune.distributed.tracking.wandb import OF_EACH_TRIAL

    return [
        f"tracking: wandb's {name} is each trial's own. Leave it out"
        for name in named.arguments
        if name in OF_EACH_TRIAL
    ]


def _kind(name: str) -> Callable[..., Log]:
    if name == "mlflow":
        return MLflow
    from rayprune.distributed.tracking.wandb import WandB  # a second of import

    return WandB


def _fetched(folder: str, local: str) -> bool:
    """Copy the files that are kept to a local folder; whether there were some, and no trouble."""
    best = best_folder(folder)
    names = (model_file(best), provenance_file(best), report_file(folder), table_file(folder))
    try:
        found = {name: content for name in names if (content := read_bytes(name)) is not None}
        for name, content in found.items():
            to = Path(local, name.removeprefix(f"{folder}/"))
            to.parent.mkdir(exist_ok=True)
            to.write_bytes(content)
    except OSError as error:
        log.warning("tracking: the best trial's files are not kept: %s", error)
        return False
    return bool(found)
