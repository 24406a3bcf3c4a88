"""A stage counts once it is whole; what is damaged is computed again, never handed out."""

import hashlib
import json
import logging
import math
import os

import pytest
from made_records import record

from rayprune.results import faults, stages, storage
from rayprune.results.files import epoch_file, snapshot_file
from rayprune.results.stages import (
    LostSnapshotError,
    finished_records,
    load_content,
    read_manifest,
    read_manifests,
    save_stage,
)
from rayprune.results.storage import StorageError, read_bytes, write_bytes


@pytest.fixture
def fault(monkeypatch):
    """Lets something go wrong from here on, as RAYPRUNE_FAULTS does; the waits are none."""
    monkeypatch.setattr(storage, "WAITS_S", ())

    def set_fault(*points, do="unavailable"):
        monkeypatch.setattr(faults, "_times", type(faults._times)())
        monkeypatch.setenv(faults.VARIABLE, json.dumps([{"at": at, "do": do} for at in points]))

    return set_fault


def contents(tmp_path):
    """Names of the contents of stage k."""
    return {file.name for file in (tmp_path / "stages" / "k").glob("*.safetensors")}


def name_of(content):
    return f"{hashlib.sha256(content).hexdigest()}.safetensors"


def content_of(tmp_path):
    """The file of stage k's only content."""
    (file,) = (tmp_path / "stages" / "k").glob("*.safetensors")
    return file


def manifest_of(tmp_path):
    return tmp_path / "stages" / "k" / "snapshot.json"


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
    assert contents(tmp_path) == {name_of(b"content")}


def test_a_manifest_has_the_metrics_of_every_epoch(tmp_path):
    history = [{"val_loss": 0.2, "train_loss": 1}, {"val_loss": math.inf}]
    save_stage(str(tmp_path), "k", b"content", [record(key="d"), record()], history)
    found = read_manifest(str(tmp_path), "k")
    assert found.sha256 == hashlib.sha256(b"content").hexdigest()
    assert found.records == (record(key="d"), record()) and found.history == tuple(history)
    save_stage(str(tmp_path), "k", b"content", [record(lr_peak=math.nan)])
    found = read_manifest(str(tmp_path), "k")
    assert math.isnan(found.records[0].lr_peak) and found.history == ()


def test_what_cannot_be_read_again_is_not_written(tmp_path):
    """It would run the stage for ever."""
    with pytest.raises(ValueError, match="history"):
        save_stage(str(tmp_path), "k", b"content", [record()], [{"val_loss": "0.2"}])
    assert not manifest_of(tmp_path).exists()


def test_whether_it_is_finished_is_asked_of_the_manifest_alone(tmp_path, monkeypatch):
    save_stage(str(tmp_path), "k", b"content", [record()])
    content_of(tmp_path).unlink()
    read = []
    monkeypatch.setattr(stages, "read_bytes", lambda uri: read.append(uri) or read_bytes(uri))
    assert finished_records(str(tmp_path), "k") == (record(),)
    assert [os.path.basename(uri) for uri in read] == ["snapshot.json"]


def test_many_manifests_are_those_that_are_read_one_by_one(tmp_path):
    keys = [str(number) for number in range(40)]
    for key in keys[::2]:
        save_stage(str(tmp_path), key, key.encode(), [record(key=key)])
    found = read_manifests(str(tmp_path), keys)
    assert found == {key: read_manifest(str(tmp_path), key) for key in keys}
    assert [key for key in keys if found[key]] == keys[::2]
    assert read_manifests(str(tmp_path), []) == {}


@pytest.mark.parametrize("damage", ["cut off", "changed", "deleted"])
def test_a_damaged_snapshot_no_longer_counts(damage, tmp_path, caplog):
    storage = str(tmp_path)
    save_stage(storage, "k", b"content", [record(metrics={"loss": math.nan})])
    file = content_of(tmp_path)
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


def without(name):
    return lambda raw: {k: v for k, v in raw.items() if k != name}


def with_record(**fields):
    return lambda raw: {**raw, "records": [{**raw["records"][0], **fields}]}


@pytest.mark.parametrize(
    "damage",
    [
        *map(without, ["version", "sha256", "records", "history"]),
        *(lambda raw, v=v: {**raw, "sha256": v} for v in (1, None, "..", ["a"], "a" * 65)),
        *(lambda raw, v=v: {**raw, "version": v} for v in (0, 2, "1", None)),
        *(lambda raw, v=v: {**raw, "records": v} for v in (1, {}, [], [1], [[]], [{}], "a")),
        *(lambda raw, v=v: {**raw, "history": v} for v in (1, {}, [1], [{"a": "b"}], [[["a", 1]]])),
        with_record(stage=1),
        with_record(cycle="0"),
        with_record(metrics=[0.1]),
        with_record(emptied_layers="ab"),
        lambda raw: {**raw, "more": 1},
        lambda raw: [raw],
        lambda raw: [],
        lambda raw: "k",
        lambda raw: None,
    ],
)
def test_a_manifest_of_another_shape_does_not_count(damage, tmp_path, caplog):
    save_stage(str(tmp_path), "k", b"content", [record()])
    file = manifest_of(tmp_path)
    file.write_text(json.dumps(damage(json.loads(file.read_bytes()))))
    with caplog.at_level(logging.WARNING):
        assert finished_records(str(tmp_path), "k") is None
    assert [r.getMessage() for r in caplog.records] == [
        f"{file} cannot be read: computing the stage again"
    ]
    with pytest.raises(LostSnapshotError):
        load_content(str(tmp_path), "k")
    save_stage(str(tmp_path), "k", b"content", [record()])
    assert load_content(str(tmp_path), "k") == b"content"


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-3],
        lambda content: content + b"x",
        lambda content: b"",
        lambda content: b"\0" * len(content),
        lambda content: b"\xff\xfe",
        lambda content: b"[" * 100_000,
        lambda content: content.replace(b'"cycle"', b'"stage"'),  # as an older version wrote it
    ],
)
def test_a_manifest_that_is_damaged_does_not_count(damage, tmp_path, caplog):
    save_stage(str(tmp_path), "k", b"content", [record()])
    file = manifest_of(tmp_path)
    file.write_bytes(damage(file.read_bytes()))
    assert finished_records(str(tmp_path), "k") is None
    assert str(file) in caplog.text
    with pytest.raises(LostSnapshotError):
        load_content(str(tmp_path), "k")


def test_two_that_finish_a_stage_with_different_bits_leave_one_of_the_two(tmp_path, monkeypatch):
    """Each writes its content first: whichever manifest is last has its own beside it."""

    def other_finishes(point):
        monkeypatch.setattr(stages, "reach", lambda at: None)
        save_stage(str(tmp_path), "k", b"other", [record(epochs=5)])

    monkeypatch.setattr(stages, "reach", other_finishes)
    save_stage(str(tmp_path), "k", b"content", [record()])
    assert load_content(str(tmp_path), "k") == b"content"
    assert finished_records(str(tmp_path), "k") == (record(),)


def test_a_content_that_no_manifest_names_any_more_is_deleted(tmp_path):
    save_stage(str(tmp_path), "k", b"content", [record()])
    save_stage(str(tmp_path), "k", b"other", [record(epochs=5)])
    assert contents(tmp_path) == {name_of(b"other")}
    save_stage(str(tmp_path), "k", b"other", [record(epochs=5)])
    assert load_content(str(tmp_path), "k") == b"other"


def test_who_reads_while_a_stage_is_finished_once_more_gets_the_new_content(tmp_path, monkeypatch):
    save_stage(str(tmp_path), "k", b"content", [record()])

    def finish_first(uri):
        if uri.endswith(name_of(b"content")):
            save_stage(str(tmp_path), "k", b"other", [record()])
        return read_bytes(uri)

    monkeypatch.setattr(stages, "read_bytes", finish_first)
    assert load_content(str(tmp_path), "k") == b"other"


def test_a_stage_is_done_although_its_leftovers_cannot_be_deleted(tmp_path, fault, caplog):
    save_stage(str(tmp_path), "k", b"content", [record()])
    write_bytes(epoch_file(str(tmp_path), "k"), b"progress")
    fault("storage.delete")
    save_stage(str(tmp_path), "k", b"content", [record()])
    assert load_content(str(tmp_path), "k") == b"content"
    assert f"cannot delete {epoch_file(str(tmp_path), 'k')}" in caplog.text


@pytest.mark.parametrize("point", ["stage.content_written", "storage.write"])
def test_a_stage_that_could_not_be_kept_does_not_count(point, tmp_path, fault):
    write_bytes(epoch_file(str(tmp_path), "k"), b"progress")
    fault(point)
    with pytest.raises(OSError, match="503"):
        save_stage(str(tmp_path), "k", b"content", [record()])
    assert finished_records(str(tmp_path), "k") is None
    assert read_bytes(epoch_file(str(tmp_path), "k")) == b"progress"


def test_a_torn_content_never_counts(tmp_path, fault):
    fault("storage.write", do="torn")
    with pytest.raises(StorageError):
        save_stage(str(tmp_path), "k", b"content", [record()])
    assert read_bytes(snapshot_file(str(tmp_path), "k", name_of(b"content")[:64])) == b"con"
    assert finished_records(str(tmp_path), "k") is None
    save_stage(str(tmp_path), "k", b"content", [record()])
    assert load_content(str(tmp_path), "k") == b"content"
