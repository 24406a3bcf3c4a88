"""What a run leaves behind: a record for each stage, the table of all trials, and every file name.

    <storage>/stages/<key>/snapshot.safetensors   weights and masks after a stage, shared by studies
                           snapshot.json          its checksum and records, written last: it counts
                           epoch.safetensors      progress inside an unfinished stage
    <storage>/<name>/study.yaml                   the study as it was resolved
                     results.parquet              a row for each trial and stage
                     report.html, plots/          for people
                     best/                        the model to ship

The storage is a folder or any URI that ``pyarrow.fs`` opens (s3://, gs://).
"""

from __future__ import annotations

import errno
import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

TABLE_KEY = b"rayprune"  # schema metadata: what the study as a whole did, as JSON


class StorageError(OSError):
    """A result could not be written or read; the message says which file and why."""


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """What one stage did and reached; a row of the results table."""

    key: str
    parent: str | None
    stage: int
    epochs: int
    schedule: str
    lr_peak: float | None
    """Largest learning rate of the stage; None if it did not train."""
    d1: float | None
    d2: float | None
    d: float | None
    """ALLR's measured norm drop, its share of the dense epochs, and the factor on the peak."""
    goal_sparsity: float | None
    """None for methods that find their own sparsity."""
    sparsity: float
    """Zeros among the prunable weights."""
    num_parameters: int
    num_nonzero: int
    compression: float
    """num_parameters / num_nonzero."""
    flops: int
    """Multiply-adds of one image, convolution and linear layers."""
    flops_nonzero: int
    theoretical_speedup: float
    """flops / flops_nonzero (Blalock et al. 2020): an upper bound, not a measured time."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """val_… and test_… of the final weights, pruned_val_… before retraining."""
    emptied_layers: tuple[str, ...] = ()
    """Layers that lost all their weights."""
    batch_norm: str = "as trained"
    """Statistics used for pruned_…: as trained, or recalibrated."""
    seconds: float = 0.0
    images_per_second: float = 0.0
    workers: int = 1


def record_to_json(record: StageRecord) -> dict[str, Any]:
    """Plain JSON of a record."""
    return asdict(record)


def record_from_json(raw: Mapping[str, Any]) -> StageRecord:
    """The record that `record_to_json` wrote."""
    return StageRecord(**{**raw, "emptied_layers": tuple(raw["emptied_layers"])})


# ---- file names -------------------------------------------------------------------------------


def snapshot_file(storage: str, key: str) -> str:
    return f"{storage}/stages/{key}/snapshot.safetensors"


def snapshot_manifest(storage: str, key: str) -> str:
    return f"{storage}/stages/{key}/snapshot.json"


def epoch_file(storage: str, key: str) -> str:
    return f"{storage}/stages/{key}/epoch.safetensors"


def study_folder(storage: str, name: str) -> str:
    return f"{storage}/{name}"


def study_file(folder: str) -> str:
    return f"{folder}/study.yaml"


def table_file(folder: str) -> str:
    return f"{folder}/results.parquet"


def report_file(folder: str) -> str:
    return f"{folder}/report.html"


def plots_folder(folder: str) -> str:
    return f"{folder}/plots"


def best_folder(folder: str) -> str:
    return f"{folder}/best"


# ---- bytes on a file system -------------------------------------------------------------------


def read_bytes(uri: str) -> bytes | None:
    """Content of a file, or None if there is none. Raises ``StorageError``."""
    try:
        fs, path = pafs.FileSystem.from_uri(uri)
        if fs.get_file_info(path).type != pafs.FileType.File:
            return None
        with fs.open_input_stream(path) as stream:
            return stream.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot read {uri}: {error}") from error


def write_bytes(uri: str, content: bytes) -> None:
    """Write a file whole or not at all, with its folders. Raises ``StorageError``."""
    try:
        fs, path = pafs.FileSystem.from_uri(uri)
        fs.create_dir(path.rsplit("/", 1)[0], recursive=True)
        beside = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
        try:
            with fs.open_output_stream(beside) as stream:
                stream.write(content)
            fs.move(beside, path)
        except OSError:
            _delete(fs, beside)
            raise
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else str(error)
        raise StorageError(f"cannot write {uri} ({len(content)} bytes): {reason}") from error


def delete(uri: str) -> None:
    """Delete a file if it is there."""
    fs, path = pafs.FileSystem.from_uri(uri)
    _delete(fs, path)


def _delete(fs: pafs.FileSystem, path: str) -> None:
    if fs.get_file_info(path).type == pafs.FileType.File:
        fs.delete_file(path)


# ---- durable snapshots ------------------------------------------------------------------------


def save_snapshot(storage: str, key: str, content: bytes, records: Sequence[StageRecord]) -> None:
    """Make a stage's result durable: the content first, then the manifest that makes it count."""
    write_bytes(snapshot_file(storage, key), content)
    manifest = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "records": [record_to_json(r) for r in records],
    }
    write_bytes(snapshot_manifest(storage, key), json.dumps(manifest).encode())
    delete(epoch_file(storage, key))


def finished_records(storage: str, key: str) -> tuple[StageRecord, ...] | None:
    """Records of a stage that is done, without reading its weights; None if it is not done."""
    manifest = _manifest(storage, key)
    return None if manifest is None else tuple(map(record_from_json, manifest["records"]))


def load_snapshot(storage: str, key: str) -> bytes | None:
    """Content of a finished stage, or None if it is not done or does not match its checksum."""
    manifest = _manifest(storage, key)
    content = None if manifest is None else read_bytes(snapshot_file(storage, key))
    if manifest is None or content is None:
        return None
    return content if hashlib.sha256(content).hexdigest() == manifest["sha256"] else None


def _manifest(storage: str, key: str) -> dict[str, Any] | None:
    content = read_bytes(snapshot_manifest(storage, key))
    try:
        return None if content is None else json.loads(content)
    except ValueError:
        return None  # cut off by a crash of the storage: as good as not written


# ---- the table --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """A finished trial: its searched values, and the record of each of its stages."""

    name: str
    values: Mapping[str, Any]
    method: str
    seed: int
    records: tuple[StageRecord, ...]


def make_table(
    trials: Sequence[TrialResult], executed_by: Mapping[str, str], summary: Mapping[str, Any]
) -> pa.Table:
    """A row for each trial and stage; `executed_by` names the trial that a stage was run for."""
    rows = [
        _row(trial, position, executed_by)
        for trial in trials
        for position in range(len(trial.records))
    ]
    names = dict.fromkeys(name for row in rows for name in row)
    table = pa.table({name: _column([row.get(name) for row in rows]) for name in names})
    return table.replace_schema_metadata({TABLE_KEY: json.dumps(summary).encode()})


def write_table(folder: str, table: pa.Table) -> None:
    """Write results.parquet. Raises ``StorageError``."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    write_bytes(table_file(folder), buffer.getvalue().to_pybytes())


def read_table(folder: str) -> tuple[pa.Table, dict[str, Any]]:
    """The table and the study's summary. Raises ``ValueError`` if there is no table of ours."""
    content = read_bytes(table_file(folder))
    if content is None:
        raise ValueError(f"no results in {folder}: {table_file(folder)} is missing")
    try:
        # From Arrow's own buffer and without its threads: one that still held a Python file as the
        # process ended would abort it.
        table = pq.ParquetFile(pa.BufferReader(content), pre_buffer=False).read(use_threads=False)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{table_file(folder)} is not a Parquet table: {error}") from None
    metadata = table.schema.metadata or {}
    if TABLE_KEY not in metadata:
        raise ValueError(f"{table_file(folder)} was not written by rayprune")
    return table, json.loads(metadata[TABLE_KEY])


def _row(trial: TrialResult, position: int, executed_by: Mapping[str, str]) -> dict[str, Any]:
    record = trial.records[position]
    fields = record_to_json(record)
    metrics = fields.pop("metrics")
    fields["emptied_layers"] = ", ".join(record.emptied_layers)
    return {
        "trial": trial.name,
        "method": trial.method,
        "is_final": position == len(trial.records) - 1,
        "parent_key": fields.pop("parent"),
        "executed": executed_by.get(record.key) == trial.name,
        "total_epochs": sum(r.epochs for r in trial.records[: position + 1]),
        **fields,
        **metrics,
        "seed": trial.seed,
        **trial.values,
    }


def _column(values: list[Any]) -> pa.Array:
    """Arrow's own type, or text where a searched field mixes kinds (a list and a name, say)."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if v is None else json.dumps(v) for v in values])
