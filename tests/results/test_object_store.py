"""On S3 every request costs time and money: as few as can be, and no copies."""

import time

import pytest
import torch
from made_records import record

import rayprune as rp
from rayprune.config import Study
from rayprune.results import lease, storage
from rayprune.results.files import best_folder, dense_folder, epoch_file, study_lease_file
from rayprune.results.lease import LeaseHeldError, held, take
from rayprune.results.recorder import Recorder
from rayprune.results.stages import (
    LostSnapshotError,
    finished_records,
    load_content,
    read_manifest,
    read_manifests,
    save_stage,
)
from rayprune.results.storage import StorageError, delete, modified, read_bytes, write_bytes
from rayprune.snapshot import Snapshot, encode
from rayprune.trials import make_trials

pytest.importorskip("moto")
from made_object_store import object_store

NUM_TRIALS = 200


@pytest.fixture(scope="module")
def server():
    with object_store() as server:
        yield server


@pytest.fixture
def store(server, request):
    """The server as it notes this test's requests alone, in a folder of its own."""
    server.requests.clear()
    server.uri = f"s3://bucket/{request.node.name.partition('[')[0]}"
    yield server
    server.latency_s, server.errors = 0, []


def objects(store):
    """Sizes of all objects below the store's folder, by their names there."""
    fs, path = storage._open(store.uri)
    found = fs.get_file_info(storage.pafs.FileSelector(path, recursive=True))
    return {info.path.removeprefix(f"{path}/"): info.size for info in found if info.is_file}


def contents_read(store):
    return [r.path for r in store.requests if r.method == "GET" and "safetensors" in r.path]


def test_what_is_written_is_what_is_read(store):
    file = f"{store.uri}/folder/a b%41"
    assert read_bytes(file) is None and modified(file) is None
    for content in (b"content", b"", b"x" * 20_000_000):
        write_bytes(file, content)
        assert read_bytes(file) == content and modified(file) is not None
    assert read_bytes(f"{store.uri}/folder") is None
    delete(file)
    delete(file)
    assert read_bytes(file) is None


def test_a_write_is_one_request_and_leaves_one_object(store):
    write_bytes(f"{store.uri}/deep/folder/a", b"content")
    assert [(r.method, r.is_copy) for r in store.requests] == [("PUT", False)]
    write_bytes(f"{store.uri}/deep/folder/a", b"other")
    assert store.methods() == {"PUT": 2}
    assert objects(store) == {"deep/folder/a": 5}


def test_a_stage_is_a_content_and_a_manifest(store):
    save_stage(store.uri, "k", b"content", [record()])
    found = read_manifest(store.uri, "k")
    assert {*objects(store)} == {f"stages/k/{found.sha256}.safetensors", "stages/k/snapshot.json"}
    puts = [r.path.rpartition("/")[2] for r in store.requests if r.method == "PUT"]
    assert puts == [f"{found.sha256}.safetensors", "snapshot.json"]
    assert {*store.methods()} <= {"PUT", "HEAD", "GET"}
    assert load_content(store.uri, "k") == b"content"


def test_the_epoch_file_and_an_old_content_go_when_a_stage_is_done_once_more(store):
    write_bytes(epoch_file(store.uri, "k"), b"progress")
    save_stage(store.uri, "k", b"content", [record()])
    save_stage(store.uri, "k", b"other", [record()])
    assert load_content(store.uri, "k") == b"other"
    assert len(objects(store)) == 2 and store.methods()["COPY"] == 0


def test_a_content_that_is_gone_no_longer_counts(store):
    save_stage(store.uri, "k", b"content", [record()])
    (content,) = (name for name in objects(store) if "safetensors" in name)
    delete(f"{store.uri}/{content}")
    with pytest.raises(LostSnapshotError):
        load_content(store.uri, "k")
    assert finished_records(store.uri, "k") is None


def test_whether_stages_are_finished_is_asked_without_their_contents(store):
    keys = [f"{number:02d}" for number in range(30)]
    for key in keys[::2]:
        save_stage(store.uri, key, b"content", [record(key=key)])
    store.requests.clear()
    assert [finished_records(store.uri, key) is not None for key in keys] == [True, False] * 15
    assert contents_read(store) == [] and store.methods()["GET"] == 15
    one_by_one = store.methods()
    store.requests.clear()
    assert [*map(bool, read_manifests(store.uri, keys).values())] == [True, False] * 15
    assert store.methods() == one_by_one


def test_a_bucket_that_is_not_there_is_told_at_once(store):
    with pytest.raises(StorageError, match=r"cannot write s3://nowhere/a .*bucket does not exist"):
        write_bytes("s3://nowhere/a", b"x")
    assert len(store.requests) == 1


def test_a_server_in_trouble_is_asked_again(store, monkeypatch):
    monkeypatch.setattr(storage, "WAITS_S", (0,))
    store.errors = ["503 SlowDown"] * 33  # Arrow gives up after 31
    write_bytes(f"{store.uri}/a", b"content")
    assert store.errors == [] and objects(store) == {"a": 7}


USES = [lambda file: write_bytes(file, b"content"), read_bytes, modified, delete]


@pytest.mark.parametrize("use", USES, ids=["write", "read", "modified", "delete"])
def test_a_server_that_refuses_is_asked_once(use, store):
    store.errors = ["403 AccessDenied"] * 2
    with pytest.raises(StorageError, match=f"cannot .* {store.uri}/a.*ACCESS_DENIED"):
        use(f"{store.uri}/a")
    assert len(store.errors) == 1


def test_a_lease_is_held_until_it_is_released(store, monkeypatch):
    monkeypatch.setattr(lease, "SETTLE_S", 0)
    file = study_lease_file(f"{store.uri}/study")
    with held(file, "study"), pytest.raises(LeaseHeldError):
        take(file, "other")
    assert take(file, "other")
    assert objects(store).keys() == {"study/running.json"}


@pytest.fixture
def finished(store):
    """A study of 200 trials that share a dense run, with every stage in the store."""
    sparsities = [0.9 + number / 1000 for number in range(NUM_TRIALS // 2)]
    space = {"prune.sparsity": {"grid": sparsities}, "retrain.epochs": {"grid": [1, 2]}}
    fields = {"name": "s", "search": {"space": space}, "storage": store.uri}
    study = Study.model_validate(fields)
    trials = make_trials(study)
    weight = torch.randn(100, 100)
    for number, trial in enumerate(trials):
        chain = []
        for stage in trial.plan:
            metrics = {"val_accuracy": 0.5 + stage.cycle * number / 1000, "val_loss": 0.1}
            chain.append(record(key=stage.key, cycle=stage.cycle, metrics=metrics))
            snapshot = Snapshot({"weight": weight}, {"weight": weight > 0}, tuple(chain))
            if stage.cycle or number == 0:
                save_stage(store.uri, stage.key, encode(snapshot), chain)
    store.requests.clear()
    return study, trials


def test_a_study_that_is_finished_downloads_the_best_and_its_dense_one_once(
    finished, store, capsys
):
    study, trials = finished
    assert len(trials) == NUM_TRIALS
    recorder = Recorder(study, trials)
    assert recorder.pending == () and contents_read(store) == []
    told = [f"Recorder of {NUM_TRIALS} finished trials: {store.said()}"]
    store.requests.clear()
    results = rp.run(study)
    assert len(contents_read(store)) == 2
    for folder in (best_folder(results.folder), dense_folder(results.folder)):
        assert read_bytes(f"{folder}/provenance.json") is not None
    told.append(f"run, best/ and dense/ written: {store.said()}")
    store.requests.clear()
    assert rp.run(study).table.equals(results.table)
    assert contents_read(store) == [] and store.methods()["PUT"] == 0
    told.append(f"run once more: {store.said()}")
    with capsys.disabled():
        print("", *told, sep="\n  ")


def test_manifests_are_read_side_by_side(store, capsys):
    keys = [str(number) for number in range(40)]
    for key in keys:
        save_stage(store.uri, key, b"content", [record(key=key)])
    store.latency_s = 0.05
    start = time.monotonic()
    one_by_one = {key: read_manifest(store.uri, key) for key in keys}
    between = time.monotonic()
    assert read_manifests(store.uri, keys) == one_by_one
    end = time.monotonic()
    with capsys.disabled():
        print(f"\n  40 manifests at 50 ms: {between - start:.1f} s, {end - between:.1f} s together")
