"""What was measured of a network is kept beside its stage, and read as it was, or not at all."""

import json
from dataclasses import asdict, replace

import made_studies as made
import pytest
from made_records import record

from rayprune.config import Measure
from rayprune.results.files import measurement_file, snapshot_manifest
from rayprune.results.measurement import (
    Measurement,
    Measurements,
    read_measurement,
    read_measurements,
    write_measurement,
)
from rayprune.results.stages import save_stage
from rayprune.results.storage import StorageError, delete

MNN = Measure(runtime="mnn")
MADE = made.measurement()


@pytest.fixture
def storage(tmp_path):
    return str(tmp_path)


def keep(storage, *keys):
    for key in keys:
        save_stage(storage, key, b"weights", [record(key=key)])


def test_what_is_written_is_read(storage):
    assert read_measurement(storage, "k", MNN) is None
    write_measurement(storage, "k", MNN, MADE)
    assert read_measurement(storage, "k", MNN) == MADE
    assert (measurement_file(storage, "k", MNN)) == f"{storage}/stages/k/measured-mnn-1-1.json"


def test_each_way_to_measure_has_a_file_of_its_own(storage):
    ways = [MNN, Measure(runtime="onnx"), Measure(runtime="mnn", threads=2)]
    ways.append(Measure(runtime="mnn", batch=2))
    for number, way in enumerate(ways, start=1):
        write_measurement(storage, "k", way, replace(MADE, latency_ms=float(number)))
    found = [read_measurement(storage, "k", way) for way in ways]
    assert [measurement.latency_ms for measurement in found] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        json.dumps(asdict(MADE))[:-9].encode(),
        json.dumps({**asdict(MADE), "latency_ms": "2"}).encode(),
        json.dumps({**asdict(MADE), "latency_ms": float("nan")}).encode(),
        json.dumps({**asdict(MADE), "watts": 2}).encode(),
    ],
    ids=["empty", "no text", "a list", "cut off", "text", "no number", "another version"],
)
def test_a_damaged_or_foreign_file_is_named_and_measured_again(content, storage, tmp_path, caplog):
    write_measurement(storage, "k", MNN, MADE)
    file = tmp_path / "stages" / "k" / "measured-mnn-1-1.json"
    file.write_bytes(content)
    assert read_measurement(storage, "k", MNN) is None
    assert str(file) in caplog.text and len(caplog.records) == 1


@pytest.mark.parametrize("wrong", [{"latency_ms": 0.0}, {"file_mb": float("nan")}])
def test_what_no_measurement_is_is_not_written(wrong, storage):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        write_measurement(storage, "k", MNN, replace(MADE, **wrong))
    assert read_measurement(storage, "k", MNN) is None


def test_many_are_read_at_once(storage):
    for key in ("a", "c"):
        write_measurement(storage, key, MNN, MADE)
    assert read_measurements(storage, ["a", "b", "c"], MNN) == {"a": MADE, "c": MADE}


def test_what_is_known_and_what_is_missing(storage):
    keep(storage, "a", "b", "c")
    write_measurement(storage, "b", MNN, MADE)
    measurements = Measurements(storage, MNN)
    assert measurements.missing(["c", "a", "b"]) == ["c", "a"]
    measurements.add("a", MADE)
    assert measurements.known(["a", "b", "c"]) == {"a": MADE, "b": MADE}
    assert measurements.missing(["c", "a", "b"]) == ["c"]


def test_a_network_that_was_cleared_away_is_not_waited_for(storage):
    keep(storage, "a", "b")
    delete(snapshot_manifest(storage, "a"))
    assert Measurements(storage, MNN).missing(["a", "b"]) == ["b"]


def test_the_storage_is_asked_once_for_each(storage, monkeypatch):
    keep(storage, "a", "b")
    asked = []

    def read(storage, key, measure):
        asked.append(key)
        return None

    monkeypatch.setattr("rayprune.results.measurement.read_measurement", read)
    measurements = Measurements(storage, MNN)
    for keys in (["a"], ["a"], ["a", "b"]):
        measurements.known(keys)
        measurements.missing(keys)
    assert asked == ["a", "b"]
    without = Measurements(storage, None)
    assert without.missing(["a", "c"]) == [] and without.known(["a", "c"]) == {}
    assert asked == ["a", "b"]


def test_trouble_of_the_storage_is_told_and_asked_again(storage, monkeypatch):
    keep(storage, "a")
    measurements = Measurements(storage, MNN)

    def fail(storage, key, measure):
        raise StorageError("the server does not answer")

    with monkeypatch.context() as patched:
        patched.setattr("rayprune.results.measurement.read_measurement", fail)
        with pytest.raises(StorageError):
            measurements.missing(["a"])
    assert measurements.missing(["a"]) == ["a"]


def test_its_fields_are_plain_numbers_and_words():
    assert all(isinstance(value, float | str) for value in asdict(MADE).values())
    assert isinstance(MADE, Measurement)
