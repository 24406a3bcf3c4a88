"""Searchers, schedulers, goals and trackers on a real Ray: whole, resumed, as Tune returns them."""

import json
import math
from collections import Counter
from pathlib import Path

import pytest
import ray
import yaml
from disturbed import drivers, opened
from mlflow import MlflowClient
from ray import tune

import rayprune as rp

CONSTANT = 'retrain.schedule == "constant"'
SPACE = {
    "retrain.epochs": {"integers": [1, 5]},
    "retrain.schedule": {"choice": ["llr", "constant"]},
    "retrain.lr": {"log_uniform": [1e-3, 0.3], "when": CONSTANT},
}
RESUMED = """
import sys, json, rayprune as rp
results = rp.run(rp.load_study(sys.argv[1]))
grid = results.result_grid
print("told", json.dumps({
    "trials": sorted(result.config["trial"] for result in grid),
    "errors": grid.num_errors,
    "epochs": [len(result.metrics_dataframe) for result in grid if not result.error],
}))
"""


@pytest.fixture(scope="module")
def a_ray():
    """A Ray of the caller's, for several studies one after the other."""
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def run(a_ray, small, tmp_path):
    """Run a small study on it."""

    def call(search, tracking=(), callbacks=(), stop=None, **experiment):
        fields = {
            "name": "small_study",
            "experiment": {**small, **experiment},
            "search": search,
            "tracking": list(tracking),
            "scaling": {"idle_timeout_s": 0},
            "storage": str(tmp_path / "storage"),
        }
        return rp.run(rp.Study.model_validate(fields), callbacks=callbacks, stop=stop)

    return call


def statuses(results):
    return Counter(trial.status for trial in results.trials)


def ended(driver):
    """How many lines say that a trial ended."""
    return driver.output.count("] trial ")


@pytest.mark.slow
@pytest.mark.parametrize("num_trials", [8, 40])
def test_a_searchers_study_that_was_killed_repeats_and_forgets_no_trial(
    small, tmp_path, monkeypatch, num_trials
):
    """Killed once trials have ended; the table, Tune, TensorBoard and MLflow have all of them."""
    store = f"sqlite:///{tmp_path}/mlflow.db"
    file = tmp_path / "small_study.yaml"
    search = {
        "algorithm": {"name": "optuna", "seed": 1},
        "scheduler": {"name": "asha", "grace_period": 1, "reduction_factor": 2},
        "num_samples": num_trials,
        "where": ["retrain.epochs <= 4"],
        "space": SPACE,
    }
    fields = {
        "experiment": small,
        "search": search,
        "tracking": [{"name": "mlflow", "tracking_uri": store}],
        "storage": str(tmp_path / "storage"),
    }
    file.write_text(yaml.safe_dump(fields))
    with drivers() as start:
        killed = start(file)
        killed.wait_until(lambda: ended(killed) >= num_trials // 3)
        killed.process.kill()
        killed.process.wait()
        proposed = json.loads((tmp_path / "storage/small_study/proposed.json").read_text())
        resumed = start(file, launcher=("-c", RESUMED), program="")
        output = resumed.finish(0)
    names = [trial.name for trial in opened(file).trials]
    assert len(names) == len(set(names)) == num_trials
    assert (
        json.loads((tmp_path / "storage/small_study/proposed.json").read_text())[: len(proposed)]
        == proposed
    )
    ends = statuses(opened(file))
    assert set(ends) <= {"finished", "stopped", "infeasible"} and ends["finished"]
    told = json.loads(output.split("told ")[1])
    assert told["trials"] == sorted(names) and told["errors"] == ends["infeasible"]
    assert len(told["epochs"]) == num_trials - ends["infeasible"] and min(told["epochs"]) > 3
    events = {path.name for path in (tmp_path / "storage/small_study/tensorboard").iterdir()}
    assert events == set(names)
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("small_study")
    runs = client.search_runs([experiment.experiment_id])
    assert {each.data.tags["rayprune.trial"] for each in runs} == set(names)
    assert len(runs) == num_trials
    told = Counter(each.info.status for each in runs)
    assert told["FAILED"] == ends["infeasible"]
    # A stage may be done by the time that Tune hears of its first epochs and stops the trial: then
    # the table has the whole result, and Tune and the tracker have what was heard.
    assert told["KILLED"] >= ends["stopped"] and told["RUNNING"] == 0
    for each in runs:
        for metric in each.data.metrics:
            steps = [m.step for m in client.get_metric_history(each.info.run_id, metric)]
            assert len(steps) == len(set(steps)), (each.data.tags["rayprune.trial"], metric)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hyperopt", "bayesopt"])
def test_other_searchers_end_and_go_on_where_they_stopped(run, name):
    """Grown by samples: what was proposed before is proposed first, and not run again."""
    space = {"retrain.lr": {"uniform": [0.01, 0.1]}, "optim.weight_decay": {"uniform": [0, 1e-3]}}
    more = {"retrain": {"epochs": 1, "schedule": "constant", "lr": 0.05}}
    search = {"algorithm": name, "space": space}
    first = run({**search, "num_samples": 3}, **more)
    assert statuses(first) == {"finished": 3}
    grown = run({**search, "num_samples": 5}, **more)
    assert statuses(grown) == {"finished": 5} and len(grown.result_grid) == 5
    before = first.table.select(["trial", *space]).to_pylist()
    assert grown.table.select(["trial", *space]).to_pylist()[: len(before)] == before
    summary = grown.comparison.summary
    assert summary.executed_epochs == summary.unique_epochs - first.comparison.summary.unique_epochs


@pytest.mark.slow
def test_several_goals_reach_the_searcher_and_leave_a_front(run):
    space = {"prune.sparsity": {"uniform": [0.5, 0.99]}}
    results = run(
        {
            "algorithm": {"name": "optuna", "seed": 0},
            "metric": ["val_accuracy", "num_nonzero"],
            "num_samples": 6,
            "space": space,
        }
    )
    assert statuses(results) == {"finished": 6}
    front = results.comparison.front
    assert front and set(map(id, front)) <= set(map(id, results.settings))
    assert "Pareto front" in Path(rp.write_report(results)).read_text()
    best = results.best.row
    assert best["val_accuracy"] == max(
        row["val_accuracy"] for row in results.table.to_pylist() if row["is_final"]
    ), "the first goal decides which one is shipped"


@pytest.mark.slow
def test_the_sparsest_within_a_loss_is_what_a_searcher_looks_for(run):
    results = run(
        {
            "algorithm": {"name": "optuna", "seed": 0},
            "within_dense": 0.05,
            "num_samples": 8,
            "space": {"prune.sparsity": {"uniform": [0.5, 0.99]}},
        }
    )
    rows = [row for row in results.table.to_pylist() if row["is_final"]]
    dense = {row["val_accuracy"] for row in results.table.to_pylist() if row["cycle"] == 0}
    within = [row for row in rows if row["val_accuracy"] >= min(dense) - 0.05 - 1e-9]
    assert len(dense) == 1 and within
    assert results.best.row["sparsity"] == max(row["sparsity"] for row in within)
    goals = {grid.config["trial"]: grid.metrics["goal"] for grid in results.result_grid}
    assert max(goals, key=goals.get) == results.best.name


RATES = {"retrain.lr": {"grid": [0.05, 0.03, 1e-6, 1e-7, 1e-8, 1e-9]}}
LONG = {"retrain": {"epochs": 12, "schedule": "constant", "lr": 0.05}}


@pytest.mark.slow
@pytest.mark.parametrize(
    "scheduler",
    [
        {"name": "median_stopping_rule", "min_samples_required": 2},
        {"name": "hyperband", "reduction_factor": 3},
        {"name": "asha", "unit": "cycles", "grace_period": 1, "reduction_factor": 2},
    ],
    ids=lambda scheduler: scheduler["name"],
)
def test_schedulers_stop_weak_trials_and_the_table_says_so(run, scheduler):
    """HyperBand pauses trials as well, and lets them go on."""
    in_cycles = scheduler.get("unit") == "cycles"
    more = {"prune": {"sparsity": 0.9, "cycles": 4}} if in_cycles else {}
    long = {**LONG, **more}
    if in_cycles:
        long["retrain"] = {**long["retrain"], "epochs": 3}
    results = run({"space": RATES, "scheduler": scheduler}, **long)
    ends = statuses(results)
    is_small = scheduler["name"] == "hyperband"  # it fills brackets before it stops anybody
    assert set(ends) <= {"finished", "stopped"} and (is_small or ends["stopped"]), results.trials
    for trial in results.trials:
        if trial.status == "stopped":
            assert trial.reason.startswith(f"{scheduler['name']} stopped it after ")
    finals = {row["trial"] for row in results.table.to_pylist() if row["is_final"]}
    assert finals == {trial.name for trial in results.trials if trial.status == "finished"}
    assert results.best.row["retrain.lr"] >= 0.03
    assert len(results.result_grid) == 6


class Heard(tune.Callback):
    """A caller's own."""

    def __init__(self):
        self.results = []

    def on_trial_result(self, iteration, trials, trial, result, **info):
        self.results.append((trial.config["trial"], result["phase"], result["cycle"]))


@pytest.mark.slow
def test_callbacks_and_stoppers_of_the_caller_reach_tune(run):
    heard = Heard()
    results = run(
        {"space": {"retrain.lr": {"grid": [0.05, 0.01]}}},
        callbacks=[heard],
        stop={"retrain_epochs": 2},
        **LONG,
    )
    assert statuses(results) <= Counter(stopped=2) + Counter(finished=2)
    stopped = [trial for trial in results.trials if trial.status == "stopped"]
    assert all(t.reason == "a stopper stopped it after 2 epochs of retraining" for t in stopped)
    names = {name for name, _, _ in heard.results}
    assert names == {"0", "1"}
    of_one = [phase for name, phase, _ in heard.results if name == "0"]
    assert of_one == ["dense"] * 3 + ["retrain"] * 2, "every epoch, the dense ones marked"
    for result in results.result_grid:
        assert list(result.metrics_dataframe["training_iteration"]) == [1, 2, 3, 4, 5]
        assert math.isfinite(result.metrics["val_accuracy"])


TUNED = {
    "space": {
        "way": {
            "cases": {
                "LLR": {"retrain.schedule": "llr"},
                "own": {"retrain.schedule": "constant", "retrain.lr": 0.01},
            }
        }
    },
    "tune": {"tries": 2, "seeds": [9], "space": {"retrain.epochs": {"choice": [1, 2]}}},
    "seeds": [0, 1],
}


def assert_tuned(results):
    """Each way has two tries, and the better one's values on both seeds."""
    rows = {row["trial"]: row for row in results.table.to_pylist() if row["is_final"]}
    assert sorted(rows) == list("01234567")
    for way, numbers in (("LLR", "0145"), ("own", "2367")):
        mine = [rows[number] for number in numbers]
        best = max(mine[:2], key=lambda row: row["val_accuracy"])
        assert {row["way"] for row in mine} == {way}
        assert {row["retrain.epochs"] for row in mine[2:]} == {best["retrain.epochs"]}
        assert [row["phase"] for row in mine] == ["tune"] * 2 + ["report"] * 2


@pytest.mark.slow
def test_a_study_tunes_each_setting_and_reports_on_its_choice(run):
    results = run(TUNED)
    assert_tuned(results)
    assert len(results.result_grid) == 8 and not results.errors
    assert len(results.settings) == 2 and results.comparison.summary.tuning_epochs == 3 + 2 * 3


@pytest.mark.slow
def test_a_study_that_tunes_goes_on_where_it_was_killed(small, tmp_path):
    """Killed as the first choice is reported on: no trial twice, and the choices are the same."""
    file = tmp_path / "tuned.yaml"
    fields = {"experiment": small, "search": TUNED, "storage": str(tmp_path / "storage")}
    file.write_text(yaml.safe_dump(fields))
    with drivers() as start:
        killed = start(file)
        killed.wait_until(lambda: any(f"trial {n} way" in killed.output for n in "4567"))
        killed.process.kill()
        killed.process.wait()
        before = {row["trial"]: row for row in opened(file).table.to_pylist() if row["is_final"]}
        start(file).finish(0)
    after = {row["trial"]: row for row in opened(file).table.to_pylist() if row["is_final"]}
    assert all(after[name]["key"] == row["key"] for name, row in before.items())
    assert_tuned(opened(file))
