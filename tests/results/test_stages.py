"""A stage counts once it is whole; what is damaged is computed again, never handed out."""

import logging
import os

import pytest
from made_records import record

from rayprune.results.files import epoch_file
from rayprune.results.stages import (
    LostSnapshotError,
    finished_records,
    load_content,
    save_stage,
)
from rayprune.results.storage import read_bytes, write_bytes


def test_a_stage_counts_when_it_is_whole(tmp_path):
    storage = str(tmp_path)
    write_bytes(epoch_file(storage, "k"), b"progress")
    assert finished_records(storage, "k") is None
    with pytest.raises(LostSnapshotError):
        load_content(storage, "k")
    save_stage(storage, "k", b"content", [record()])
    assert load_content(storage, "k") == b"content"
    assert finished_records(storage, "k") == (record(),)
    assert read_bytes(epoch_file(storage, "k")) is None


def test_whether_it_is_finished_is_asked_of_the_manifest_alone(tmp_path, monkeypatch):
    save_stage(str(tmp_path), "k", b"content", [record()])
    (tmp_path / "stages" / "k" / "snapshot.safetensors").chmod(0)
    read = []
    monkeypatch.setattr(
        "rayprune.results.stages.read_bytes", lambda uri: read.append(uri) or read_bytes(uri)
    )
    assert finished_records(str(tmp_path), "k") == (record(),)
    assert [os.path.basename(uri) for uri in read] == ["snapshot.json"]


@pytest.mark.parametrize("damage", ["cut off", "changed", "deleted"])
def test_a_damaged_snapshot_no_longer_counts(damage, tmp_path, caplog):
    storage = str(tmp_path)
    save_stage(storage, "k", b"content", [record()])
    file = tmp_path / "stages" / "k" / "snapshot.safetensors"
    if damage == "deleted":
        file.unlink()
    else:
        file.write_bytes(b"conten" if damage == "cut off" else b"contend")
    with caplog.at_level(logging.WARNING), pytest.raises(LostSnapshotError) as caught:
        load_content(storage, "k")
    assert caught.value.key == "k"
    assert str(file) in caplog.text and "computing it again" in caplog.text
    assert finished_records(storage, "k") is None
    save_stage(storage, "k", b"content", [record()])
    assert load_content(storage, "k") == b"content"


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-3],
        lambda content: b"{}",
        lambda content: b"[1]",
        lambda content: content.replace(b'"cycle"', b'"stage"'),  # as an older version wrote it
    ],
)
def test_a_manifest_that_was_cut_off_or_is_of_another_version_does_not_count(damage, tmp_path):
    save_stage(str(tmp_path), "k", b"content", [record()])
    manifest = tmp_path / "stages" / "k" / "snapshot.json"
    manifest.write_bytes(damage(manifest.read_bytes()))
    assert finished_records(str(tmp_path), "k") is None
    with pytest.raises(LostSnapshotError):
        load_content(str(tmp_path), "k")
