"""Results tables as studies would leave them, made by formula: no network is trained here."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from rayprune.results.files import study_file
from rayprune.results.measurement import Measurement
from rayprune.results.outcome import Status, StudySummary, TrialOutcome
from rayprune.results.record import StageRecord
from rayprune.results.storage import write_bytes
from rayprune.results.table import TABLE_KEY, make_table, write_table

DENSE_EPOCHS, NUM_PARAMETERS, FLOPS = 12, 853_018, 125_485_696
# Points of accuracy that a schedule loses at 95 % after one epoch of retraining.
LOSS = {"ft": 0.031, "lrw": 0.022, "slr": 0.012, "clr": 0.011, "llr": 0.010, "allr": 0.008}
METHOD_LOSS = {
    "imp": 0.008, "gmp": 0.009, "gsm": 0.02, "lc": 0.024, "dpf": 0.007,
    "dnw": 0.013, "str": 0.016, "cs": 0.018, "dst": 0.022, "rigl": 0.015,
}  # fmt: skip


def record(
    cycle: int,
    *,
    key: str,
    accuracy: float,
    sparsity: float = 0.0,
    goal: float | None = None,
    pruned: float | None = None,
    epochs: int = DENSE_EPOCHS,
    schedule: str = "stepped",
    ds: tuple[float, float] | None = None,
    tested: bool = True,
) -> StageRecord:
    """A record of a stage in which all numbers fit each other."""
    metrics = {"val_accuracy": accuracy, "val_loss": 0.25 - math.log(accuracy)}
    if pruned is not None:
        metrics |= {"pruned_val_accuracy": pruned, "pruned_val_loss": 0.4 - math.log(pruned)}
    if tested:
        metrics |= {"test_accuracy": accuracy - 0.004, "test_loss": 0.27 - math.log(accuracy)}
    nonzero = round(NUM_PARAMETERS * (1 - sparsity))
    kept_flops = round(FLOPS * (1 - sparsity) ** 0.85)
    d = min(1.0, max(ds)) if ds else None
    return StageRecord(
        key=key,
        cycle=cycle,
        epochs=epochs,
        schedule=schedule,
        lr_peak=0.1 * (d or 1.0),
        d1=ds[0] if ds else None,
        d2=ds[1] if ds else None,
        d=d,
        goal_sparsity=sparsity if goal is None else goal,
        sparsity=sparsity,
        num_parameters=NUM_PARAMETERS,
        num_nonzero=nonzero,
        compression=NUM_PARAMETERS / nonzero,
        flops=FLOPS,
        flops_nonzero=kept_flops,
        theoretical_speedup=FLOPS / kept_flops,
        weights_from=f"before-{key}" if cycle else None,
        metrics=metrics,
        seconds=4.0 * epochs,
        samples_per_second=11_000.0,
    )


def dense(seed: int, accuracy: float = 0.894) -> StageRecord:
    """A dense run; its accuracy depends on the seed alone."""
    return record(0, key=f"dense-{seed}", accuracy=accuracy + _noise("dense", seed), tested=False)


def imp(
    name: str,
    values: Mapping[str, Any],
    *,
    schedule: str = "allr",
    epochs: int = 1,
    sparsity: float = 0.95,
    cycles: int = 1,
    seed: int = 0,
    points_lost: float | None = None,
) -> TrialOutcome:
    """The dense run and `cycles` cycles; `points_lost` sets the final accuracy."""
    start = dense(seed)
    records = [start]
    for cycle in range(1, cycles + 1):
        reached = 1 - (1 - sparsity) ** (cycle / cycles)
        hardness = ((1 - 0.95) / (1 - reached)) ** 0.75
        lost = LOSS[schedule] * hardness / epochs**0.6 + _noise(
            schedule, epochs, sparsity, seed, cycle
        )
        lost = lost if points_lost is None else points_lost
        accuracy = start.metrics["val_accuracy"] - lost
        ds = (min(0.95, 0.3 + 0.6 * reached), epochs / DENSE_EPOCHS) if schedule == "allr" else None
        records.append(
            record(
                cycle,
                key=f"{schedule}-{epochs}-{sparsity}-{cycles}-{cycle}-{seed}",
                accuracy=accuracy,
                pruned=max(0.1, accuracy * (1 - reached**6)),
                sparsity=reached,
                epochs=epochs,
                schedule=schedule,
                ds=ds,
                tested=cycle == cycles,
            )
        )
    return finished(name, values, "imp", seed, records)


def sparsifier(
    name: str, values: Mapping[str, Any], *, method: str, sparsity: float, seed: int, reached: float
) -> TrialOutcome:
    """A method that sparsifies during training: one stage, no dense run of its own."""
    lost = METHOD_LOSS[method] * (0.05 / (1 - sparsity)) ** 0.8 + _noise(method, sparsity, seed)
    stage = record(
        0,
        key=f"{method}-{sparsity}-{seed}",
        accuracy=0.894 - lost,
        sparsity=reached,
        goal=sparsity,
        epochs=DENSE_EPOCHS + 3,
    )
    return finished(name, values, method, seed, [stage])


def finished(
    name: str, values: Mapping[str, Any], method: str, seed: int, records: Sequence[StageRecord]
) -> TrialOutcome:
    """A trial whose every stage is done."""
    return TrialOutcome(
        name=name,
        status="finished",
        values=values,
        method=method,
        seed=seed,
        records=tuple(records),
    )


def ended(
    name: str, status: Status, reason: str = "", records: Sequence[StageRecord] = ()
) -> TrialOutcome:
    """A trial without a result; `records` are of the stages that were done."""
    return TrialOutcome(
        name=name,
        status=status,
        reason=reason,
        values={},
        method="imp",
        seed=0,
        records=tuple(records),
    )


def table_of(trials: Sequence[TrialOutcome], searched: Sequence[str], **summary: Any) -> pa.Table:
    """The table of these trials; every unique stage was run once, for the first that wanted it.

    `summary` replaces fields of the study's summary.
    """
    executed_for: dict[str, str] = {}
    epochs: dict[str, int] = {}
    for trial in trials:
        for stage in trial.records:
            executed_for.setdefault(stage.key, trial.name)
            epochs[stage.key] = stage.epochs
    made = StudySummary(
        name="made",
        metrics=("val_accuracy",),
        modes=("max",),
        within_dense=None,
        searched=tuple(searched),
        executed_epochs=sum(epochs.values()),
        unique_epochs=sum(epochs.values()),
        naive_epochs=sum(stage.epochs for trial in trials for stage in trial.records),
    )
    return make_table(trials, executed_for, replace(made, **summary))


def schedules_grid(*others: TrialOutcome, **summary: Any) -> pa.Table:
    """6 schedules x 2 retraining budgets at one sparsity, one seed; and `others`."""
    points = [(schedule, epochs) for schedule in LOSS for epochs in (1, 3)]
    trials = [
        imp(f"{n:02d}", {"retrain.schedule": s, "retrain.epochs": e}, schedule=s, epochs=e)
        for n, (s, e) in enumerate(points)
    ]
    return table_of([*trials, *others], ["retrain.schedule", "retrain.epochs"], **summary)


def brought(trained_epochs: int | None = 12, **summary: Any) -> pa.Table:
    """A network that was trained elsewhere: FT and ALLR, two budgets, two sparsities, one seed."""
    trials = []
    points = [(s, e, p) for s in ("ft", "allr") for e in (1, 3) for p in (0.9, 0.95)]
    names = ("retrain.schedule", "retrain.epochs", "prune.sparsity")
    for n, point in enumerate(points):
        schedule, epochs, sparsity = point
        values = dict(zip(names, point, strict=True))
        trial = imp(str(n), values, schedule=schedule, epochs=epochs, sparsity=sparsity)
        start, cycle = trial.records
        start = replace(start, epochs=0, schedule="none", lr_peak=None, seconds=0.0)
        d2 = None if trained_epochs is None else epochs / trained_epochs
        cycle = replace(cycle, d2=d2) if schedule == "allr" else cycle
        trials.append(replace(trial, records=(start, cycle)))
    return table_of(trials, names, **summary)


def of_own_task(higher: str = "r2", lower: str = "rmse", **summary: Any) -> pa.Table:
    """Two schedules at two sparsities and two seeds, measured by a task of the user's.

    What is called `higher` is the accuracy of `imp`, and `lower` is 3 less of it.
    """
    names = {"accuracy": lambda value: {higher: value, lower: 3 - value}, "loss": lambda value: {}}
    trials = []
    points = [(s, p, seed) for s in ("ft", "allr") for p in (0.9, 0.98) for seed in (0, 1)]
    for n, (schedule, sparsity, seed) in enumerate(points):
        values = {"retrain.schedule": schedule, "prune.sparsity": sparsity, "seed": seed}
        trial = imp(str(n), values, schedule=schedule, sparsity=sparsity, seed=seed)
        records = tuple(
            replace(
                each,
                metrics={
                    f"{when}_{name}": value
                    for metric, known in each.metrics.items()
                    for when, _, of in [metric.rpartition("_")]
                    for name, value in names[of](known).items()
                },
            )
            for each in trial.records
        )
        trials.append(replace(trial, records=records))
    own = {"lower_is_better": ("loss", lower), **summary}
    return table_of(trials, ["retrain.schedule", "prune.sparsity", "seed"], **own)


def equal_budget(**summary: Any) -> pa.Table:
    """10 methods x 3 sparsities x 3 seeds at 15 epochs each; DST misses its goal."""
    trials = []
    points = [(m, s, seed) for m in METHOD_LOSS for s in (0.9, 0.95, 0.98) for seed in range(3)]
    for n, (method, sparsity, seed) in enumerate(points):
        values = {"method": method.upper(), "prune.sparsity": sparsity, "seed": seed}
        if method == "imp":
            values["method"] = "ALLR"
            trial = imp(f"{n:02d}", values, epochs=3, sparsity=sparsity, seed=seed)
        else:
            reached = 0.82 if method == "dst" else sparsity
            trial = sparsifier(
                f"{n:02d}", values, method=method, sparsity=sparsity, seed=seed, reached=reached
            )
        trials.append(trial)
    return table_of(trials, ["method", "prune.sparsity", "seed"], **summary)


def schedules_and_sparsities(seeds: int = 3) -> pa.Table:
    """3 schedules x 3 retraining budgets x 3 sparsities, each with several seeds."""
    points = [
        (schedule, epochs, sparsity, seed)
        for schedule in ("ft", "slr", "allr")
        for epochs in (1, 3, 6)
        for sparsity in (0.9, 0.95, 0.98)
        for seed in range(seeds)
    ]
    names = ("retrain.schedule", "retrain.epochs", "prune.sparsity", "seed")
    trials = [
        imp(
            f"{n:02d}",
            dict(zip(names, (schedule, epochs, sparsity, seed), strict=True)),
            schedule=schedule,
            epochs=epochs,
            sparsity=sparsity,
            seed=seed,
        )
        for n, (schedule, epochs, sparsity, seed) in enumerate(points)
    ]
    return table_of(trials, names)


def cycles() -> pa.Table:
    """ALLR in 2, 3 and 5 cycles to 98 %, two seeds."""
    points = [(cycles, seed) for cycles in (2, 3, 5) for seed in (0, 1)]
    trials = [
        imp(str(n), {"prune.cycles": c, "seed": s}, cycles=c, epochs=2, sparsity=0.98, seed=s)
        for n, (c, s) in enumerate(points)
    ]
    return table_of(trials, ["prune.cycles", "seed"])


def one_trial(cycles: int = 1) -> pa.Table:
    """What ``rayprune.train`` leaves: nothing was searched."""
    return table_of([imp("0", {}, epochs=2, cycles=cycles)], [])


def tuned() -> pa.Table:
    """Two rates of each schedule tried on seeds 7 and 8, the second better; it ran on 3 seeds."""
    trials = []
    for schedule, rates in {"allr": (0.1, 0.2), "slr": (0.4, 0.3)}.items():
        losses = zip(rates, (0.03, 0.001), strict=True)
        points = [(lr, seed, lost, "tune") for lr, lost in losses for seed in (7, 8)]
        points += [(rates[1], seed, 0.01 + seed / 1000, "report") for seed in (0, 1, 2)]
        for lr, seed, lost, phase in points:
            values = {"retrain.schedule": schedule, "optim.lr": lr, "seed": seed}
            name = f"{len(trials)}"
            trial = imp(name, values, schedule=schedule, seed=seed, points_lost=lost)
            trials.append(replace(renamed(trial), phase=phase))
    searched = ["retrain.schedule", "optim.lr", "seed"]
    return table_of(trials, searched, tuned=("optim.lr",), tuning_epochs=104)


def random_search(trials: int = 300) -> pa.Table:
    """Random sparsities and weight decays, every point different."""
    draw = random.Random(0)
    made = []
    for n in range(trials):
        sparsity, decay = draw.uniform(0.8, 0.99), 10 ** draw.uniform(-5, -3)
        schedule, epochs = draw.choice(list(LOSS)), draw.randint(1, 6)
        values = {
            "retrain.schedule": schedule,
            "retrain.epochs": epochs,
            "prune.sparsity": sparsity,
            "optim.weight_decay": decay,
        }
        made.append(imp(f"{n:03d}", values, schedule=schedule, epochs=epochs, sparsity=sparsity))
    searched = ["retrain.schedule", "retrain.epochs", "prune.sparsity", "optim.weight_decay"]
    return table_of(made, searched)


def searcher(trials: int = 40, **summary: Any) -> pa.Table:
    """What a searcher leaves: continuous points, a field that only some have, and three points
    that cannot be run, without a plan."""
    draw = random.Random(1)
    made = []
    searched = ["prune.sparsity", "optim.lr", "retrain.schedule", "retrain.lr", "retrain.epochs"]
    for n in range(trials):
        sparsity, lr, epochs = draw.uniform(0.8, 0.99), 10 ** draw.uniform(-3, -0.5), 1 + n % 6
        schedule = draw.choice(["llr", "allr"])
        own = draw.uniform(0.01, 0.1) if schedule == "llr" else None
        values = dict(zip(searched, (sparsity, lr, schedule, own, epochs), strict=True))
        lost = 0.01 * (0.05 / (1 - sparsity)) ** 0.75 / epochs**0.6 + draw.uniform(0, 0.006)
        imp_trial = imp(
            f"{n:02d}",
            values,
            schedule=schedule,
            epochs=epochs,
            sparsity=sparsity,
            points_lost=lost,
        )
        made.append(imp_trial)
    reason = "prune.fraction_per_cycle=0.1 and 3 cycles do not reach prune.sparsity=0.95"
    made += [ended(str(trials + n), "failed", reason) for n in range(3)]
    return table_of(made, searched, **summary)


def measurement(sparsity: float = 0.95, **fields: Any) -> Measurement:
    """A network in MNN, the slower dense the less is at zero; dense, OpenVINO is faster."""
    latency = 0.7 + 4.2 * (1 - sparsity) ** 0.5
    made: dict[str, Any] = {
        "file_mb": 0.06 + 3.4 * (1 - sparsity) ** 0.8,
        "zlib_mb": 0.05 + 3.1 * (1 - sparsity) ** 0.9,
        "latency_ms": latency,
        "latency_spread_ms": 0.02 * latency,
        "dense_latency_ms": 4.0,
        "dense_runtime": "OpenVINO 2026.4",
        "measured_speedup": 4.0 / latency,
        "load_average": 0.3,
        "measured_with": "MNN 3.6.1, 1 thread, batch 1",
        "machine": "AMD EPYC 7R13",
    }
    return Measurement(**{**made, **fields})


def measured(table: pa.Table, measurements: Mapping[str, Measurement] | None = None) -> pa.Table:
    """The table with what was measured of every stage; `measurements` are what some are instead."""
    rows = [dict(row) for row in table.to_pylist()]
    for row in rows:
        if row["is_final"] or row["cycle"] == 0:
            noise = abs(_noise("measured", row["key"])) * (row["sparsity"] > 0)
            known = measurement(row["sparsity"] - noise)
            row |= asdict((measurements or {}).get(row["key"], known))
    names = dict.fromkeys(name for row in rows for name in row)
    made = pa.table({name: [row.get(name) for row in rows] for name in names})
    return made.replace_schema_metadata(table.schema.metadata)


def with_summary(table: pa.Table, **summary: Any) -> pa.Table:
    """The table of a study that differs in these fields of its summary."""
    raw = json.loads(table.schema.metadata[TABLE_KEY]) | summary
    return table.replace_schema_metadata({TABLE_KEY: json.dumps(raw).encode()})


def write(folder: Path, table: pa.Table, study: str = "name: made\n") -> Path:
    """A study's folder, as far as the report reads it."""
    write_bytes(study_file(str(folder)), study.encode())
    write_table(str(folder), table)
    return folder


def renamed(trial: TrialOutcome) -> TrialOutcome:
    """The trial with stages of its own, so that it shares none."""
    records = tuple(replace(r, key=f"{trial.name}-{r.key}") for r in trial.records)
    return replace(trial, records=records)


def _noise(*what: object, scale: float = 0.0012) -> float:
    return random.Random(repr(what)).gauss(0, scale)
