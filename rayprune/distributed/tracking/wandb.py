"""Weights & Biases: a study is a group, a trial a run of it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.air.integrations.wandb import WandbLoggerCallback, _QueueItem, _WandbLoggingActor

from rayprune.distributed.tracking.runs import Runs, TrialRun
from rayprune.distributed.tracking.tracker import STEP, Log
from rayprune.results.files import tracking_file
from rayprune.results.storage import read_bytes, write_bytes

OF_EACH_TRIAL = ("id", "name", "resume", "reinit", "config")  # so no arguments of ours
NOTE_EVERY_S = 30.0


class _Actor(_WandbLoggingActor):
    def _handle_checkpoint(self, checkpoint_path: str) -> None:
        """Ray names it by the run, whose name here has spaces."""
        name = re.sub(r"[^A-Za-z0-9._-]", "-", f"{self.kwargs['group']}-best")
        artifact = self._wandb.Artifact(name=name, type="model")
        artifact.add_dir(checkpoint_path)
        self._wandb.log_artifact(artifact)


class WandB(WandbLoggerCallback, Log):
    """Ray's, which has a process for each trial beside the driver, with runs that go on.

    A server drops what comes again for a run; an offline run is closed for ever. So what was
    logged to an end is noted in the study's folder, and not logged again.
    """

    _logger_actor_cls = _Actor

    def __init__(self, runs: Runs, **arguments: Any) -> None:
        arguments["mode"] = mode = arguments.get("mode") or os.environ.get("WANDB_MODE") or "online"
        folder = Path(arguments.get("dir") or os.environ.get("WANDB_DIR") or ".").resolve()
        arguments["dir"] = str(folder)  # its processes work in other folders
        project = os.environ.get("WANDB_PROJECT") or "rayprune"
        super().__init__(**{"project": project, "group": runs.study.name, **arguments})
        self._runs, self._mode, self._local = runs, mode, folder / "wandb"
        self._noted: dict[str, Any] = {}  # mode and id of a run that came to an end -> its steps
        self._noted_s = -NOTE_EVERY_S
        self._steps: dict[str, dict[str, int]] = {}

    def setup(self, *args: Any, **info: Any) -> None:
        self._local.mkdir(parents=True, exist_ok=True)  # W&B itself would go to /tmp instead
        if self._mode == "online":
            super().setup()  # asks for a key
        content = read_bytes(tracking_file(self._runs.folder))
        with suppress(ValueError):  # a damaged one is made anew
            self._noted = dict(json.loads(content or b"{}"))

    def logged(self, run: TrialRun) -> Mapping[str, float]:
        self._steps[run.id] = dict(self._noted.get(self._key(run), {}))
        return self._steps[run.id]

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        super().log_trial_result(iteration, trial, result)
        self._steps[self._runs.of(trial).id] |= dict.fromkeys(result, result[STEP])

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        if trial in self._trial_queues:
            super().log_trial_end(trial, failed)

    def on_experiment_end(self, trials: Any, **info: Any) -> None:
        super().on_experiment_end(trials, **info)
        self._write()

    def log_files(self, trial: Any, folder: str) -> None:
        """In a process of its own, which goes on with the trial's run."""
        files = sorted(file for file in Path(folder).rglob("*") if file.is_file())
        digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
        key = f"{self._mode} files of {self._runs.of(trial).id}"
        if self._noted.get(key) == digest:
            return
        super().on_experiment_end([])  # the process that logged the trial may not have ended yet
        self.log_trial_start(trial)
        self._trial_queues[trial].put((_QueueItem.CHECKPOINT, folder))
        self.log_trial_end(trial)
        self._noted[key] = digest
        self.on_experiment_end([])

    def _start_logging_actor(self, trial: Any, exclude_results: list[str], **init: Any) -> None:
        run = self._runs.of(trial)
        init |= {"id": run.id, "name": run.title, "resume": "allow"}
        if self._mode == "offline" and not self._noted.get(self._key(run)):
            for begun in self._local.glob(f"offline-run-*-{run.id}"):
                shutil.rmtree(begun)  # a start that was interrupted; all of it comes again
        trial.init_local_path()  # Ray leaves that to its other loggers
        super()._start_logging_actor(trial, exclude_results, **init)

    def _cleanup_logging_actor(self, trial: Any) -> None:
        """Ray does not look whether the process came to a good end."""
        ended = self._trial_logging_futures[trial]
        super()._cleanup_logging_actor(trial)
        try:
            ray.get(ended, timeout=1)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        run = self._runs.of(trial)
        self._noted[self._key(run)] = self._steps.get(run.id, {})
        if time.monotonic() - self._noted_s >= NOTE_EVERY_S:
            self._write()

    def _write(self) -> None:
        write_bytes(tracking_file(self._runs.folder), json.dumps(self._noted).encode())
        self._noted_s = time.monotonic()

    def _key(self, run: TrialRun) -> str:
        return f"{self._mode} {run.id}"

    def __del__(self) -> None:
        with suppress(Exception):
            super().__del__()
