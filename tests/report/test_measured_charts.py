"""The metric against milliseconds and megabytes: what is drawn, and that it can be."""

from __future__ import annotations

from typing import Any

import made_studies as made
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from rayprune.report.charts import NAMES, make_plots
from rayprune.report.plot import Plot
from rayprune.results.comparison import Comparison

NEW = ("latency", "size")
GOALS = {"metrics": ("val_accuracy", "latency_ms"), "modes": ("max", "min")}


def plots_of(table: pa.Table, **summary: Any) -> dict[str, Plot]:
    comparison = Comparison.from_table(made.with_summary(table, **summary))
    return {plot.name: plot for plot in make_plots(comparison)}


def records_of(plot: Plot, field: str) -> list[dict[str, Any]]:
    """Different records of a chart that have a field."""
    found: dict[str, dict[str, Any]] = {}

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if field in node and "place" in node:
                found[repr(node)] = node
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(plot.spec())
    return list(found.values())


def axis_of(plot: Plot) -> dict[str, Any]:
    spec = plot.spec()
    while "layer" in spec:
        spec = next(each for each in reversed(spec["layer"]) if "x" in str(each))
    return spec["encoding"]["x"]  # type: ignore[no-any-return]


STUDIES = {
    "three ways": lambda: made.schedules_and_sparsities(1),
    "methods": made.equal_budget,
    "random": lambda: made.random_search(65),
    "one trial": made.one_trial,
}


@pytest.mark.parametrize("study", STUDIES)
def test_they_appear_where_something_was_measured(study: str) -> None:
    table = STUDIES[study]()
    assert not {*NEW} & plots_of(table).keys()
    plots = plots_of(made.measured(table))
    assert {*NEW} <= plots.keys() <= {*NAMES}
    assert list(plots) == [name for name in NAMES if name in plots], "in reading order"


@pytest.mark.parametrize("within", [{}, {"latency_ms": 1.5}])
@pytest.mark.parametrize("is_dense_known", [True, False])
def test_they_can_be_drawn(within: dict[str, float], is_dense_known: bool) -> None:
    table = made.measured(made.equal_budget())
    if not is_dense_known:
        table = table.filter(pc.greater(table["sparsity"], 0.0))
    plot = plots_of(table, within=within)["latency"]
    assert bool(records_of(plot, "dense")) == is_dense_known
    assert plot.png()[:4] == b"\x89PNG"


def test_a_point_for_each_setting_and_two_for_the_dense_network() -> None:
    table = made.measured(made.schedules_and_sparsities(1))
    comparison = Comparison.from_table(table)
    plots = plots_of(table)
    for name, column in zip(NEW, ("latency_ms", "file_mb"), strict=True):
        points = records_of(plots[name], "series")
        places = sorted(point["place"] for point in points)
        assert places == sorted(s.value(column) for s in comparison.sparse)
    dense = {r["line"]: r["place"] for r in records_of(plots["latency"], "dense")}
    assert dense == {
        "dense in MNN 3.6.1, 1 thread, batch 1: 4.90 ms": pytest.approx(4.9),
        "dense in OpenVINO 2026.4, its fastest: 4.00 ms": pytest.approx(4.0),
    }
    assert [r["line"] for r in records_of(plots["size"], "dense")] == ["dense: 3.46 MB"]


def test_a_limit_is_drawn_on_its_own_axis() -> None:
    plots = plots_of(made.measured(made.searcher()), within={"latency_ms": 1.5})
    names = [record["line"] for record in records_of(plots["latency"], "line")]
    assert "limit: 1.5 ms" in names
    assert not any("limit" in r["line"] for r in records_of(plots["size"], "line"))


def test_an_axis_that_goes_far_is_logarithmic() -> None:
    plots = plots_of(made.measured(made.schedules_and_sparsities(1)))
    assert axis_of(plots["size"])["scale"]["type"] == "log"
    assert "type" not in axis_of(plots["latency"])["scale"]


def test_captions_say_in_what_on_what_and_how() -> None:
    caption = plots_of(made.measured(made.schedules_grid()))["latency"].caption
    assert "MNN 3.6.1, 1 thread, batch 1 on AMD EPYC 7R13: the median" in caption
    assert "Up and to the left is better" in caption


def test_the_front_of_accuracy_and_latency_is_drawn() -> None:
    plots = plots_of(made.measured(made.searcher(**GOALS)))
    pareto = plots["pareto"]
    assert "latency, ms" in str(pareto.spec()) and pareto.title.endswith("and latency")
    assert pareto.png()[:4] == b"\x89PNG"
    assert "pareto" not in plots_of(made.searcher(**GOALS)), "nothing was measured yet"
