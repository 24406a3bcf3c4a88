"""Results of stages, durable: the content first, then the manifest that makes it count."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from rayprune.results.files import epoch_file, snapshot_file, snapshot_manifest
from rayprune.results.record import StageRecord, record_from_json, record_to_json
from rayprune.results.storage import delete, read_bytes, write_bytes


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
