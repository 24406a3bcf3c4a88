"""The results table: a row for each trial and finished stage, and how every trial stands."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rayprune.results.files import table_file
from rayprune.results.measurement import Measurement
from rayprune.results.outcome import StudySummary, TrialOutcome, TrialStatus
from rayprune.results.record import record_to_json
from rayprune.results.storage import read_bytes, write_bytes

TABLE_KEY = b"rayprune"  # schema metadata, as JSON: the summary, and the status of every trial


def make_table(
    outcomes: Sequence[TrialOutcome],
    executed_for: Mapping[str, str],
    summary: StudySummary,
    measured: Mapping[str, Measurement] | None = None,
) -> pa.Table:
    """A row for each trial and stage that is done.

    `executed_for` maps the key of each stage that ran here to the trial that it ran for. A trial
    without a finished stage has no row; its status and reason are in the table's metadata. What was
    `measured` of a stage stands in the rows of dense runs and in the last ones of finished trials.
    """
    rows = [row for outcome in outcomes for row in _rows(outcome, executed_for, measured or {})]
    names = dict.fromkeys(name for row in rows for name in row)
    table = pa.table({name: _column([row.get(name) for row in rows]) for name in names})
    status_fields = [field.name for field in fields(TrialStatus)]
    trials = [{name: getattr(o, name) for name in status_fields} for o in outcomes]
    return table.replace_schema_metadata(
        {TABLE_KEY: json.dumps({**asdict(summary), "trials": trials}).encode()}
    )


def write_table(folder: str, table: pa.Table) -> None:
    """Write results.parquet. Raises ``StorageError``."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    write_bytes(table_file(folder), buffer.getvalue().to_pybytes())


def read_table(folder: str) -> pa.Table:
    """The table in a study's folder. Raises ``ValueError`` if there is none of ours."""
    content = read_bytes(table_file(folder))
    if content is None:
        raise ValueError(f"no results in {folder}: {table_file(folder)} is missing")
    try:
        # From Arrow's own buffer and without its threads: one that still held a Python file as the
        # process ended would abort it.
        table = pq.ParquetFile(pa.BufferReader(content), pre_buffer=False).read(use_threads=False)
    except (pa.ArrowException, OSError) as error:  # a damaged one, in Arrow's many words
        raise ValueError(f"{table_file(folder)} is not a Parquet table: {error}") from None
    if TABLE_KEY not in (table.schema.metadata or {}):
        raise ValueError(f"{table_file(folder)} was not written by rayprune")
    return table


def measurements_in(table: pa.Table) -> dict[str, Measurement]:
    """What a table says was measured: a stage's key -> its measurement."""
    names = [field.name for field in fields(Measurement)]
    if not {"key", *names} <= {*table.column_names}:
        return {}
    rows = table.select(["key", *names]).to_pylist()
    return {row.pop("key"): Measurement(**row) for row in rows if row["latency_ms"] is not None}


def read_metadata(table: pa.Table) -> tuple[StudySummary, tuple[TrialStatus, ...]]:
    """The summary, and how every trial stands; their records are the rows.

    Raises ``ValueError`` if the table is not one of ours.
    """
    try:
        raw = json.loads((table.schema.metadata or {})[TABLE_KEY])
        trials = raw.pop("trials")
        names = ("searched", "metrics", "modes", "lower_is_better", "untuned", "tuned")
        lists = {name: tuple(raw[name]) for name in names}
        summary = StudySummary(**{**raw, **lists})
        statuses = tuple(_status(**trial) for trial in trials)
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            "the table carries no summary of a study: not written by this version of rayprune"
        ) from None
    return summary, statuses


def _status(*, reported: Sequence[Mapping[str, float]], **fields: Any) -> TrialStatus:
    return TrialStatus(**fields, reported=tuple(reported))


def _rows(
    outcome: TrialOutcome, executed_for: Mapping[str, str], measured: Mapping[str, Measurement]
) -> list[dict[str, Any]]:
    rows = []
    whole = [record for record in outcome.records if record.part_of is None]
    for record in outcome.records:
        columns = record_to_json(record)
        metrics = columns.pop("metrics")
        del columns["preprocessing"]  # is in every snapshot and provenance, and no number
        columns["emptied_layers"] = ", ".join(record.emptied_layers)
        before = sum(r.epochs for r in whole if r.cycle < record.cycle)
        is_final = outcome.status == "finished" and record is outcome.records[-1]
        is_dense = record.cycle == 0 and record.part_of is None
        known = measured.get(record.key) if is_final or is_dense else None
        row = {
            "trial": outcome.name,
            "status": outcome.status,
            "method": outcome.method,
            **({"phase": outcome.phase} if outcome.phase else {}),
            "is_final": is_final,
            "executed": executed_for.get(record.key) == outcome.name,
            "total_epochs": before + record.epochs,
        }
        deployed = {} if known is None else asdict(known)
        own = {"seed": outcome.seed, **outcome.values}
        rows.append({**row, **columns, **metrics, **deployed, **own})
    return rows


def _column(values: list[Any]) -> pa.Array:
    """Arrow's own type, or text where a searched field mixes kinds (a list and a name, say)."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if v is None else json.dumps(v) for v in values])
