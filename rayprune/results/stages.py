"""Results of stages, durable: the content first, then the manifest that makes it count."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from rayprune.results.files import epoch_file, snapshot_file, snapshot_manifest
from rayprune.results.record import StageRecord, record_from_json, record_to_json
from rayprune.results.storage import delete, read_bytes, write_bytes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Manifest:
    sha256: str
    """Of the content."""
    records: tuple[StageRecord, ...]


class LostSnapshotError(Exception):
    """A stage counted as done, but its content is missing or damaged: it is to be run again."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def save_stage(storage: str, key: str, content: bytes, records: Sequence[StageRecord]) -> None:
    """Make a stage's result durable. Raises ``StorageError``."""
    write_bytes(snapshot_file(storage, key), content)
    manifest = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "records": [record_to_json(r) for r in records],
    }
    write_bytes(snapshot_manifest(storage, key), json.dumps(manifest).encode())
    delete(epoch_file(storage, key))


def finished_records(storage: str, key: str) -> tuple[StageRecord, ...] | None:
    """The records that led to a stage that is done, its own last; None if it is not done.

    Asks the manifest alone, whatever the size of the weights. Raises ``StorageError``.
    """
    manifest = _manifest(storage, key)
    return None if manifest is None else manifest.records


def load_content(storage: str, key: str) -> bytes:
    """The bytes of a stage that is done.

    Raises ``LostSnapshotError`` where they are missing or do not match their checksum. The stage
    then no longer counts as done, so that whoever asks next runs it again; ``StorageError``.
    """
    manifest = _manifest(storage, key)
    content = None if manifest is None else read_bytes(snapshot_file(storage, key))
    if manifest is None:
        raise LostSnapshotError(key)
    if content is None or hashlib.sha256(content).hexdigest() != manifest.sha256:
        what = "missing" if content is None else "damaged"
        log.warning("%s is %s: computing it again", snapshot_file(storage, key), what)
        delete(snapshot_manifest(storage, key))
        raise LostSnapshotError(key)
    return content


def _manifest(storage: str, key: str) -> _Manifest | None:
    file = snapshot_manifest(storage, key)
    content = read_bytes(file)
    if content is None:
        return None
    try:
        raw = json.loads(content)
        return _Manifest(raw["sha256"], tuple(map(record_from_json, raw["records"])))
    except (ValueError, KeyError, TypeError):
        # Cut off by a crash of the storage, or of another version: as good as not written.
        log.warning("%s cannot be read: computing the stage again", file)
        return None
