"""Whichever use of the storage fails, and however: a clean restart ends as an undisturbed run."""

import hashlib
import json
import multiprocessing
import signal
from collections import Counter
from contextlib import suppress

import pytest
from made_records import record

from rayprune.results import faults, storage
from rayprune.results.files import epoch_file
from rayprune.results.stages import LostSnapshotError, load_content, read_manifest, save_stage
from rayprune.results.storage import StorageError, read_bytes, write_bytes

FORK = multiprocessing.get_context("fork")
USES = ["storage.read", "storage.write", "storage.written", "storage.delete"]
POINTS = [*USES, "stage.content_written", "stage.manifest_written"]


def result_of(key):
    """What stage `key` computes: its content, and its record."""
    return f"content of {key}, ".encode() * 20, record(key=key)


def compute(folder, key):
    """Run a stage of two epochs from where it was left, and keep it."""
    file = epoch_file(folder, key)
    found = read_bytes(file) or b""
    progress = found[32:] if hashlib.sha256(found[32:]).digest() == found[:32] else b""
    if progress not in (b"", b"one epoch of " + key.encode()):
        raise AssertionError(f"went on from {progress!r}")
    if not progress:
        progress = b"one epoch of " + key.encode()
        write_bytes(file, hashlib.sha256(progress).digest() + progress)
    content, made = result_of(key)
    save_stage(folder, key, content, [made], [{"loss": 0.2}, {"loss": 0.1}])


def take(folder, key):
    """A stage's content and manifest, computed unless the storage has them."""
    while True:
        try:
            if read_manifest(folder, key) is None:
                compute(folder, key)
            return load_content(folder, key), read_manifest(folder, key)
        except LostSnapshotError:
            continue


def run(folder):
    """Two stages, of which a former version of the first lies there already."""
    save_stage(folder, "a", b"as it was before", [record(key="a")])
    compute(folder, "a")
    return [take(folder, key) for key in "ab"]


def restart(folder):
    """After a trouble: what is there may be the first or the second version of stage a."""
    (content, manifest), b = (take(folder, key) for key in "ab")
    assert content in (b"as it was before", result_of("a")[0])
    assert manifest.sha256 == hashlib.sha256(content).hexdigest()
    assert len(manifest.history) == (0 if content == b"as it was before" else 2)
    return b


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The result of a calm run, and how often it comes by each point."""
    calm = pytest.MonkeyPatch()
    with calm.context() as patch:
        patch.setattr(faults, "_times", Counter())
        patch.setenv(faults.VARIABLE, "[]")
        result = run(str(tmp_path_factory.mktemp("calm")))
        return result, {at: faults._times[at, None] for at in POINTS}


def every(undisturbed, points):
    times = undisturbed[1]
    assert all(times[at] for at in points), times
    return [(at, nth) for at in points for nth in range(1, times[at] + 1)]


def disturb(monkeypatch, **fault):
    monkeypatch.setattr(storage, "WAITS_S", (0,))
    monkeypatch.setattr(faults, "_times", Counter())
    monkeypatch.setenv(faults.VARIABLE, json.dumps([fault]))


@pytest.mark.parametrize("do", ["full", "unavailable", "torn"])
def test_a_use_that_fails_is_an_error_of_the_storage_and_nothing_else(
    do, undisturbed, tmp_path, monkeypatch
):
    for at, nth in every(undisturbed, USES if do != "torn" else ["storage.write"]):
        folder = str(tmp_path / f"{at}-{nth}")
        disturb(monkeypatch, at=at, do=do, nth=nth, last=nth + 1)
        with suppress(StorageError):
            assert run(folder) == undisturbed[0]
        monkeypatch.delenv(faults.VARIABLE)
        assert restart(folder) == undisturbed[0][1], (at, nth)


def test_a_use_that_fails_once_is_not_noticed(undisturbed, tmp_path, monkeypatch):
    for at, nth in every(undisturbed, USES):
        disturb(monkeypatch, at=at, do="unavailable", nth=nth)
        assert run(str(tmp_path / f"{at}-{nth}")) == undisturbed[0]


def test_a_process_that_is_killed_anywhere_leaves_what_a_restart_needs(
    undisturbed, tmp_path, monkeypatch
):
    for at, nth in every(undisturbed, POINTS):
        folder = str(tmp_path / f"{at}-{nth}")
        disturb(monkeypatch, at=at, do="kill", nth=nth)
        process = FORK.Process(target=run, args=(folder,))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL, (at, nth)
        monkeypatch.delenv(faults.VARIABLE)
        assert restart(folder) == undisturbed[0][1], (at, nth)
