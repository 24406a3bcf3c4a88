"""Results of stages, durable: the content first, then the manifest that makes it count."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, ClassVar, Final, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from rayprune.results.faults import reach
from rayprune.results.files import epoch_file, snapshot_file, snapshot_manifest
from rayprune.results.record import StageRecord
from rayprune.results.storage import (
    StorageError,
    delete,
    read_bytes,
    read_side_by_side,
    write_bytes,
)

log = logging.getLogger(__name__)

VERSION: Final = 1


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a stage that is done says of itself."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid", strict=True)

    version: Literal[1]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Of the content, and the name of its file."""
    records: Annotated[tuple[StageRecord, ...], Field(min_length=1)]
    """Of the stages that led to it, its own last."""
    history: tuple[Mapping[str, float], ...]
    """Metrics of every epoch of this stage, as far as they are known."""


_MANIFEST = TypeAdapter(Manifest)


class LostSnapshotError(Exception):
    """A stage counted as done, but its content is missing or damaged: it is to be run again."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def save_stage(
    storage: str,
    key: str,
    content: bytes,
    records: Sequence[StageRecord],
    history: Sequence[Mapping[str, float]] = (),
) -> None:
    """Make a stage's result durable; `history` has the metrics of each of its epochs.

    Raises ``StorageError`` if it is not durable.
    """
    sha256 = _sha256(content)
    manifest = Manifest(
        version=VERSION, sha256=sha256, records=tuple(records), history=tuple(history)
    )
    encoded = json.dumps(asdict(manifest)).encode()
    _MANIFEST.validate_json(encoded)  # one that no reader takes would run the stage for ever
    before = _content_named_so_far(storage, key)
    write_bytes(snapshot_file(storage, key, sha256), content)
    reach("stage.content_written")
    write_bytes(snapshot_manifest(storage, key), encoded)
    reach("stage.manifest_written")
    _delete_unneeded(epoch_file(storage, key))
    if before not in (None, sha256):
        _delete_unneeded(snapshot_file(storage, key, str(before)))


def read_manifest(storage: str, key: str) -> Manifest | None:
    """The manifest of a stage that is done; None if it is not. Raises ``StorageError``."""
    file = snapshot_manifest(storage, key)
    content = read_bytes(file)
    try:
        return None if content is None else _MANIFEST.validate_json(content)
    except ValueError:
        # Cut off by a crash of the storage, or of another version: as good as not written.
        log.warning("%s cannot be read: computing the stage again", file)
        return None


def read_manifests(storage: str, keys: Collection[str]) -> dict[str, Manifest | None]:
    """The manifests of many stages, by key. Raises ``StorageError``."""
    return read_side_by_side(lambda key: read_manifest(storage, key), keys)


def finished_records(storage: str, key: str) -> tuple[StageRecord, ...] | None:
    """The records that led to a stage that is done, its own last; None if it is not done.

    Asks the manifest alone, whatever the size of the weights. Raises ``StorageError``.
    """
    manifest = read_manifest(storage, key)
    return None if manifest is None else manifest.records


def load_content(storage: str, key: str) -> bytes:
    """The bytes of a stage that is done.

    Raises ``LostSnapshotError`` where they are missing or do not match their checksum. The stage
    then no longer counts as done, so that whoever asks next runs it again; ``StorageError``.
    """
    manifest = read_manifest(storage, key)
    while manifest is not None:
        file = snapshot_file(storage, key, manifest.sha256)
        content = read_bytes(file)
        if content is not None and _sha256(content) == manifest.sha256:
            return content
        read, manifest = manifest, read_manifest(storage, key)
        if manifest is not None and manifest.sha256 == read.sha256:  # else done once more meanwhile
            what = "missing" if content is None else "damaged"
            log.warning("%s is %s: computing it again", file, what)
            delete(snapshot_manifest(storage, key))
            break
    raise LostSnapshotError(key)


def _content_named_so_far(storage: str, key: str) -> str | None:
    """Hash of the content that the stage's manifest has named, if there is one to be read."""
    try:
        content = read_bytes(snapshot_manifest(storage, key))
        return None if content is None else _MANIFEST.validate_json(content).sha256
    except (ValueError, StorageError):
        return None


def _delete_unneeded(file: str) -> None:
    """What is done stays done, whether or not this can be deleted."""
    try:
        delete(file)
    except StorageError as error:
        log.warning("a file that nobody needs any more was left: %s", error)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
