"""Two ranks equal one, without Ray: torchrun, gloo, real processes."""

import subprocess
import sys

import pytest
import torch
import yaml

from rayprune.config.load import load_study_of_one
from rayprune.results.stages import load_content
from rayprune.snapshot import decode
from rayprune.trials import make_trials


@pytest.fixture
def run(small, tmp_path):
    """Run the small experiment with a number of workers; return its last snapshot."""
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump({"experiment": small}))

    def start(num_workers):
        storage = tmp_path / f"workers{num_workers}"
        command = ["-m", "rayprune.train", str(file), f"storage={storage}"]
        command += ["--local"] if num_workers == 1 else []
        launcher = [
            *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_workers))
        ]
        process = [sys.executable, *(launcher if num_workers > 1 else []), *command]
        done = subprocess.run(process, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        study = load_study_of_one(file, [f"scaling.workers={num_workers}"])
        key = make_trials(study)[0].plan[-1].key
        return decode(load_content(str(storage), key))

    return start


@pytest.mark.slow
def test_two_workers_equal_one(run):
    one, two = run(1), run(2)
    assert two.records[-1].workers == 2
    assert all(torch.equal(one.masks[name], two.masks[name]) for name in one.masks)
    for name, weight in one.weights.items():
        torch.testing.assert_close(two.weights[name], weight, rtol=1e-3, atol=2e-4)
