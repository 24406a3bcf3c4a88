"""Whole studies on a real Ray: shared stages, killed workers, two-worker slots, bad luck."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file

from rayprune.config.load import load_study
from rayprune.results.files import epoch_file
from rayprune.results.stages import load_snapshot
from rayprune.snapshot.encoding import decode
from rayprune.trials import make_trials

SPACE = {"retrain.schedule": {"grid": ["llr", "allr"]}, "retrain.epochs": {"grid": [1, 2]}}


@pytest.fixture
def study(small, tmp_path):
    """Write a study; gives its file and its storage."""

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


def start(file, *overrides, door="rayprune.tune"):
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    command = [sys.executable, "-m", door, str(file), *overrides]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def finish(process, code=0):
    output, _ = process.communicate(timeout=280)
    assert process.returncode == code, output
    return output


def table(file):
    folder = f"{load_study(file).storage}/small_study"
    read = pq.read_table(f"{folder}/results.parquet")
    return read.to_pylist(), json.loads(read.schema.metadata[b"rayprune"]), folder


def final_snapshots(file):
    study = load_study(file)
    return [decode(load_snapshot(study.storage, t.plan[-1].key)) for t in make_trials(study)]


def test_a_study_shares_its_dense_run_and_leaves_table_report_and_best_model(study):
    file = study()
    output = finish(start(file))
    rows, summary, folder = table(file)
    assert summary["executed_epochs"] == summary["unique_epochs"] == 3 + 2 * (1 + 2)
    assert summary["naive_epochs"] == 4 * 3 + 2 * (1 + 2)
    assert len(rows) == 8 and sum(row["executed"] for row in rows) == 5
    assert {row["retrain.schedule"] for row in rows} == {"llr", "allr"}
    assert "9 epochs run" in output and folder in output
    assert os.path.getsize(f"{folder}/report.html") > 10_000

    best = json.loads(Path(f"{folder}/best/provenance.json").read_text())
    final = [row for row in rows if row["is_final"]]
    assert best["records"][-1]["metrics"]["val_accuracy"] == max(r["val_accuracy"] for r in final)
    weights = load_file(f"{folder}/best/model.safetensors")
    assert best["records"][-1]["metrics"]["test_accuracy"] == measured(weights, best["experiment"])

    again = finish(start(file))
    assert "0 epochs run" in again
    assert table(file)[1]["executed_epochs"] == 0


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


def test_a_killed_worker_changes_no_bit(study, tmp_path):
    """Killed in the middle of the dense stage, after an epoch checkpoint; its slot comes back."""
    file = study(search={"space": {}}, dense={"epochs": 60})
    process = start(file, "scaling.slots=1", "name=small_study")
    dense = make_trials(load_study(file))[0].plan[0]
    checkpoint = epoch_file(load_study(file).storage, dense.key)
    while not os.path.exists(checkpoint):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)
    os.kill(training_process(process.pid), signal.SIGKILL)
    finish(process)
    killed = final_snapshots(file)
    _, summary, _ = table(file)
    assert summary["executed_epochs"] == summary["unique_epochs"]
    finish(start(file, f"storage={tmp_path / 'undisturbed'}", "--local", door="rayprune.train"))
    trial = make_trials(load_study(file))[0]
    calm = decode(load_snapshot(str(tmp_path / "undisturbed"), trial.plan[-1].key))
    for name, weight in calm.weights.items():
        assert torch.equal(killed[0].weights[name], weight), name


def training_process(driver):
    """The Ray worker that trains: the one that serves the slot."""
    children = psutil.Process(driver).children(recursive=True)
    names = {child.pid: " ".join(child.cmdline()) for child in children}
    (pid,) = [pid for pid, name in names.items() if "RayTrainWorker" in name]
    return pid


def test_slots_of_two_workers(study):
    file = study(scaling={"workers": 2}, search={"space": {"retrain.epochs": {"grid": [1, 2]}}})
    finish(start(file))
    rows, summary, _ = table(file)
    assert {row["workers"] for row in rows} == {2}
    assert summary["executed_epochs"] == summary["unique_epochs"] == 3 + 1 + 2


def test_a_trial_that_cannot_be_run_fails_alone(study):
    file = study(search={"space": {"optim.lr": {"grid": [0.05, 1e6]}}})
    output = finish(start(file), code=1)
    rows, summary, _ = table(file)
    assert {row["trial"] for row in rows} == {"0"}
    assert "diverged in epoch 1" in summary["failed"]["1"] and "diverged" in output
