"""Differences to the reference in words, and their chart."""

from __future__ import annotations

from typing import Any

import made_studies as made
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from rayprune.report.difference_chart import differences_to_reference
from rayprune.report.differences import difference_name, difference_notes, shown
from rayprune.report.plot import Plot
from rayprune.results.comparison import Comparison
from rayprune.results.paired import Difference

ACCURACY = Comparison.from_table(made.equal_budget())
LOSS = Comparison.from_table(made.schedules_grid(metrics=("val_loss",), modes=("min",)))


def records_of(plot: Plot, panel: dict[str, Any]) -> list[dict[str, Any]]:
    """Of the settings in a panel."""
    name = panel["layer"][1]["data"]["name"]
    return plot.spec()["datasets"][name]


def notes_of(table: pa.Table) -> str:
    return " ".join(difference_notes(Comparison.from_table(table)))


@pytest.mark.parametrize(
    ("comparison", "mean", "interval", "text"),
    [
        (ACCURACY, -0.012, (-0.0201, -0.0039), "-1.20 [-2.01, -0.39]"),
        (ACCURACY, 0.0, (0.0, 0.0), "0.00 [0.00, 0.00]"),
        (ACCURACY, 0.001, (-0.00001, 0.003), "+0.10 [0.00, +0.30]"),
        (ACCURACY, 0.001, (0.00001, 0.002), "+0.100 [+0.001, +0.200]"),  # it does not hold 0
        (ACCURACY, 0.001, None, "+0.10 (one seed)"),
        (ACCURACY, -0.0015, (), "-0.15 (the same for all seeds)"),
        (LOSS, 0.01234, (-0.2, 0.25), "+0.0123 [-0.2, +0.25]"),
    ],
)
def test_a_difference_is_shown_with_its_interval(
    comparison: Comparison, mean: float, interval: tuple[float, ...] | None, text: str
) -> None:
    num_pairs = 1 if interval is None else 3
    difference = Difference(mean=mean, num_pairs=num_pairs, interval=interval or None)
    assert shown(comparison, difference) == text


def test_no_difference_is_a_dash() -> None:
    assert shown(ACCURACY, None) == "–"


def two_winners() -> Comparison:
    """ALLR is best at 90 %, SLR at 95 %; a third schedule is behind."""
    points = [(0.9, "allr", 1), (0.9, "slr", 2), (0.95, "allr", 4), (0.95, "slr", 3)]
    points += [(0.9, "ft", 30), (0.95, "ft", 50)]
    names = ("prune.sparsity", "retrain.schedule", "seed")
    trials = [
        made.imp(
            f"{schedule}-{sparsity}-{seed}",
            dict(zip(names, (sparsity, schedule, seed), strict=True)),
            schedule=schedule,
            sparsity=sparsity,
            seed=seed,
            points_lost=lost / 1000 + noise / 10_000,
        )
        for sparsity, schedule, lost in points
        for seed, noise in enumerate((lost % 3, lost % 2, 2))
    ]
    return Comparison.from_table(made.table_of(trials, names))


def test_the_heading_names_the_reference_where_it_is_one() -> None:
    assert difference_name(ACCURACY) == "vs ALLR, points (95 %)"
    assert difference_name(two_winners()) == "vs reference, points (95 %)"
    assert difference_name(LOSS) == "vs ALLR with 3 epochs (95 %)"


def test_it_is_said_once_what_an_interval_is() -> None:
    said = notes_of(made.equal_budget())
    assert "over 3 seeds on this data set and its test split; it says nothing about other" in said
    assert "Holm's correction" in said
    assert "at each sparsity, the setting that is best by validation accuracy" in said
    assert "The same runs chose it" in said
    assert "The same runs" not in notes_of(made.equal_budget(reference={"method": "GMP"}))
    assert notes_of(made.schedules_grid()) == ""


def test_a_named_reference_is_said_and_where_it_is_not() -> None:
    assert "what the study names, method=GMP" in notes_of(
        made.equal_budget(reference={"method": "GMP"})
    )
    said = notes_of(made.equal_budget(reference={"method": "DST"}))
    assert said == (
        "At 90 %, 95 %, 98 % sparsity nothing is compared: no setting with method=DST kept it."
    )


def test_a_metric_without_a_twin_on_the_test_split_is_said() -> None:
    untested = made.equal_budget().drop_columns(["test_accuracy"])
    said = notes_of(untested)
    assert "no test accuracy was measured: what ranks first looks better than it is" in said
    assert "and its test split" not in said


def test_the_chart_has_a_panel_for_each_sparsity_and_a_line_at_0() -> None:
    plot = differences_to_reference(ACCURACY)
    assert plot is not None
    panels = plot.spec()["vconcat"]
    titles = [panel["title"]["text"] for panel in panels]
    assert titles == ["90 % sparsity", "95 % sparsity", "98 % sparsity"]
    for panel in panels:
        bars = records_of(plot, panel)
        assert len(bars) == 8  # neither the reference nor DST, which missed its goal
        means = [bar["mean"] for bar in bars]
        assert means == sorted(means, reverse=True)
        for bar in bars:
            assert bar["low"] < bar["mean"] < bar["high"]
            is_apart = not bar["low"] <= 0 <= bar["high"]
            assert is_apart == (bar["verdict"] != "cannot be told apart")
    assert "left out" in plot.caption and "3 seeds" in plot.caption


def test_references_that_differ_are_named_in_their_panels() -> None:
    plot = differences_to_reference(two_winners())
    assert plot is not None
    assert plot.title == "Differences to the reference"
    assert [panel["title"]["text"] for panel in plot.spec()["vconcat"]] == [
        "90 % sparsity, against ALLR with 1 epoch",
        "95 % sparsity, against SLR with 1 epoch",
    ]


def test_without_intervals_there_is_no_chart() -> None:
    assert differences_to_reference(LOSS) is None


def test_an_interval_that_goes_far_does_not_hide_the_means() -> None:
    """Two seeds and ten settings make intervals of many points."""
    rows = made.equal_budget()
    two = rows.filter(pc.less(rows["seed"], 2))
    plot = differences_to_reference(Comparison.from_table(two))
    assert plot is not None
    for panel in plot.spec()["vconcat"]:
        low, high = panel["layer"][1]["encoding"]["x"]["scale"]["domain"]
        means = [0.0, *(record["mean"] for record in records_of(plot, panel))]
        assert high - low <= 7.001 * (max(means) - min(means))
