"""Three lines of Python: in a fresh process, in one that is connected to Ray, and without Ray."""

import json
import subprocess
import sys
from functools import cache

import pytest
import yaml

import rayprune as rp

SCRIPT = """
import json, logging, os, signal, sys
import ray, ray.data, ray.train, ray.tune, torch  # what they change as they load is theirs
import rayprune as rp

study, way = sys.argv[1:]
if way == "connected":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
torch.set_num_threads(2)


def process():
    loggers = [None, "ray", "ray.data", "ray.train", "ray.tune", "rayprune"]
    found = map(logging.getLogger, loggers)
    return {
        "environment": dict(os.environ),
        "streams": [sys.stdout, sys.stderr, sys.__stdout__],
        "loggers": [(log.level, log.propagate, list(log.handlers)) for log in found],
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "threads": torch.get_num_threads(),
        "random": torch.random.get_rng_state().tolist(),
        "kernels": [torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark],
        "folder": os.getcwd(),
        "path": list(sys.path),
        "ray": ray.is_initialized(),
    }


before = process()
told = []
results = rp.run(rp.load_study(study), ray=way != "local", on_progress=told.append)
after = process()
print(json.dumps({
    "changed": [name for name in before if before[name] != after[name]],
    "answer": results.answer,
    "told": bool(told) and told[-1].executed_epochs,
    "page": results._repr_html_(),
    "best": [results.best.name, sorted(results.best.snapshot.weights)],
}))
"""
EPOCHS = 3 + 1 + 2


@pytest.fixture(scope="module")
def ran(small, tmp_path_factory):
    """way -> what the script printed, and the results, of the same study; run when asked for."""
    folder = tmp_path_factory.mktemp("ways")
    (folder / "script.py").write_text(SCRIPT)

    @cache
    def run(way):
        fields = {
            "name": "small",
            "experiment": small,
            "search": {"space": {"retrain.epochs": {"grid": [1, 2]}}},
            "scaling": {"slots": 1},
            "storage": str(folder / way),
        }
        (folder / f"{way}.yaml").write_text(yaml.safe_dump(fields))
        command = [sys.executable, str(folder / "script.py"), str(folder / f"{way}.yaml"), way]
        done = subprocess.run(command, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout.splitlines()[-1])
        return said, rp.open_results(folder / way / "small")

    return run


CONNECTED = pytest.param("connected", marks=pytest.mark.slow)
WAYS = pytest.mark.parametrize("way", ["fresh", CONNECTED, "local"])


@WAYS
def test_the_caller_finds_the_process_as_it_was(way, ran):
    said, _ = ran(way)
    assert said["changed"] == []


@WAYS
def test_progress_is_told_to_the_end(way, ran):
    said, results = ran(way)
    assert said["told"] == EPOCHS == results.comparison.summary.executed_epochs


@pytest.mark.parametrize("way", ["fresh", CONNECTED])
def test_all_ways_leave_equal_tables(way, ran):
    both = [ran(way), ran("local")]
    own = {"seconds", "samples_per_second", "executed"}  # times, and who of two trials came first
    tables = [results.table for _, results in both]
    columns = [name for name in tables[0].column_names if name not in own]
    assert all(table.select(columns).equals(tables[0].select(columns)) for table in tables)
    assert len({said["answer"] for said, _ in both}) == 1
    assert len({results.answer for _, results in both}) == 1


@WAYS
def test_results_say_all_that_a_notebook_wants(way, ran):
    said, results = ran(way)
    assert results.answer in repr(results)
    assert said["page"] == results._repr_html_() and "<table" in said["page"]
    assert [trial.status for trial in results.trials] == ["finished"] * 2
    assert results.errors == {}
    assert said["best"] == [results.best.name, sorted(results.best.snapshot.weights)]
    assert len(results.settings) == 2
