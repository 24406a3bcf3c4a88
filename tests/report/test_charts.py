"""Charts: which appear, what they are drawn from, and that each can be drawn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import made_studies as made
import pyarrow as pa
import pytest

from rayprune.report.charts import NAMES, make_plots
from rayprune.report.marks import MANY, theme
from rayprune.report.plot import Plot, vega_lite_version
from rayprune.results.comparison import Comparison

GOALS = {"metrics": ("val_accuracy", "num_nonzero"), "modes": ("max", "min")}
THREE = {
    "metrics": ("val_accuracy", "sparsity", "total_epochs"),
    "modes": ("max", "max", "min"),
}
STUDIES = {
    "schedules": (made.schedules_grid, ["cost", "retraining", "peaks"]),
    "equal budget": (
        made.equal_budget,
        ["settings", "differences", "sparsity", "retraining", "peaks"],
    ),
    "three ways": (
        made.schedules_and_sparsities,
        ["cost", "differences", "sparsity", "retraining", "peaks"],
    ),
    "cycles": (made.cycles, ["cost", "differences", "sparsity", "retraining", "peaks"]),
    "brought": (made.brought, ["cost", "sparsity", "retraining", "peaks"]),
    "brought, of an unknown past": (
        lambda: made.brought(None),
        ["cost", "sparsity", "retraining", "peaks"],
    ),
    "own task": (
        lambda: made.of_own_task(metrics=("val_rmse",), modes=("min",)),
        ["settings", "differences", "sparsity", "retraining", "peaks"],
    ),
    "one trial": (made.one_trial, ["retraining"]),
    "one trial, three cycles": (lambda: made.one_trial(3), ["sparsity", "retraining", "peaks"]),
    "random": (lambda: made.random_search(80), ["cost", "sparsity", "retraining", "peaks"]),
    "searcher": (made.searcher, ["cost", "sparsity", "retraining", "peaks"]),
    "goals": (
        lambda: made.searcher(**GOALS),
        ["pareto", "cost", "sparsity", "retraining", "peaks"],
    ),
    "three goals": (
        lambda: made.searcher(**THREE),
        ["pareto", "cost", "sparsity", "retraining", "peaks"],
    ),
    "nothing": (lambda: made.table_of([made.ended("0", "failed", "boom")], []), []),
}


def test_costs_of_a_network_that_was_brought_are_of_retraining() -> None:
    cost = plots_of(made.brought())["cost"]
    assert "epochs of retraining" in str(cost.spec()) and "dense run included" not in str(
        cost.spec()
    )


@pytest.mark.parametrize(
    ("table", "way"),
    [
        (lambda: made.schedules_grid(), "Up and to the left"),
        (
            lambda: made.schedules_grid(metrics=("val_loss",), modes=("min",)),
            "Down and to the left",
        ),
    ],
)
def test_where_better_settings_lie_is_said(table: Any, way: str) -> None:
    assert way in plots_of(table())["cost"].caption


def test_peaks_say_what_they_come_from() -> None:
    known, unknown = (plots_of(made.brought(epochs))["peaks"] for epochs in (12, None))
    assert "d2 is the cycle's share of the epochs that the network was trained for" in known.caption
    assert "d = min(1, d1)" in unknown.caption and "d2" not in unknown.caption
    told = [{record["of"] for record in records} for records in data_of(unknown)]
    assert told == [{"d", "d1"}]


def plots_of(table: pa.Table) -> dict[str, Plot]:
    return {plot.name: plot for plot in make_plots(Comparison.from_table(table))}


def data_of(plot: Plot) -> Iterator[list[dict[str, Any]]]:
    """Every data set in a chart."""

    def walk(node: Any) -> Iterator[list[dict[str, Any]]]:
        if isinstance(node, dict):
            if isinstance(node.get("data"), dict) and "values" in node["data"]:
                yield node["data"]["values"]
            for value in node.values():
                yield from walk(value)
        elif isinstance(node, list):
            for value in node:
                yield from walk(value)

    spec = plot.spec()
    yield from walk(spec)
    yield from spec.get("datasets", {}).values()


def records_of(plot: Plot, field: str) -> list[dict[str, Any]]:
    """Different records that have a field."""
    found = {repr(r): r for data in data_of(plot) for r in data if field in r}
    return list(found.values())


@pytest.mark.parametrize("study", STUDIES)
def test_a_chart_appears_where_there_is_something_to_compare(study: str) -> None:
    make, names = STUDIES[study]
    plots = plots_of(make())
    assert list(plots) == names
    assert set(names) <= set(NAMES)


@pytest.mark.parametrize(
    "study", ["equal budget", "three ways", "cycles", "random", "goals", "three goals"]
)
def test_every_chart_can_be_drawn(study: str) -> None:
    """Vega-Lite is compiled and its marks are laid out, as for the PNG."""
    import vl_convert

    for plot in plots_of(STUDIES[study][0]()).values():
        svg = vl_convert.vegalite_to_svg(
            plot.spec(), vl_version=vega_lite_version(), config=theme()
        )
        assert svg.count('aria-roledescription="point"') > 1, plot.name
        assert "NaN" not in svg, plot.name


def test_the_png_is_an_image_of_the_same_chart_with_its_title() -> None:
    plot = plots_of(made.one_trial())["retraining"]
    assert plot.png().startswith(b"\x89PNG")
    assert "title" not in plot.spec()


def test_cost_has_a_point_for_each_setting_in_fractions() -> None:
    table = made.schedules_grid()
    points = records_of(plots_of(table)["cost"], "epochs")
    finals = [row for row in table.to_pylist() if row["is_final"]]
    assert sorted((p["epochs"], p["value"]) for p in points) == sorted(
        (row["total_epochs"], row["val_accuracy"]) for row in finals
    )
    assert {p["series"] for p in points} == {"FT", "LRW", "SLR", "CLR", "LLR", "ALLR"}


def test_cost_joins_settings_that_differ_in_their_cost_alone() -> None:
    """Points at random, of which several cost as much, are no curve."""
    assert "line" in marks_of(plots_of(made.schedules_grid())["cost"])
    rates = [(n / 100, 1 + n % 6) for n in range(1, 25)]
    drawn = [
        made.imp(
            str(n),
            {"retrain.lr": lr},
            schedule="llr",
            epochs=epochs,
            sparsity=0.9,
            points_lost=lr / 100,
        )
        for n, (lr, epochs) in enumerate(rates)
    ]
    assert "line" not in marks_of(plots_of(made.table_of(drawn, ["retrain.lr"]))["cost"])


def test_error_bars_are_one_standard_deviation_over_seeds() -> None:
    comparison = Comparison.from_table(made.schedules_and_sparsities(seeds=3))
    points = records_of(plots_of(made.schedules_and_sparsities(seeds=3))["cost"], "epochs")
    assert len(points) == len(comparison.settings) == 27
    mean = comparison.settings[0].mean("val_accuracy")
    assert mean is not None
    assert mean.spread
    (point,) = [p for p in points if p["value"] == mean.value]
    assert point["high"] - point["low"] == pytest.approx(2 * mean.spread)
    assert "standard deviation over 3 seeds" in plots_of(made.equal_budget())["settings"].caption


def test_a_few_sparsities_are_panels_and_many_are_not() -> None:
    assert len(plots_of(made.schedules_and_sparsities())["cost"].spec()["hconcat"]) == 3
    assert "hconcat" not in plots_of(made.random_search())["cost"].spec()


def test_the_dense_line_is_in_the_charts_of_the_metric() -> None:
    table = made.schedules_and_sparsities()
    dense = Comparison.from_table(table).dense
    assert dense is not None
    for name in ("cost", "sparsity", "retraining"):
        lines = records_of(plots_of(table)[name], "dense")
        assert [line["dense"] for line in lines] == [dense.value]


def test_cycles_are_followed_through_their_sparsities() -> None:
    points = records_of(plots_of(made.cycles())["sparsity"], "kept")
    five = [p for p in points if "5 cycles" in p["path"]]
    assert [p["kept"] for p in five] == pytest.approx([0.02 ** (k / 5) for k in range(1, 6)])


def test_of_each_schedule_the_best_setting_is_shown_at_each_sparsity() -> None:
    points = records_of(plots_of(made.schedules_and_sparsities())["sparsity"], "kept")
    assert len(points) == 3 * 3
    assert {p["setting"] for p in points if p["series"] == "ALLR"} == {"ALLR with 6 epochs"}


def test_a_method_that_missed_its_goal_is_shown_where_it_is() -> None:
    plots = plots_of(made.equal_budget())
    names = {p["setting"] for p in records_of(plots["settings"], "epochs")}
    assert "DST (82 %)" in names
    kept = {p["kept"] for p in records_of(plots["sparsity"], "kept") if p["series"] == "DST"}
    assert [round(value, 6) for value in kept] == [0.18]


def test_retraining_starts_from_the_pruned_metric() -> None:
    table = made.one_trial(cycles=3)
    rows = [row for row in table.to_pylist() if row["cycle"] > 0]
    points = records_of(plots_of(table)["retraining"], "before")
    assert [(p["before"], p["value"]) for p in points] == [
        (row["pruned_val_accuracy"], row["val_accuracy"]) for row in rows
    ]


def test_peaks_are_those_of_allr_alone() -> None:
    table = made.schedules_grid()
    points = records_of(plots_of(table)["peaks"], "factor")
    rows = [row for row in table.to_pylist() if row["d"] is not None]
    assert {row["schedule"] for row in rows} == {"allr"}
    for of in ("d", "d1", "d2"):
        assert sorted(p["factor"] for p in points if p["of"] == of) == sorted(r[of] for r in rows)


def test_many_points_are_drawn_without_lines() -> None:
    spec = plots_of(made.random_search(MANY + 1))["cost"].spec()
    marks = [layer["mark"]["type"] for layer in spec["layer"] if "mark" in layer]
    assert marks == ["point"]


def test_more_series_than_colours_become_others() -> None:
    trials = [made.imp(str(n), {"recipe": f"r{n:02d}"}, points_lost=n / 1000) for n in range(14)]
    trials = [made.renamed(trial) for trial in trials]
    points = records_of(plots_of(made.table_of(trials, ["recipe"]))["settings"], "epochs")
    assert {p["series"] for p in points} == {*(f"r{n:02d}" for n in range(10)), "others"}


def marks_of(plot: Plot) -> list[str]:
    layers = plot.spec()["layer"]
    return [layer["mark"]["type"] for layer in layers if "mark" in layer]


def test_the_front_is_marked_among_all_settings_and_joined_where_it_is_a_line() -> None:
    comparison = Comparison.from_table(made.searcher(**GOALS))
    plot = plots_of(made.searcher(**GOALS))["pareto"]
    points = records_of(plot, "front")
    assert len(points) == len(comparison.settings)
    on_it = sorted(p["value"] for p in points if p["front"] == "on the front")
    assert on_it == sorted(s.value("val_accuracy") for s in comparison.front)
    assert "line" in marks_of(plot)
    assert plot.caption.startswith("Up and to the left is better")
    three = plots_of(made.searcher(**THREE))["pareto"]
    assert "line" not in marks_of(three)
    assert "up and to the right" in three.caption.lower() and "epochs" in three.caption


def test_goals_drawn_at_random_are_not_joined_and_stand_on_round_ticks() -> None:
    plot = plots_of(made.searcher())["sparsity"]
    assert "line" not in marks_of(plot)
    assert "line" in marks_of(plots_of(made.equal_budget())["sparsity"])
    axes = [layer["encoding"]["x"]["axis"] for layer in plot.spec()["layer"] if "mark" in layer]
    assert {0.15, 0.1, 0.05, 0.02} <= {*axes[-1]["values"]}


def test_beside_a_chart_sparsity_comes_before_names_that_may_be_cut() -> None:
    rows = {p["row"] for p in records_of(plots_of(made.searcher())["retraining"], "row")}
    assert all(row.split(" %, ")[1].split()[0] in ("LLR", "ALLR") for row in rows)
    rows = {p["row"] for p in records_of(plots_of(made.equal_budget())["retraining"], "row")}
    assert "ALLR, 95 %" in rows


def test_a_ranking_goes_by_the_metric_whatever_is_best() -> None:
    def order(table: pa.Table) -> list[float]:
        return [p["value"] for p in records_of(plots_of(table)["settings"], "epochs")]

    points = [(schedule, s) for schedule in ("ft", "slr", "allr") for s in (0.9, 0.95)]
    trials = [
        made.imp(str(n), {"retrain.schedule": w, "prune.sparsity": s}, schedule=w, sparsity=s)
        for n, (w, s) in enumerate(points)
    ]
    searched = ["retrain.schedule", "prune.sparsity"]
    plain, within = (made.table_of(trials, searched, within_dense=w) for w in (None, 0.011))
    assert order(plain) == order(within)
