"""Whole studies on a real Ray: shared stages, killed workers, slots of two workers, bad luck."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file

import rayprune as rp
from rayprune.config import load_study
from rayprune.results.files import epoch_file
from rayprune.results.stages import load_content
from rayprune.snapshot import decode
from rayprune.trials import make_trials

SPACE = {"retrain.schedule": {"grid": ["llr", "allr"]}, "retrain.epochs": {"grid": [1, 2]}}


@pytest.fixture
def study(small, tmp_path):
    """Write a study; return its file."""

    def write(search=None, scaling=None, **experiment):
        file = tmp_path / "small_study.yaml"
        fields = {
            "experiment": {**small, **experiment},
            "search": search or {"space": SPACE},
            "scaling": scaling or {},
            "storage": str(tmp_path / "storage"),
        }
        file.write_text(yaml.safe_dump(fields))
        return file

    return write


def start(file, *overrides, module="rayprune.tune"):
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    command = [sys.executable, "-m", module, str(file), *overrides]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        # What a shell starts in the background ignores Ctrl-C, and so would this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def finish(process, code=0):
    output, _ = process.communicate(timeout=280)
    assert process.returncode == code, output
    return output


def opened(file):
    return rp.open_results(f"{load_study(file).storage}/small_study")


def final_snapshots(file):
    study = load_study(file)
    return [decode(load_content(study.storage, t.plan[-1].key)) for t in make_trials(study)]


def test_a_study_shares_its_dense_run_and_leaves_table_report_and_best_model(study):
    file = study()
    output = finish(start(file))
    results = opened(file)
    summary, rows, folder = results.comparison.summary, results.table.to_pylist(), results.folder
    assert summary.executed_epochs == summary.unique_epochs == 3 + 2 * (1 + 2)
    assert summary.naive_epochs == 4 * 3 + 2 * (1 + 2)
    assert len(rows) == 8 and sum(row["executed"] for row in rows) == 5
    assert {row["retrain.schedule"] for row in rows} == {"llr", "allr"}
    assert {trial.status for trial in results.trials} == {"finished"}
    assert "9 epochs run" in output and folder in output
    assert os.path.getsize(f"{folder}/report.html") > 10_000

    best = json.loads(Path(f"{folder}/best/provenance.json").read_text())
    final = [row for row in rows if row["is_final"]]
    assert best["records"][-1]["metrics"]["val_accuracy"] == max(r["val_accuracy"] for r in final)
    weights = load_file(f"{folder}/best/model.safetensors")
    assert best["records"][-1]["metrics"]["test_accuracy"] == measured(weights, best["experiment"])
    snapshot = results.best.snapshot
    assert all(torch.equal(weight, snapshot.weights[name]) for name, weight in weights.items())

    again = finish(start(file))
    assert "nothing is left to run" in again
    assert opened(file).table.equals(results.table, check_metadata=True)


def measured(weights, fields):
    """Test accuracy of plain weights in the plain model class."""
    from rayprune.config import Data
    from rayprune.data import load_data
    from rayprune.models import build_model

    model = build_model(fields["model"]["name"], num_classes=10, in_channels=1)
    model.load_state_dict(weights)
    dataset = load_data(Data.model_validate(fields["data"]), seed=fields["seed"])
    batches = dataset.test.batches([torch.arange(len(dataset.test))], device=torch.device("cpu"))
    ((images, labels),) = batches
    with torch.inference_mode():
        return int((model.eval()(images).argmax(1) == labels).sum()) / len(labels)


@pytest.mark.slow
def test_a_killed_worker_changes_no_bit(study, tmp_path):
    """Killed in the middle of the dense stage, after an epoch checkpoint; its slot comes back."""
    file = study(search={"space": {}}, dense={"epochs": 40})
    process = start(file, "scaling.slots=1", "name=small_study")
    dense = make_trials(load_study(file))[0].plan[0]
    checkpoint = epoch_file(load_study(file).storage, dense.key)
    while not os.path.exists(checkpoint):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)
    os.kill(training_process(process.pid), signal.SIGKILL)
    finish(process)
    killed = final_snapshots(file)
    summary = opened(file).comparison.summary
    assert summary.executed_epochs == summary.unique_epochs
    finish(start(file, f"storage={tmp_path / 'undisturbed'}", "--local", module="rayprune.train"))
    trial = make_trials(load_study(file))[0]
    calm = decode(load_content(str(tmp_path / "undisturbed"), trial.plan[-1].key))
    for name, weight in calm.weights.items():
        assert torch.equal(killed[0].weights[name], weight), name


def training_process(driver):
    """The Ray worker that trains: the one that serves the slot."""
    children = psutil.Process(driver).children(recursive=True)
    names = {child.pid: " ".join(child.cmdline()) for child in children}
    (pid,) = [pid for pid, name in names.items() if "RayTrainWorker" in name]
    return pid


@pytest.mark.slow
def test_early_stopping_marks_the_trials_that_it_gave_up(study):
    """Six rates on a slot of two workers: weak ones are given up after a few of their 60 epochs."""
    rates = [0.05, 0.02, 1e-5, 1e-6, 1e-7, 1e-8]
    file = study(
        search={
            "space": {"retrain.lr": {"grid": rates}},
            "scheduler": {"name": "asha", "grace_period": 1, "reduction_factor": 2},
        },
        retrain={"epochs": 60, "schedule": "constant", "lr": 0.05},
        scaling={"workers": 2},
    )
    output = finish(start(file))
    results = opened(file)
    status = {trial.name: trial.status for trial in results.trials}
    stopped = [name for name, ended in status.items() if ended == "stopped"]
    assert stopped and set(status.values()) == {"finished", "stopped"}
    for trial in results.trials:
        if trial.status == "stopped":
            assert trial.reason.startswith("asha stopped it after ")
            assert f"trial {trial.name} " in output
    rows = results.table.to_pylist()
    assert {row["workers"] for row in rows} == {2}
    assert {row["trial"] for row in rows if row["is_final"]} == set(status) - set(stopped)
    assert "stopped early: asha stopped it after " in output
    summary = results.comparison.summary
    assert summary.executed_epochs < summary.unique_epochs
    assert results.best.name not in stopped
    assert "finished or stopped before: nothing is left to run" in finish(start(file))
    assert opened(file).table.equals(results.table, check_metadata=True)


@pytest.mark.slow
def test_early_stopping_goes_on_with_the_verdicts_that_it_had(study):
    """Interrupted once a trial was given up; started again, its trials meet the same rungs."""
    rates = [0.05, 1e-6, 1e-7, 0.02, 1e-8, 0.03]
    file = study(
        search={
            "space": {"retrain.lr": {"grid": rates}},
            "scheduler": {"name": "asha", "grace_period": 2, "reduction_factor": 2},
        },
        retrain={"epochs": 300, "schedule": "constant", "lr": 0.05},
        scaling={"slots": 1},
    )
    process = start(file)
    table = Path(load_study(file).storage) / "small_study" / "results.parquet"
    while not table.exists() or "stopped" not in {t.status for t in opened(file).trials}:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert "interrupted; to go on from here: " in finish(process, 130)
    before = {trial.name: trial for trial in opened(file).trials if trial.status == "stopped"}
    assert before and all(trial.reported for trial in before.values())
    finish(start(file))
    after = {trial.name: trial for trial in opened(file).trials}
    assert {name: after[name] for name in before} == before
    assert {trial.status for trial in after.values()} == {"finished", "stopped"}
    # The good rate was there from the start: what comes late is compared with all of its epochs.
    late = [trial for name, trial in after.items() if name not in before]
    assert any(trial.status == "stopped" for trial in late)
    assert after["0"].status == "finished"


@pytest.mark.slow
def test_a_table_read_after_the_driver_died_says_what_is_unfinished(study, tmp_path):
    """Killed once a trial has ended; started again, it ends as if nothing had happened."""
    file = study(search={"space": {"retrain.epochs": {"grid": [1, 120]}}})
    process = start(file, "--local")
    table = tmp_path / "storage" / "small_study" / "results.parquet"
    while not table.exists() or "finished" not in {t.status for t in opened(file).trials}:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert [trial.status for trial in opened(file).trials] == ["finished", "unfinished"]
    report = report_of(file)
    assert "1 trial unfinished: " in report and "Traceback" not in report
    again = finish(start(file, "--local"))
    assert [trial.status for trial in opened(file).trials] == ["finished", "finished"]
    summary = opened(file).comparison.summary
    assert summary.executed_epochs <= 120 < summary.unique_epochs == 124, again


def report_of(file):
    folder = opened(file).folder
    command = [sys.executable, "-m", "rayprune.report", folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def mixed(small, tmp_path_factory):
    """Three ways from one dense run, and a trial that diverges: what was printed, and results."""
    as_rewinding_has_it = {"retrain.epochs": None, "retrain.schedule": None}
    cases = {
        "plain": {"retrain.epochs": 1},
        "rewind": {"prune.rewind.epoch": 1} | as_rewinding_has_it,
        "lottery": {"prune.rewind.epoch": 0} | as_rewinding_has_it,
        "wild": {"optim.lr": 1e6},
    }
    folder = tmp_path_factory.mktemp("mixed")
    search = {"space": {"way": {"cases": cases}}}
    fields = {"experiment": small, "search": search, "scaling": {"slots": 1}}
    file = folder / "small_study.yaml"
    file.write_text(yaml.safe_dump({**fields, "storage": str(folder)}))
    return finish(start(file), code=1), opened(file)


def test_a_trial_that_cannot_be_run_fails_alone(mixed):
    output, results = mixed
    assert [trial.status for trial in results.trials] == ["finished"] * 3 + ["failed"]
    assert list(results.errors) == ["3"] and "diverged in epoch 1" in results.errors["3"]
    assert set(results.table["trial"].to_pylist()) == {"0", "1", "2"}
    assert "trial 3 failed: the dense run (stepped) diverged in epoch 1" in output
    assert "Traceback" not in output


def test_rewinding_shares_every_epoch_of_the_dense_run(mixed):
    _, results = mixed
    summary = results.comparison.summary
    assert summary.executed_epochs == 3 + 1 + 2 + 3, "what diverged ended no epoch"
    finals = {row["way"]: row for row in results.table.to_pylist() if row["is_final"]}
    assert {way: row["schedule"] for way, row in finals.items()} == {
        "plain": "allr",
        "rewind": "lrw",
        "lottery": "lrw",
    }
    assert finals["lottery"]["weights_from"] is None
    assert finals["rewind"]["weights_from"] != finals["rewind"]["masks_from"]
    assert len({row["masks_from"] for row in finals.values()}) == 1
