"""What trials are compared by follows from the study and its task, as far as that can be known."""

import sys

import pytest

from rayprune.config import ConfigError, Study
from rayprune.config.goals import COUNTS, MEASURED, goals_of, lower_is_better
from rayprune.config.messages import validated

MODULE = """
from types import SimpleNamespace as Task

task = Task(lower_is_better=("rmse",))
listed = Task(lower_is_better=["rmse", "loss"])
text = Task(lower_is_better="rmse")
nothing = lambda: 3

def fails():
    raise KeyError("x")
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """A user's module `nets_of_goals`."""
    (tmp_path / "nets_of_goals.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "nets_of_goals", raising=False)
    lower_is_better.cache_clear()
    return "nets_of_goals"


def study_of(task="classification", **search):
    task = task if task in MEASURED else {"target": task}
    return validated(Study, {"experiment": {"task": task}, "search": search})


def test_what_our_tasks_are_said_to_measure_they_do():
    import torch

    from rayprune.training.task import TASKS

    counts = {"classification": torch.ones(3), "segmentation": torch.ones(5)}
    for name, task in TASKS.items():
        assert tuple(task.metrics(counts[name])) == MEASURED[name]
        assert lower_is_better(name) == tuple(task.lower_is_better)


@pytest.mark.parametrize(
    ("metric", "mode"),
    [("val_loss", "min"), ("val_accuracy", "max"), *COUNTS.items()],
)
def test_every_metric_has_a_better_way(metric, mode):
    first = "val_accuracy" if metric in COUNTS else None
    metrics = [metric] if first is None else [first, metric]
    assert goals_of(study_of(metric=metrics)).modes[-1] == mode


def test_each_of_our_tasks_is_compared_by_what_it_measures():
    for task, names in MEASURED.items():
        for name in names:
            assert goals_of(study_of(task, metric=f"val_{name}")).metrics == (f"val_{name}",)
    with pytest.raises(ConfigError) as caught:
        study_of("segmentation", metric="val_mean_uio")
    assert str(caught.value) == (
        "search.metric: val_mean_uio is not measured by task segmentation, which has loss, "
        "accuracy, mean_iou. Write search.metric: val_mean_iou"
    )


def test_a_users_task_says_of_which_metric_less_is_better(nets):
    goals = goals_of(study_of(f"{nets}:task", metric=["val_rmse", "val_r2", "val_loss"]))
    assert goals.modes == ("min", "max", "min")
    assert goals.lower_is_better == ("loss", "rmse"), "of a loss less is better in any case"
    assert lower_is_better(study_of(f"{nets}:listed").experiment.task) == ("loss", "rmse")


def test_a_study_is_read_without_the_users_module():
    study = study_of("no_such_module:task", metric="val_anything")
    assert study.search.metrics == ("val_anything",)
    with pytest.raises(ValueError, match=r"experiment\.task\.target: cannot import no_such_module"):
        goals_of(study)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("text", """a collection of names, got 'rmse'. Write lower_is_better=("rmse",)"""),
        ("nothing", "must be a rayprune.Task or return one, got int"),
        ("fails", "nets_of_goals:fails failed: KeyError: 'x'"),
    ],
)
def test_what_is_no_task_is_told(nets, name, said):
    with pytest.raises(ValueError) as caught:
        goals_of(study_of(f"{nets}:{name}", metric="val_rmse"))
    assert "experiment.task.target" in str(caught.value) and said in str(caught.value)


def test_a_goal_that_is_not_measured_is_told_with_those_that_are(nets):
    measured = ["val_loss", "val_rmse", "train_loss"]
    goals = goals_of(study_of(f"{nets}:task"))
    assert goals.metrics == ("val_accuracy",), "what a study has that names none"
    assert goals.mistake_in(measured) == (
        f"search.metric: val_accuracy is not measured by task {nets}:task, which has loss, rmse. "
        "Write search.metric: val_rmse"
    )
    for metric in ("val_rmse", "val_loss"):
        assert goals_of(study_of(f"{nets}:task", metric=metric)).mistake_in(measured) == ""
    several = goals_of(study_of(f"{nets}:task", metric=["val_rmse", "val_f1", "sparsity"]))
    assert several.mistake_in(measured).endswith("search.metric: [val_rmse, val_loss, sparsity]")


def test_nothing_is_said_of_an_epoch_of_which_nothing_is_known(nets):
    goals = goals_of(study_of(f"{nets}:task"))
    assert goals.mistake_in([]) == goals.mistake_in(["train_loss", "sparsity"]) == ""


def test_a_misspelt_name_of_what_is_better_low_is_told(nets):
    """Else the worst would be taken for the best, in silence."""
    goals = goals_of(study_of(f"{nets}:task", metric="val_r2"))
    assert goals.mistake_in(["val_r2", "val_rsme"]) == (
        f"lower_is_better names rmse, which is not measured by task {nets}:task: it has r2, rsme. "
        "Write one of these, or leave it out"
    )


@pytest.mark.parametrize("within", [None, 0.1])
def test_a_search_for_the_sparsest_is_by_a_goal_of_its_own(within):
    goals = goals_of(study_of(metric="val_loss", within_dense=within))
    expected = ("val_loss", "min") if within is None else ("goal", "max")
    assert (goals.tune_metric, goals.tune_mode) == expected
