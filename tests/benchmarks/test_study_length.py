"""How long studies take: against Ray's documented pattern, and against what no schedule beats.

pytest -m slow -s tests/benchmarks/test_study_length.py
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow

NUM_SLOTS = 2
# Ray Tune's guide to Ray Train: the function of a trial starts a trainer. Each trial runs its whole
# plan; with a storage for all of them, they find the dense run that the first one has made there.
PATTERN = """
import sys
from ray import tune
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from rayprune import load_study
from rayprune.trials import make_trials

study, folder, is_shared = sys.argv[1], sys.argv[2], sys.argv[3] == "shared"

def train(config):
    from rayprune.training.run import run_plan
    from rayprune.training.worker import local_worker, training_process
    with training_process(1), local_worker() as worker:
        trial = make_trials(load_study(study))[config["number"]]
        stages = trial.plan[:config["stages"]]
        run_plan(trial.experiment, stages, worker, config["storage"])

def trial(config):
    TorchTrainer(
        train,
        train_loop_config=config,
        scaling_config=ScalingConfig(num_workers=1),
        run_config=RunConfig(name=f"run-{config['number']}", storage_path=f"{folder}/runs"),
    ).fit()

def fit(numbers, stages):
    space = {"number": tune.grid_search(numbers), "stages": stages}
    space["storage"] = folder if is_shared else tune.sample_from(
        lambda config: f"{folder}/{config['number']}"
    )
    tuner = tune.Tuner(
        # The workers take the CPUs.
        tune.with_resources(trial, {"cpu": 0, "node:__internal_head__": 0.001}),
        param_space=space,
        tune_config=tune.TuneConfig(max_concurrent_trials=2),
        run_config=tune.RunConfig(storage_path=f"{folder}/tune", verbose=0),
    )
    assert not tuner.fit().errors

if is_shared:
    fit([0], 1)
fit(list(range(len(make_trials(load_study(study))))), None)
"""
# A study, and when each of its stages began and ended.
OURS = """
import json, sys, time
import rayprune as rp
started, spans, running = time.time(), {}, []
def watch(progress):
    now = time.time() - started
    for key, state in progress.stages.items():
        if state.status == "running" and key not in spans:
            spans[key] = [now, None]
        if state.status == "done" and spans.get(key, [0, 0])[1] is None:
            spans[key][1] = now
results = rp.run(rp.load_study(sys.argv[1]), on_progress=watch)
print("told", json.dumps(spans))
"""


def seconds(program, *arguments, **environment):
    """How long a program takes from its start to its end, and what it printed."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | environment,
        timeout=3600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return time.monotonic() - started, done.stdout


def shortest(spans, plans):
    """What no schedule beats: the longest path, or all work on all slots.

    And, where there is one dense run, the better bound that all else waits for it.
    """
    length = {key: end - begin for key, (begin, end) in spans.items()}
    path = max(sum(length[key] for key in plan) for plan in plans)
    first = {plan[0] for plan in plans}
    dense = sum(length[key] for key in first)
    rest = sum(length.values()) - dense
    bound = max(path, sum(length.values()) / NUM_SLOTS)
    return bound, dense + rest / NUM_SLOTS if len(first) == 1 else bound


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("how", ["apart", "shared"])
def test_a_study_against_a_trainer_for_each_trial(how, tmp_path):
    """The quickstart; `shared` trains its dense run first and lets all trials find it."""
    ours, _ = seconds(OURS, "quickstart", RAYPRUNE_STORAGE=str(tmp_path / "ours"))
    theirs, _ = seconds(PATTERN, "quickstart", tmp_path / how, how)
    print(
        f"\nquickstart, 12 trials: {ours:.0f} s; a TorchTrainer for each trial, {how}: "
        f"{theirs:.0f} s ({theirs / ours:.1f}x); load {os.getloadavg()[0]:.1f}"
    )


@pytest.mark.parametrize("name", ["quickstart", "a_minute"])
def test_a_study_against_its_lower_bound(name, tmp_path):
    """Stage times are those of the same run, so that a busy machine is busy for both."""
    study = name if name == "quickstart" else minute_long(tmp_path)
    whole, output = seconds(OURS, study, RAYPRUNE_STORAGE=str(tmp_path))
    spans = json.loads(output.split("told ")[1])
    from rayprune import load_study
    from rayprune.trials import make_trials

    plans = [[stage.key for stage in trial.plan] for trial in make_trials(load_study(study))]
    bound, after_dense = shortest(spans, plans)
    first = min(begin for begin, _ in spans.values())
    last = max(end for _, end in spans.values())
    print(
        f"\n{name}: {whole:.0f} s, {whole / bound:.2f} times the longest path or the work by "
        f"{NUM_SLOTS} slots ({bound:.0f} s), {whole / after_dense:.2f} times what is possible "
        f"after its dense runs ({after_dense:.0f} s): {first:.0f} s until the first stage begins, "
        f"{last - first:.0f} s to the end of the last, {whole - last:.0f} s until the end; "
        f"load {os.getloadavg()[0]:.1f}"
    )


def minute_long(folder):
    """Two dense runs and their children, each stage about a minute."""
    file = Path(folder) / "a_minute.yaml"
    fields = {
        "experiment": {
            "model": {"name": "small_cnn"},
            "batch_size": 100,
            "dense": {"epochs": 30},
            "prune": {"sparsity": 0.95, "cycles": 2},
            "retrain": {"epochs": 30, "schedule": "llr"},
        },
        "search": {"space": {"optim.lr": {"grid": [0.1, 0.05]}}},
    }
    file.write_text(yaml.safe_dump(fields))
    return str(file)
