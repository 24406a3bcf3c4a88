"""Networks are measured on Ray once all are trained, whoever is killed meanwhile."""

import os
import subprocess
import sys
import time

import psutil
import pytest
import yaml

import rayprune as rp
from rayprune.results.measurement import read_measurement
from rayprune.trials import make_trials

pytestmark = pytest.mark.slow


@pytest.fixture
def file(small, tmp_path):
    file = tmp_path / "measured.yaml"
    fields = {
        "experiment": {**small, "dense": {"epochs": 1}, "retrain": {"epochs": 1}},
        "search": {"space": {"prune.sparsity": {"grid": [0.5, 0.9]}}, "measure": "onnx"},
        "storage": str(tmp_path / "storage"),
    }
    file.write_text(yaml.safe_dump(fields))
    return file


def start(file):
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    return subprocess.Popen(
        [sys.executable, "-m", "rayprune.tune", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def one_measured(file):
    """Wait until the first network is measured, so that the second one is at work."""
    study = rp.load_study(file)
    dense = make_trials(study)[0].plan[0].key
    for _ in range(1200):
        if read_measurement(study.storage, dense, study.search.measure) is not None:
            return
        time.sleep(0.1)
    raise AssertionError("nothing was measured")


def descendant(process, part):
    """A process below this one whose command has that part."""
    for _ in range(100):
        for child in psutil.Process(process.pid).children(recursive=True):
            try:
                if part in " ".join(child.cmdline()):
                    return child
            except psutil.Error:
                continue
        time.sleep(0.1)
    raise AssertionError(f"no {part} is running")


@pytest.mark.parametrize("victim", ["ray::measure_stages", "rayprune.exporting.child"])
def test_a_killed_worker_or_runtime_is_replaced(file, victim):
    process = start(file)
    one_measured(file)
    descendant(process, victim).kill()
    output, _ = process.communicate(timeout=250)
    assert process.returncode == 0, output
    assert output.count("as fast as dense\n") == 3 and "could not" not in output
    assert "Traceback" not in output


def test_a_killed_driver_leaves_what_is_measured(file):
    process = start(file)
    one_measured(file)
    process.kill()
    process.communicate()
    again = start(file)
    output, _ = again.communicate(timeout=250)
    assert again.returncode == 0, output
    assert output.count("as fast as dense\n") == 2
    rows = rp.open_results(f"{rp.load_study(file).storage}/measured").table.to_pylist()
    assert sum(row["latency_ms"] is not None for row in rows) == 4
