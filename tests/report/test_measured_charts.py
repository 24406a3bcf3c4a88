"""The metric against milliseconds and megabytes: what is drawn, and that it can be."""

from __future__ import annotations

from typing import Any

import made_studies as made
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import vl_convert

from rayprune.report.charts import NAMES, make_plots
from rayprune.report.plot import Plot, vega_lite_version
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


def test_a_runtime_that_is_the_fastest_too_is_one_line() -> None:
    same = made.measurement(0.0, latency_ms=4.02, dense_runtime="MNN 3.6.1")
    plot = plots_of(made.measured(made.one_trial(), {"dense-0": same}))["latency"]
    assert {r["line"]: r["place"] for r in records_of(plot, "dense")} == {
        "dense in MNN 3.6.1, 1 thread, batch 1, its fastest: 4.02 ms": pytest.approx(4.02)
    }


def cases(sparsities: int = 3) -> pa.Table:
    """Two named cases at several sparsities each, one of them the slower the sparser it is."""
    trials, known = [], {}
    for case in ("erk", "filters"):
        for number in range(sparsities):
            sparsity = 0.98 - 0.04 * number
            values = {"allocation": case, "prune.sparsity": sparsity}
            trial = made.renamed(made.imp(f"{len(trials)}", values, sparsity=sparsity))
            latency = 2.0 + 0.1 * number if case == "erk" else 3.0 - 0.1 * number
            known[trial.records[-1].key] = made.measurement(latency_ms=latency)
            trials.append(trial)
    return made.measured(made.table_of(trials, ["allocation", "prune.sparsity"]), known)


def lines_of(plot: Plot) -> list[dict[str, Any]]:
    """Encodings of the lines that join points."""

    def walk(node: Any) -> list[dict[str, Any]]:
        if isinstance(node, list):
            return [found for each in node for found in walk(each)]
        if not isinstance(node, dict):
            return []
        own = [node["encoding"]] if node.get("mark", {}) and "detail" in str(node) else []
        return [*own, *walk(node.get("layer", []))]

    return walk(plot.spec())


def test_named_cases_are_joined_from_sparsity_to_sparsity() -> None:
    plots = plots_of(cases())
    for name in NEW:
        (line,) = lines_of(plots[name])
        assert [each["field"] for each in line["detail"]] == ["path"]
        assert line["order"]["field"] == "kept"
        assert "A line goes through the sparsities of one colour." in plots[name].caption
    points = records_of(plots["latency"], "series")
    assert {(p["path"], round(p["kept"], 2)) for p in points} == {
        (case, kept) for case in ("erk", "filters") for kept in (0.02, 0.06, 0.1)
    }


@pytest.mark.parametrize(
    "table",
    [cases(20), cases(1), made.schedules_and_sparsities(1), made.searcher()],
    ids=["many sparsities", "one sparsity", "settings that differ in more", "random"],
)
def test_what_a_line_would_say_nothing_of_is_not_joined(table: pa.Table) -> None:
    plot = plots_of(made.measured(table))["latency"]
    assert lines_of(plot) == [] and "A line" not in plot.caption


def test_ticks_of_what_is_measured_are_plain_numbers() -> None:
    """1,200 is no "1.2e+3"; what d3 makes of them is seen in the drawing."""
    known = {
        row["key"]: made.measurement(latency_ms=900.0 + 150 * n)
        for n, row in enumerate(made.searcher().to_pylist())
    }
    plot = plots_of(made.measured(made.searcher(), known))["latency"]
    svg = vl_convert.vegalite_to_svg(plot.spec(), vl_version=vega_lite_version())
    assert "e+" not in svg and ">2,000<" in svg


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


def test_the_front_has_the_colours_of_the_other_charts() -> None:
    plots = plots_of(cases(), metrics=GOALS["metrics"], modes=GOALS["modes"])
    for name in ("pareto", "latency"):
        assert "'domain': ['erk', 'filters']" in str(plots[name].spec())
    assert plots["pareto"].png()[:4] == b"\x89PNG"
