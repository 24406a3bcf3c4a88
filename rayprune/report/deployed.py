"""What trained networks take as files in a runtime, in words."""

from __future__ import annotations

from collections.abc import Iterable

from rayprune.report.numbers import goal_value, percent, ratio
from rayprune.results.comparison import Comparison
from rayprune.results.labels import UNITS, Row, counted, is_dense
from rayprune.results.setting import Setting

MOST_NAMES = 3  # machines or versions in a sentence


def limits(comparison: Comparison) -> str:
    """The limits on what is measured: "5 ms and 2.5 MB"; empty without any."""
    within = comparison.summary.within.items()
    return " and ".join(f"{limit:g} {UNITS[column]}" for column, limit in within)


def measured_speedup(comparison: Comparison, setting: Setting) -> str:
    """A part of the answer: how much faster than dense, and in what; empty if not measured."""
    speedup, latency = setting.mean("measured_speedup"), setting.mean("latency_ms")
    dense = setting.mean("dense_latency_ms")
    if speedup is None or latency is None or dense is None:
        return ""
    here, there = (goal_value(comparison, "latency_ms", x) for x in (latency, dense))
    runtimes, used = (_listed(setting.finals, c) for c in ("dense_runtime", "measured_with"))
    times = ratio(speedup.value)
    said = f"{times} faster" if speedup.value > 1 else f"{times}, slower"
    said = "as fast as dense" if times == ratio(1) else said
    return f"measured {said} ({here} for {there} dense in {runtimes}) in {used}"


def dense_measured(comparison: Comparison) -> str:
    """A sentence on the dense network as a file; empty if it was not measured."""
    rows = [row for row in comparison.rows if is_dense(row) and row.get("latency_ms")]
    size, here, fastest = (
        comparison.dense_mean(column) for column in ("file_mb", "latency_ms", "dense_latency_ms")
    )
    if size is None or here is None or fastest is None:
        return ""
    megabytes = goal_value(comparison, "file_mb", size)
    times = [goal_value(comparison, "latency_ms", mean) for mean in (here, fastest)]
    used, runtimes = (_listed(rows, column) for column in ("measured_with", "dense_runtime"))
    return (
        f"The dense network as a file: {megabytes}, {times[0]} in {used}; its fastest runtime is "
        f"{runtimes}, {times[1]}"
    )


def unmeasured(comparison: Comparison) -> str:
    """How many finished networks are to be measured still; empty if none is."""
    if not comparison.summary.measure:
        return ""
    keys = {row["key"] for row in comparison.finals if row.get("latency_ms") is None}
    return f"{counted(len(keys), 'network')} not measured" if keys else ""


def ways(comparison: Comparison) -> str:
    """What networks were measured with: "MNN 3.6.1, 1 thread, batch 1"."""
    return _listed(_measured_rows(comparison), "measured_with")


def dense_runtimes(comparison: Comparison) -> str:
    """The runtimes in which dense networks are fastest."""
    return _listed(_measured_rows(comparison), "dense_runtime")


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
        f"is fastest for it ({dense_runtimes(comparison)}), take turns in one process. The "
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


def _measured_rows(comparison: Comparison) -> list[Row]:
    """A row for each network that was measured."""
    rows = {row["key"]: row for row in comparison.rows if row.get("latency_ms") is not None}
    return list(rows.values())


def _listed(rows: Iterable[Row], column: str) -> str:
    """The different values of a column, in words."""
    values = dict.fromkeys(row[column] for row in rows if row.get(column) is not None)
    names = list(values)[:MOST_NAMES]
    more = [f"{len(values) - len(names)} more"] if len(values) > len(names) else []
    *others, last = [*names, *more] or [""]
    return f"{', '.join(others)} and {last}" if others else last
