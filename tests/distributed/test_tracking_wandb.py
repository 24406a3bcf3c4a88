"""W&B offline, on a real Ray: a run for each trial, with its history, and none of it doubled."""

import json
import time
from pathlib import Path

import pytest
import ray
from made_results import PLAN, MadeTrial, started, tell
from mlflow import MlflowClient
from ray import tune
from wandb.proto.wandb_internal_pb2 import Record

from rayprune.config import Study
from rayprune.distributed.head import ON_HEAD
from rayprune.distributed.tracking import finish_trackers, make_trackers


@pytest.fixture(scope="module", autouse=True)
def one_ray():
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def start(tmp_path):
    """W&B's tracker as a start of the study makes it."""

    def made(**arguments):
        return started(
            tmp_path, **{"name": "wandb", "mode": "offline", "dir": str(tmp_path), **arguments}
        )

    return made


def told(tracker, tmp_path, name, x, results, **how):
    tell([tracker], MadeTrial(name, tmp_path, **{"retrain.schedule": x}), results, **how)
    tracker.finish(60)


BLOCK, HEADER, FIRST = 32768, 7, 7  # of LevelDB's log format; the file begins with 7 bytes


def records(folder):
    """Everything in an offline run's file, which is a LevelDB log of messages."""
    (file,) = folder.glob("*.wandb")
    content, at, message = file.read_bytes(), FIRST, b""
    while at + HEADER <= len(content):
        if BLOCK - at % BLOCK < HEADER:  # the end of a block is padded
            at += BLOCK - at % BLOCK
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        message += content[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (1, 4):  # a whole one, or the last part of one
            yield Record.FromString(message)
            message = b""


def runs(tmp_path):
    """(run, its history, its artefacts) of every offline run, in the order of their titles."""
    found = []
    for folder in Path(tmp_path, "wandb").glob("offline-run-*"):
        all_of_it = list(records(folder))
        (run,) = (r.run for r in all_of_it if r.WhichOneof("record_type") == "run")
        history = [
            {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in r.history.item}
            for r in all_of_it
            if r.WhichOneof("record_type") == "history"
        ]
        artifacts = [
            r.request.log_artifact.artifact
            if r.WhichOneof("record_type") == "request"
            else r.artifact
            for r in all_of_it
            if r.WhichOneof("record_type") == "artifact"
        ]
        found.append((run, history, artifacts))
    return sorted(found, key=lambda run: run[0].display_name)


def wait_until(is_so):
    for _ in range(300):
        if is_so():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come to pass within 30 s")


def points(history):
    return [(row["_step"], row["val_accuracy"], row.get("test_accuracy")) for row in history]


WHOLE = [(r["training_iteration"], r["val_accuracy"], r.get("test_accuracy")) for r in PLAN]


def test_every_trial_is_a_run_and_a_replay_makes_no_other(start, tmp_path, caplog):
    for _ in range(2):
        tracker = start()
        told(tracker, tmp_path, "0", "allr", PLAN)
        told(tracker, tmp_path, "1", "llr", PLAN)
        tracker.on_experiment_end([])
        tracker.finish(60)
        (zero, history, _), (one, other, _) = runs(tmp_path)
        assert (zero.display_name, one.display_name) == ("s 0 schedule=allr", "s 1 schedule=llr")
        assert (zero.run_group, zero.project) == ("s", "rayprune")
        assert points(history) == points(other) == WHOLE
    config = {item.key: item.value_json for item in zero.config.update}
    assert config["retrain.schedule"] == '"allr"'
    assert caplog.records == []


@pytest.mark.slow
def test_all_trackers_hear_of_a_study_that_ray_tune_runs(tmp_path, monkeypatch, caplog):
    def report_plan(config):  # of a module, Ray's workers would import it, and cannot find ours
        if config["trial"] == "1":
            tune.report({"training_iteration": 1, "failed": "it diverged"})
            return
        for reported in PLAN:
            tune.report(dict(reported))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_AIR_NEW_OUTPUT", "0")  # as our own driver has it
    monkeypatch.setenv("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    uri, folder = f"sqlite:///{tmp_path}/mlflow.db", str(tmp_path / "s")
    tracking = [{"name": "mlflow", "tracking_uri": uri}, {"name": "wandb", "mode": "offline"}]
    study = Study.model_validate({"name": "s", "tracking": tracking})
    for start in ("first", "second"):
        trackers = make_trackers(study, folder, str(tmp_path / start))
        tune.Tuner(
            tune.with_resources(report_plan, {"cpu": 0, **ON_HEAD}),
            param_space={
                "trial": tune.grid_search(["0", "1"]),
                "x": tune.sample_from(lambda config: int(config["trial"])),
            },
            tune_config=tune.TuneConfig(reuse_actors=True),
            run_config=tune.RunConfig(
                storage_path=str(tmp_path / start), verbose=0, callbacks=[*trackers]
            ),
        ).fit()
        finish_trackers(trackers, folder, "0", timeout_s=60)
    assert [r for r in caplog.records if r.name.startswith("rayprune")] == []
    store = MlflowClient(uri)
    found = {run.data.tags["rayprune.trial"]: run for run in store.search_runs(["1"])}
    assert {name: run.info.status for name, run in found.items()} == {
        "0": "FINISHED",
        "1": "FAILED",
    }
    steps = [m.step for m in store.get_metric_history(found["0"].info.run_id, "val_loss")]
    assert steps == [1, 2, 3, 4]
    assert [points(history) for _, history, _ in runs(tmp_path)] == [WHOLE, []]
    assert sorted(path.name for path in (tmp_path / "s/tensorboard").iterdir()) == ["0", "1"]


@pytest.mark.slow
def test_an_interrupted_run_is_replaced_by_the_next_start(start, tmp_path):
    first = start()
    told(first, tmp_path, "0", "allr", PLAN[:3], end=None)
    (process,) = first._log._trial_logging_actors.values()
    wait_until(lambda: list(tmp_path.glob("wandb/offline-run-*/*.wandb")))
    ray.kill(process)
    second = start()
    told(second, tmp_path, "0", "allr", PLAN)
    second.on_experiment_end([])
    second.finish(60)
    ((_, history, _),) = runs(tmp_path)
    assert points(history) == WHOLE


@pytest.mark.slow
def test_a_stopped_trial_that_goes_on_logs_what_is_new(start, tmp_path):
    for results in (PLAN[:3], PLAN):
        tracker = start()
        told(tracker, tmp_path, "0", "allr", results)
        tracker.on_experiment_end([])
        tracker.finish(60)
    (one, *_), (other, *_) = found = runs(tmp_path)
    assert one.run_id == other.run_id
    assert sorted(p for _, history, _ in found for p in points(history)) == WHOLE


@pytest.mark.slow
def test_the_best_trials_run_has_the_files_once(start, tmp_path, caplog):
    (tmp_path / "s/best").mkdir(parents=True)
    (tmp_path / "s/best/model.safetensors").write_bytes(b"model")
    for _ in range(2):
        tracker = start()
        told(tracker, tmp_path, "0", "allr", PLAN)
        finish_trackers([tracker], str(tmp_path / "s"), "0", timeout_s=60)
    found = runs(tmp_path)
    assert len({run.run_id for run, _, _ in found}) == 1
    (artifact,) = (a for _, _, artifacts in found for a in artifacts)
    assert [e.path for e in artifact.manifest.contents] == ["best/model.safetensors"]
    assert artifact.name == "s-best"
    assert [points(history) for _, history, _ in found if history] == [WHOLE]
    assert caplog.records == []


def test_a_folder_that_cannot_be_made_is_one_warning(start, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    tracker = start(dir=str(tmp_path / "file"))
    told(tracker, tmp_path, "0", "allr", PLAN)
    assert [r.message[:51] for r in caplog.records] == [
        "tracking: wandb is off, the study goes on: [Errno 2"
    ]


def test_without_a_key_it_is_one_warning(start, tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    tracker = start(mode=None)
    told(tracker, tmp_path, "0", "allr", PLAN)
    (record,) = caplog.records
    assert "No WandB API key found" in record.message


@pytest.mark.slow
def test_a_process_that_fails_is_one_warning(start, tmp_path, caplog):
    tracker = start(no_such_argument=1)
    told(tracker, tmp_path, "0", "allr", PLAN)
    told(tracker, tmp_path, "1", "llr", PLAN)
    tracker.on_experiment_end([])
    tracker.finish(60)
    (record,) = caplog.records
    assert "no_such_argument" in record.message
