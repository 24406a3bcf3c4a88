"""MLflow: a study is an experiment, a trial a run of it that a later start goes on with."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from typing import Any

from ray.air.integrations.mlflow import MLflowLoggerCallback

from rayprune.distributed.tracking.runs import End, Runs, TrialRun
from rayprune.distributed.tracking.tracker import STEP, Log

ARGUMENTS = ("tracking_uri", "registry_uri", "experiment_name", "tags", "tracking_token")
RUN_TAG, REASON_TAG = "rayprune.run", "rayprune.reason"


class MLflow(MLflowLoggerCallback, Log):
    """Ray's, with runs that are found again, and a request for each result.

    Ray's asks the server twice for each metric, and moves the whole process to the study's store.
    """

    def __init__(self, runs: Runs, **arguments: Any) -> None:
        super().__init__(**{"experiment_name": runs.study.name, **arguments})
        self._runs = runs
        self._ids: dict[str, str] = {}  # id of a trial's run -> MLflow's
        self._statuses: dict[str, str] = {}  # id of a trial's run -> as it is in the store

    def setup(self, *args: Any, **info: Any) -> None:
        from mlflow import MlflowClient

        if self.tracking_token:
            os.environ["MLFLOW_TRACKING_TOKEN"] = self.tracking_token
        self._client = MlflowClient(self.tracking_uri, self.registry_uri)
        name = str(self.experiment_name)
        known = self._client.get_experiment_by_name(name)
        self._experiment = known.experiment_id if known else self._client.create_experiment(name)

    def logged(self, run: TrialRun) -> Mapping[str, float]:
        by_tag = f"tags.`{RUN_TAG}` = '{run.id}'"
        for found in self._client.search_runs([self._experiment], by_tag, max_results=1):
            there = self._ids[run.id] = found.info.run_id
            self._statuses[run.id] = found.info.status
            if found.info.status == "FINISHED":
                return dict.fromkeys(found.data.metrics, math.inf)
            histories = {m: self._client.get_metric_history(there, m) for m in found.data.metrics}
            return {name: max(m.step for m in history) for name, history in histories.items()}
        return {}

    def log_trial_start(self, trial: Any) -> None:
        from mlflow.entities import Param, RunTag

        run = self._runs.of(trial)
        if run.id in self._ids:
            self._client.update_run(self._ids[run.id], status="RUNNING")
        else:
            there = self._client.create_run(self._experiment, run_name=run.title)
            self._ids[run.id] = there.info.run_id
        tags = {
            **(self.tags or {}),
            RUN_TAG: run.id,
            REASON_TAG: "",
            "rayprune.study": self._runs.folder,
            "rayprune.trial": run.name,
        }
        self._client.log_batch(
            self._ids[run.id],
            params=[Param(k, str(v)) for k, v in run.values.items() if v is not None],
            tags=[RunTag(name, str(value)) for name, value in tags.items()],
        )
        self._statuses[run.id] = "RUNNING"

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        from mlflow.entities import Metric

        now_ms, step = int(time.time() * 1000), result[STEP]
        metrics = [
            Metric(name, float(value), now_ms, step)
            for name, value in result.items()
            if name != STEP
        ]
        self._client.log_batch(self._ids[self._runs.of(trial).id], metrics=metrics)

    def end(self, trial: Any, end: End) -> None:
        run = self._runs.of(trial)
        if self._statuses.get(run.id, end.status) == end.status:
            return  # it had ended so before, or there was nothing to log
        if end.reason:
            self._client.set_tag(self._ids[run.id], REASON_TAG, end.reason)
        self._client.set_terminated(self._ids[run.id], end.status)
        self._statuses[run.id] = end.status

    def log_files(self, trial: Any, folder: str) -> None:
        there = self._ids.get(self._runs.of(trial).id)
        if there:
            self._client.log_artifacts(there, folder)
