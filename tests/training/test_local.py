"""A study without Ray: every stage once, failures alone, progress after every epoch."""

import shutil

import pyarrow.parquet as pq
import pytest

import rayprune as rp
from rayprune.config import Study
from rayprune.plan import count_epochs
from rayprune.results.recorder import Recorder
from rayprune.results.table import read_metadata
from rayprune.training.local import run_local
from rayprune.training.run import dataset_of
from rayprune.trials import make_trials


@pytest.fixture
def run(small, tmp_path):
    """Run a study of the small experiment; (its table, all progress, its trials)."""

    def start(space, **experiment):
        fields = {"experiment": {**small, **experiment}, "search": {"space": space}}
        study = Study.model_validate({"name": "s", **fields, "storage": str(tmp_path)})
        trials, told = make_trials(study), []
        table = run_local(study, Recorder(study, trials), told.append)
        return table, told, trials

    return start


def test_executed_epochs_are_the_unique_ones(run):
    table, told, trials = run({"retrain.epochs": {"grid": [1, 2]}, "seed": {"grid": [0, 1]}})
    summary, statuses = read_metadata(table)
    assert summary.executed_epochs == count_epochs(t.plan for t in trials).unique == 2 * (3 + 3)
    assert {status.status for status in statuses} == {"finished"}
    epochs = [progress.executed_epochs for progress in told]
    assert sorted(set(epochs)) == list(range(1, 13)) and epochs == sorted(epochs)
    assert sum(table["executed"].to_pylist()) == 6, "each stage ran for one trial"


def test_a_shared_stage_that_cannot_be_done_is_tried_once(run):
    """Both trials of the wild rate share the dense run that diverges in its first epoch."""
    space = {"optim.lr": {"grid": [1e6, 0.05]}, "retrain.epochs": {"grid": [1, 2]}}
    table, told, _ = run(space)
    _, statuses = read_metadata(table)
    assert [s.status for s in statuses] == ["failed", "failed", "finished", "finished"]
    assert statuses[0].reason == statuses[1].reason
    assert told[-1].executed_epochs == 3 + 1 + 2


def test_a_trial_with_a_bad_cycle_keeps_its_dense_run(run):
    space = {"prune.ignore": {"grid": [["no_such_layer"], []]}}
    table, _, _ = run(space)
    _, statuses = read_metadata(table)
    assert [s.status for s in statuses] == ["failed", "finished"]
    assert "no_such_layer" in statuses[0].reason
    rows = table.to_pylist()
    assert [(r["trial"], r["cycle"], r["is_final"]) for r in rows] == [
        ("0", 0, False),
        ("1", 0, False),
        ("1", 1, True),
    ]


def broken_model(num_classes):
    raise TypeError("what is this?")


def test_a_bug_of_the_users_is_one_line_with_its_place(run):
    table, _, _ = run({}, model={"target": f"{__name__}:broken_model"})
    ((status),) = read_metadata(table)[1]
    assert status.status == "failed"
    assert status.reason.startswith("TypeError: what is this? (test_local.py, line ")


def test_images_that_were_written_anew_are_read_anew_by_the_next_study(run, small, tmp_path):
    """Its keys are of the new ones, and so its results had better be."""
    images = {part: str(tmp_path / f"{part}.parquet") for part in ("train", "test")}
    for part, file in images.items():
        shutil.copy(small["data"]["parquet"][part], file)
    table = pq.read_table(images["train"])
    keys = set()
    for number in (len(table), len(table) - 60):
        pq.write_table(table.slice(0, number), images["train"])
        _, _, (trial,) = run({}, data={"parquet": images}, dense={"epochs": 1})
        dataset = dataset_of(trial.experiment)
        assert len(dataset.train) + len(dataset.val) == number
        keys.add(trial.key)
    assert len(keys) == 2


TUNED = {
    "space": {"retrain.schedule": {"grid": ["llr", "allr"]}},
    "tune": {"tries": 2, "seeds": [9], "space": {"optim.lr": {"log_uniform": [0.01, 0.1]}}},
    "seeds": [0, 1],
}


def run_tuned(small, storage, told):
    fields = {"experiment": {**small, "dense": {"epochs": 1}}, "search": TUNED}
    study = Study.model_validate({"name": "s", **fields, "storage": str(storage)})
    return run_local(study, Recorder(study, make_trials(study)), told)


def test_tuning_and_report_are_one_study_and_a_killed_one_equals_an_undisturbed_one(
    small, tmp_path
):
    def kill(progress):
        if progress.executed_epochs == 15:  # tuning takes 2 + 2 * 4 epochs
            raise KeyboardInterrupt

    table = run_tuned(small, tmp_path / "whole", lambda progress: None)
    with pytest.raises(KeyboardInterrupt):
        run_tuned(small, tmp_path / "killed", kill)
    again = run_tuned(small, tmp_path / "killed", lambda progress: None)
    columns = ["trial", "phase", "seed", "optim.lr", "key", "val_accuracy", "test_accuracy"]
    assert again.select(columns).equals(table.select(columns))
    finals = [row for row in table.to_pylist() if row["is_final"]]
    for schedule in ("llr", "allr"):
        rows = [row for row in finals if row["retrain.schedule"] == schedule]
        best = max(rows[:2], key=lambda row: row["val_accuracy"])
        assert [row["phase"] for row in rows] == ["tune"] * 2 + ["report"] * 2
        assert [row["optim.lr"] for row in rows[2:]] == [best["optim.lr"]] * 2
        assert [row["seed"] for row in rows] == [9, 9, 0, 1]


def test_a_goal_that_the_task_does_not_measure_fails_at_the_first_epoch(small, tmp_path):
    fields = {**small, "task": {"target": "test_every_field:own_task"}}
    study = Study.model_validate(
        {
            "name": "goals",
            "experiment": fields,
            "search": {"metric": "val_f1"},
            "storage": str(tmp_path),
        }
    )
    (trial,) = rp.run(study, ray=False).trials
    assert trial.status == "failed"
    assert "val_f1 is not measured by task test_every_field:own_task, which has" in trial.reason
