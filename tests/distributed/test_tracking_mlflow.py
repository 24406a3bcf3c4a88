"""MLflow on a real store: a study is an experiment, a trial a run that is found again."""

import math

import mlflow
import pytest
from made_results import PLAN, MadeTrial, started, tell
from mlflow import MlflowClient

from rayprune.distributed.tracking import finish_trackers


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """An empty store: to make its tables takes seconds."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file.read_bytes()


@pytest.fixture
def uri(template, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where MLflow puts artefacts
    (tmp_path / "mlflow.db").write_bytes(template)
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def store(uri):
    return MlflowClient(uri)


@pytest.fixture
def start(uri, tmp_path):
    """MLflow's tracker as a start of the study makes it."""

    def made(**arguments):
        return started(tmp_path, **{"name": "mlflow", "tracking_uri": uri, **arguments})

    return made


def told(tracker, tmp_path, name, x, results, **how):
    tell(
        [tracker],
        MadeTrial(name, tmp_path, **{"retrain.schedule": x, "when": None}),
        results,
        **how,
    )
    tracker.finish(30)


def runs(store, experiment="s"):
    found = store.search_runs([store.get_experiment_by_name(experiment).experiment_id])
    return {run.data.tags["rayprune.trial"]: run for run in found}


def history(store, run):
    """(metric, step, value) of everything that a run has."""
    return [
        (name, m.step, m.value)
        for name in run.data.metrics
        for m in store.get_metric_history(run.info.run_id, name)
    ]


def test_a_trial_is_a_run_with_its_values_and_every_epoch(start, store, tmp_path, caplog):
    told(start(tags={"team": "a"}), tmp_path, "07", "allr", PLAN)
    (run,) = runs(store).values()
    assert run.info.run_name == "s 07 schedule=allr"
    assert run.info.status == "FINISHED"
    assert run.data.params == {"retrain.schedule": "allr"}
    assert run.data.tags["rayprune.study"] == str(tmp_path / "s")
    assert run.data.tags["team"] == "a"
    assert history(store, run) == [
        *[("val_accuracy", r["training_iteration"], r["val_accuracy"]) for r in PLAN],
        *[("val_loss", r["training_iteration"], r["val_loss"]) for r in PLAN],
        *[
            (name, step, v)
            for name, v in (("test_accuracy", 0.4), ("num_nonzero", 10))
            for step in (2, 4)
        ],
    ]
    assert caplog.records == []


@pytest.mark.parametrize("heard", [0, 1, 2, 3, 4])
def test_an_interrupted_run_goes_on_and_nothing_is_doubled(start, store, tmp_path, heard):
    told(start(), tmp_path, "7", "allr", PLAN[:heard], end=None)
    assert {run.info.status for run in runs(store).values()} <= {"RUNNING"} if heard else True
    told(start(), tmp_path, "07", "allr", PLAN)
    (run,) = runs(store).values()
    assert run.info.status == "FINISHED"
    points = [(name, step) for name, step, _ in history(store, run)]
    assert len(points) == len(set(points)) == 2 * 4 + 2 * 2


def test_a_finished_run_that_is_replayed_is_left_as_it_is(start, store, tmp_path):
    told(start(), tmp_path, "0", "allr", PLAN)
    (before,) = runs(store).values()
    told(start(), tmp_path, "0", "allr", PLAN)
    (after,) = runs(store).values()
    assert after.to_dictionary() == before.to_dictionary()
    assert history(store, after) == history(store, before)


def test_a_failed_trial_says_why_and_may_succeed_later(start, store, tmp_path):
    told(start(), tmp_path, "0", "allr", [*PLAN[:2], {"training_iteration": 2, "failed": "why"}])
    (run,) = runs(store).values()
    assert (run.info.status, run.data.tags["rayprune.reason"]) == ("FAILED", "why")
    told(start(), tmp_path, "0", "allr", PLAN)
    (run,) = runs(store).values()
    assert (run.info.status, run.data.tags["rayprune.reason"]) == ("FINISHED", "")


def test_a_stopped_trial_is_killed_and_goes_on_if_it_is_not_stopped_any_more(
    start, store, tmp_path
):
    told(start(), tmp_path, "0", "allr", PLAN[:3])
    assert runs(store)["0"].info.status == "KILLED"
    told(start(), tmp_path, "0", "allr", PLAN)
    (run,) = runs(store).values()
    assert run.info.status == "FINISHED"
    assert [s for name, s, _ in history(store, run) if name == "val_loss"] == [1, 2, 3, 4]


def test_the_best_trials_run_has_the_files(start, store, tmp_path):
    (tmp_path / "s/best").mkdir(parents=True)
    (tmp_path / "s/best/model.safetensors").write_bytes(b"model")
    (tmp_path / "s/report.html").write_bytes(b"page")
    tracker = start(experiment_name="mine")
    told(tracker, tmp_path, "0", "allr", PLAN)
    told(tracker, tmp_path, "1", "llr", PLAN)
    for _ in range(2):
        finish_trackers([tracker], str(tmp_path / "s"), "1", timeout_s=30)
    kept = {name: run.info.run_id for name, run in runs(store, "mine").items()}
    assert [f.path for f in store.list_artifacts(kept["1"])] == ["best", "report.html"]
    assert store.list_artifacts(kept["0"]) == []


def test_the_store_that_a_caller_has_chosen_is_used_and_stays_chosen(start, store, tmp_path, uri):
    mlflow.set_tracking_uri(uri)
    try:
        told(start(tracking_uri=None), tmp_path, "0", "allr", PLAN)
        assert mlflow.get_tracking_uri() == uri and mlflow.active_run() is None
    finally:
        mlflow.set_tracking_uri(None)
    assert runs(store)["0"].info.status == "FINISHED"


def test_a_loss_that_is_no_number_is_logged(start, store, tmp_path):
    told(start(), tmp_path, "0", "allr", [PLAN[0] | {"val_loss": math.nan}, *PLAN[1:]])
    assert math.isnan(history(store, runs(store)["0"])[4][2])


def test_a_store_that_cannot_be_reached_is_one_warning(start, tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracker = start(tracking_uri="http://127.0.0.1:9")
    told(tracker, tmp_path, "0", "allr", PLAN)
    (record,) = caplog.records
    assert record.message.startswith("tracking: mlflow is off, the study goes on: ")
