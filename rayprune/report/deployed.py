"""What trained networks take as files in a runtime, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rayprune.report.numbers import goal_value, limit_value, percent, times
from rayprune.results.comparison import Comparison
from rayprune.results.labels import Row, counted, is_dense
from rayprune.results.setting import Setting

MOST_NAMES = 3  # machines or versions in a sentence
ALIKE = 1.03  # a speed-up that is less, either way, says nothing


def limits(comparison: Comparison) -> str:
    """The limits on what is measured: "5 ms and 2.5 MB"; empty without any."""
    return " and ".join(limit_value(*limit) for limit in comparison.summary.within.items())


def none_within(comparison: Comparison, what: str = "No setting is") -> str:
    """ "No setting is within 5 ms", or is known to be; empty where one is, or without limits."""
    within = limits(comparison)
    if not within or comparison.has_within_limits:
        return ""
    return f"{what} {'known to be ' if comparison.is_unsure_of_limits else ''}within {within}"


def measured_speedup(comparison: Comparison, setting: Setting) -> str:
    """A part of the answer: how much faster than dense, and in what; empty if not measured."""
    speedup, latency = setting.mean("measured_speedup"), setting.mean("latency_ms")
    dense = setting.mean("dense_latency_ms")
    if speedup is None or latency is None or dense is None:
        return ""
    here, there = (goal_value(comparison, "latency_ms", x) for x in (latency, dense))
    rows = [row for row in setting.finals if row.get("measured_with")]
    runtime, dense_runtime = _in_words(map(_runtime, rows)), _listed(rows, "dense_runtime")
    conditions = _in_words(row["measured_with"].partition(", ")[2] for row in rows)
    is_same = runtime == dense_runtime
    than = "dense" if is_same else "the fastest dense runtime"
    of = here if is_same else f"{here} in {runtime}"
    said = f"{_compared(speedup.value, than)} when measured"
    return f"{said} ({of} for {there} in {dense_runtime}; {conditions})"


def _compared(speedup: float, than: str) -> str:
    """ "1.9x as fast as dense", "1.3x slower than dense", "as fast as dense"."""
    if 1 / ALIKE <= speedup <= ALIKE:
        return f"as fast as {than}"
    if speedup < 1:
        return f"{times(1 / speedup)} slower than {than}"
    return f"{times(speedup)} as fast as {than}"


def dense_measured(comparison: Comparison) -> str:
    """A sentence on the dense network as a file; empty if it was not measured."""
    size, here, fastest = (
        comparison.dense_mean(column) for column in ("file_mb", "latency_ms", "dense_latency_ms")
    )
    if size is None or here is None or fastest is None:
        return ""
    megabytes = goal_value(comparison, "file_mb", size)
    milliseconds = [goal_value(comparison, "latency_ms", mean) for mean in (here, fastest)]
    said = (
        f"The dense network as a file: {megabytes}, {milliseconds[0]} in {dense_ways(comparison)}"
    )
    if is_fastest_here(comparison):
        return f"{said}, its fastest runtime"
    return f"{said}; its fastest runtime is {dense_runtimes(comparison)}, {milliseconds[1]}"


def unmeasured(comparison: Comparison) -> str:
    """How many finished networks are to be measured still; empty if none is."""
    if not comparison.summary.measure:
        return ""
    keys = {row["key"] for row in comparison.finals if row.get("latency_ms") is None}
    return f"{counted(len(keys), 'network')} not measured" if keys else ""


def ways(comparison: Comparison) -> str:
    """What networks were measured with: "MNN 3.6.1, 1 thread, batch 1"."""
    return _listed(_measured_rows(comparison), "measured_with")


def dense_ways(comparison: Comparison) -> str:
    """What the dense network was measured with."""
    return _listed(_measured_rows(comparison, is_dense), "measured_with")


def dense_runtimes(comparison: Comparison) -> str:
    """The runtimes in which the dense network is fastest."""
    return _listed(_measured_rows(comparison, is_dense), "dense_runtime")


def is_fastest_here(comparison: Comparison) -> bool:
    """Whether the dense network is fastest in the runtime that the study measures in."""
    rows = _measured_rows(comparison, is_dense)
    return all(_runtime(row) == row["dense_runtime"] for row in rows)


def where_measured(comparison: Comparison) -> str:
    """Runtime, threads, batch and machine, and how far the passes of a network lie apart."""
    rows = _measured_rows(comparison)
    spreads = [row["latency_spread_ms"] / row["latency_ms"] for row in rows]
    return (
        f"Measured in {ways(comparison)} on {_listed(rows, 'machine')}: the median "
        f"of a network's passes, whose middle half spans at most {percent(max(spreads), 1)} of it"
    )


def measured_notes(comparison: Comparison) -> list[str]:
    """How networks were measured, and what cannot be compared; none if they were not."""
    rows = _measured_rows(comparison)
    if not rows:
        return []
    loads = sorted(row["load_average"] for row in rows)
    load = " to ".join(dict.fromkeys(f"{load:.1f}" for load in (loads[0], loads[-1])))
    notes = [
        f"{where_measured(comparison)}. The measured speed-up is the median of ratios that are "
        "taken in pairs: passes of the network and of the same network dense, in the runtime that "
        f"is fastest for it ({_listed(rows, 'dense_runtime')}), take turns in one process. The "
        f"machine's load average was {load}: what else runs makes both slower, and a ratio of two "
        "suffers less from it than milliseconds do."
    ]
    machines, versions = ({row[c] for row in rows} for c in ("machine", "measured_with"))
    if len(machines) > 1 or len(versions) > 1:
        different = [
            f"on {len(machines)} different machines" if len(machines) > 1 else "",
            f"with {len(versions)} different versions" if len(versions) > 1 else "",
        ]
        notes.append(
            f"Networks were measured {' and '.join(filter(None, different))}: their milliseconds "
            "cannot be compared directly, their measured speed-ups can, each of which is a ratio "
            "of one machine and one version."
        )
    return notes


def _measured_rows(
    comparison: Comparison, is_meant: Callable[[Row], bool] = lambda _: True
) -> list[Row]:
    """A row for each network that was measured, of those that are meant."""
    rows = (row for row in comparison.rows if row.get("latency_ms") is not None and is_meant(row))
    return list({row["key"]: row for row in rows}.values())


def _runtime(row: Row) -> str:
    """The runtime alone: "MNN 3.6.1" of "MNN 3.6.1, 1 thread, batch 1"."""
    return str(row["measured_with"]).partition(", ")[0]


def _listed(rows: Iterable[Row], column: str) -> str:
    """The different values of a column, in words."""
    return _in_words(row[column] for row in rows if row.get(column) is not None)


def _in_words(values: Iterable[str]) -> str:
    """What is different among these: "a, b and c"."""
    different = list(dict.fromkeys(values))
    names = different[:MOST_NAMES]
    more = [f"{len(different) - len(names)} more"] if len(different) > len(names) else []
    *others, last = [*names, *more] or [""]
    return f"{', '.join(others)} and {last}" if others else last
