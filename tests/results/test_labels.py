"""What settings and metrics are called."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import made_studies as made
import pytest

from rayprune.results.comparison import Comparison
from rayprune.results.labels import (
    colour_field,
    counted,
    is_case,
    label_of,
    metric_name,
    name_of,
    on_test,
    phrase,
    reads_in_percent,
    said,
)

IMP = {"method": "imp", "cycle": 1, "sparsity": 0.95, "schedule": "allr", "epochs": 3}
GMP = {"method": "gmp", "cycle": 0, "sparsity": 0.95, "schedule": "stepped", "total_epochs": 15}
BIMP = {"method": "bimp", "cycle": 3, "sparsity": 0.95, "schedule": "allr", "total_epochs": 40}


@pytest.mark.parametrize(
    ("row", "varied", "label"),
    [
        (IMP, (), "ALLR with 3 epochs"),
        (IMP | {"epochs": 1}, (), "ALLR with 1 epoch"),
        (IMP | {"cycle": 3}, (), "ALLR with 3 cycles of 3 epochs"),
        (IMP | {"schedule": "cosine"}, (), "cosine with 3 epochs"),
        (IMP | {"schedule": "none", "epochs": 0}, (), "no retraining"),
        (IMP, ("retrain.schedule", "retrain.epochs", "prune.sparsity"), "ALLR with 3 epochs"),
        (
            IMP | {"prune.allocation": "erk"},
            ("prune.allocation",),
            "ALLR with 3 epochs, allocation erk",
        ),
        (IMP | {"optim.lr": 0.05}, ("optim.lr",), "ALLR with 3 epochs, optim lr 0.05"),
        (BIMP, ("budget.epochs",), "BIMP with 40 epochs"),
        (BIMP | {"prune.cycles": 3}, ("prune.cycles",), "BIMP with 40 epochs, 3 cycles"),
        (GMP, ("dense.sparsify.method",), "GMP with 15 epochs"),
        (GMP | {"method": "rigl"}, (), "RigL with 15 epochs"),
        (GMP | {"cycle": 1, "schedule": "llr"}, (), "GMP, then LLR with 15 epochs"),
        (IMP | {"method": "one-shot"}, ("method",), "one-shot"),
        (
            IMP | {"recipe": "ours", "retrain.epochs": 3},
            ("recipe", "retrain.epochs"),
            "ours, retrain epochs 3",
        ),
        (IMP | {"cycle": 0, "sparsity": 0.0}, (), "Dense"),
    ],
)
def test_labels(row: dict[str, Any], varied: tuple[str, ...], label: str) -> None:
    assert label_of(row, varied) == label


def test_a_case_is_a_name_without_a_dot_that_is_no_field() -> None:
    assert is_case("method")
    assert is_case("recipe")
    assert not any(map(is_case, ("retrain.epochs", "seed", "batch_size")))


def test_names_have_no_numbers() -> None:
    assert name_of(IMP, ()) == "ALLR"
    assert name_of(GMP, ()) == "GMP"


def test_a_field_that_is_set_in_some_trials_is_in_the_names_of_these() -> None:
    """A condition that does not hold leaves a field, or a whole case, unset."""
    comparison = Comparison.from_table(made.searcher())
    for setting in comparison.settings:
        value = setting.finals[0]["retrain.lr"]
        assert ("retrain lr" in setting.label) is (value is not None)
        assert all(len(word) <= 10 for word in setting.label.split())
    assert label_of(IMP | {"recipe": None}, ("recipe",)) == "ALLR with 3 epochs"
    rows = [IMP | {"optim.momentum": value} for value in (0.9, None)]
    assert colour_field(rows, ("optim.momentum",)) == "optim.momentum"
    assert phrase("optim.momentum", None) == "momentum not searched"
    assert phrase("prune.cycles", None) == "cycles not searched"


def test_long_values_are_cut() -> None:
    assert len(phrase("prune.ignore", ["block.conv"] * 50)) < 50


def test_colour_is_the_choice_that_was_searched_where_there_is_one_schedule() -> None:
    rows = [IMP | {"prune.allocation": name} for name in ("erk", "lamp")]
    assert colour_field(rows, ("prune.allocation",)) == "prune.allocation"
    assert colour_field([IMP, GMP], ("prune.allocation",)) is None
    assert colour_field([IMP, IMP], ("retrain.epochs", "prune.sparsity")) is None


def test_colour_is_no_field_with_too_many_values() -> None:
    rows = [IMP | {"optim.weight_decay": n / 1e5} for n in range(11)]
    assert colour_field(rows, ("optim.weight_decay",)) is None


def test_series_are_schedules_methods_or_choices() -> None:
    assert set(Comparison.from_table(made.schedules_grid()).series) == {
        "FT", "LRW", "SLR", "CLR", "LLR", "ALLR",
    }  # fmt: skip
    assert len(Comparison.from_table(made.equal_budget()).series) == 10
    assert set(Comparison.from_table(made.cycles()).series) == {"2 cycles", "3 cycles", "5 cycles"}


def test_equal_labels_are_told_apart_by_the_trial() -> None:
    trials = [made.imp(str(n), {"optim.lr": 0.1 + n * 1e-9}, points_lost=n / 100) for n in range(2)]
    table = made.table_of([made.renamed(t) for t in trials], ["optim.lr"])
    labels = [setting.label for setting in Comparison.from_table(table).settings]
    assert labels == [f"ALLR with 1 epoch, optim lr 0.1 (trial {n})" for n in range(2)]


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("val_accuracy", "validation accuracy"),
        ("test_loss", "test loss"),
        ("val_mean_iou", "validation mean IoU"),
        ("num_nonzero", "non-zero parameters"),
        ("sparsity", "sparsity"),
        ("pruned_val_f1", "pruned validation f1"),
        ("test_interval_score", "test interval score"),
        ("val_val_loss", "validation val loss"),
        ("val_precious", "validation precious"),
    ],
)
def test_metrics_have_names(metric: str, name: str) -> None:
    assert metric_name(metric) == name


def test_every_metric_has_a_twin_on_the_test_split() -> None:
    assert on_test("val_mean_iou") == "test_mean_iou"
    assert on_test("val_val_x") == "test_val_x"
    assert on_test("num_nonzero") == "num_nonzero", "what is counted is of no split"


@pytest.mark.parametrize("metric", ["val_rmse", "val_perplexity", "val_loss"])
def test_of_what_less_is_better_is_no_percentage(metric: str) -> None:
    lower = ("loss", "rmse", "perplexity")
    assert not reads_in_percent(metric, lower)
    assert reads_in_percent(metric, ()), "who says nothing means an accuracy"
    assert reads_in_percent("sparsity", lower) and not reads_in_percent("num_nonzero", lower)


def test_numbers_of_things_are_whole_and_in_the_plural() -> None:
    counts = (0, 1, 12.5, 1_234_567)
    assert [counted(count, "epoch") for count in counts] == [
        "0 epochs", "1 epoch", "12.5 epochs", "1234567 epochs",
    ]  # fmt: skip


def test_values_of_unfinished_trials_are_in_no_label() -> None:
    """All finished trials share one weight decay: it tells nothing apart."""
    done = made.imp("0", {"optim.weight_decay": 1e-4})
    failed = replace(made.imp("1", {"optim.weight_decay": 1e-3}), status="failed")
    table = made.table_of([done, made.renamed(failed)], ["optim.weight_decay"])
    assert [s.label for s in Comparison.from_table(table).settings] == ["ALLR with 1 epoch"]


def test_searched_values_are_short():
    assert said({"retrain.epochs": 3, "way": "x", "optim.lr": None}) == ["epochs=3", "way=x"]
    assert said({"optim.lr": 0.0123456789, "prune.sparsity": 0.9}) == ["lr=0.01235", "sparsity=0.9"]
    of_two = said({"retrain.epochs": 3, "dense.epochs": 7})
    assert of_two == ["retrain.epochs=3", "dense.epochs=7"], "two fields of one name"
