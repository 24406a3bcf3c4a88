"""What a storage holds is not run again; what it lost is, and ends the same."""

import logging
from pathlib import Path

import pytest
from made_plans import (
    WORKER,
    assert_equal,
    content_file,
    experiment,
    kept,
    run,
    run_until_killed,
)

from rayprune.plan import make_plan
from rayprune.results.files import epoch_file, snapshot_manifest
from rayprune.results.stages import LostSnapshotError, finished_records, load_content
from rayprune.snapshot import encode
from rayprune.training import run as module
from rayprune.training.run import dataset_of, failure_message, run_stage
from rayprune.training.worker import Worker


@pytest.fixture
def finished(small, tmp_path):
    """A plan of two cycles, run undisturbed: experiment, storage, last snapshot."""
    wanted = experiment(
        small, dense={"epochs": 2}, prune={"sparsity": 0.9, "cycles": 2}, retrain={"epochs": 1}
    )
    return wanted, str(tmp_path), run(wanted, tmp_path)[0]


def damage(file):
    content = bytearray(Path(file).read_bytes())
    content[len(content) // 2] ^= 1
    Path(file).write_bytes(content)


def remove(file):
    Path(file).unlink()


def test_what_is_kept_is_not_run_again(finished):
    wanted, storage, snapshot = finished
    again, executed = run(wanted, storage)
    assert executed == [] and encode(again) == encode(snapshot)


def test_only_the_last_snapshot_of_a_finished_plan_is_read(finished):
    """So the others may be gone."""
    wanted, storage, snapshot = finished
    for stage in make_plan(wanted)[:-1]:
        remove(content_file(storage, stage.key))
    again, executed = run(wanted, storage)
    assert executed == [] and encode(again) == encode(snapshot)


def test_a_new_stage_reads_the_snapshot_that_it_starts_from_and_no_other(finished):
    wanted, storage, snapshot = finished
    dense, first, last = make_plan(wanted)
    remove(content_file(storage, dense.key))
    remove(snapshot_manifest(storage, last.key))
    again, executed = run(wanted, storage)
    assert executed == [(2, 1)]
    assert_equal(again, snapshot)
    assert finished_records(storage, first.key) is not None


def test_a_plan_that_is_run_whole_reads_no_snapshot(small, tmp_path, monkeypatch):
    """It holds each one as long as a later stage needs it."""
    wanted = experiment(small, prune={"rewind": {"epoch": 1}, "cycles": 2}, retrain={"epochs": 1})

    def refuse(storage, key):
        raise AssertionError(f"{key} was read")

    monkeypatch.setattr(module, "load_content", refuse)
    assert run(wanted, tmp_path)[1] == [(0, 1), (0, 2), (0, 3), (1, 1), (2, 1)]


def test_a_stage_without_its_inputs_is_not_run_from_the_initial_weights(finished):
    """That would be kept under its key, and be wrong."""
    wanted, storage, _ = finished
    dense, cycle, _ = make_plan(wanted)
    remove(snapshot_manifest(storage, cycle.key))
    for inputs in ({}, {"other": kept(storage, dense.key)}):
        with pytest.raises(KeyError, match=dense.key):
            run_stage(wanted, cycle, inputs, WORKER, storage)
    assert finished_records(storage, cycle.key) is None


def test_a_dense_run_is_shared_by_experiments_that_differ_after_it(finished, small):
    _, storage, snapshot = finished
    other = experiment(small, dense={"epochs": 2}, prune={"sparsity": 0.5}, retrain={"epochs": 1})
    found, executed = run(other, storage)
    assert executed == [(1, 1)]
    assert found.records[0] == snapshot.records[0]


@pytest.mark.parametrize("harm", [damage, remove])
@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_snapshot_that_is_needed_is_computed_again_with_a_warning(
    lost, harm, finished, caplog
):
    wanted, storage, snapshot = finished
    plan = make_plan(wanted)
    file = content_file(storage, plan[lost].key)
    before = kept(storage, plan[lost].key)
    harm(file)
    for stage in plan[lost + 1 :]:
        remove(snapshot_manifest(storage, stage.key))
    with caplog.at_level(logging.WARNING):
        again, executed = run(wanted, storage)
    dense = [(0, 1), (0, 2)]
    assert executed == [dense, [(1, 1)]][lost] + [[(1, 1), (2, 1)], [(2, 1)]][lost]
    assert_equal(again, snapshot)
    assert_equal(kept(storage, plan[lost].key), before)
    what = "damaged" if harm is damage else "missing"
    assert [r.message for r in caplog.records] == [f"{file} is {what}: computing it again"]


@pytest.mark.parametrize("harm", [damage, remove])
def test_a_lost_end_is_computed_again_from_what_it_starts_from(harm, finished, caplog):
    wanted, storage, snapshot = finished
    harm(content_file(storage, make_plan(wanted)[-1].key))
    again, executed = run(wanted, storage)
    assert executed == [(2, 1)] and len(caplog.records) == 1
    assert_equal(again, snapshot)


def test_everything_lost_is_computed_again(finished):
    wanted, storage, snapshot = finished
    for stage in make_plan(wanted):
        damage(content_file(storage, stage.key))
    again, executed = run(wanted, storage)
    assert executed == [(0, 1), (0, 2), (1, 1), (2, 1)]
    assert_equal(again, snapshot)


@pytest.mark.parametrize("manifest", [b"", b'{"sha256": "0'])
def test_a_manifest_that_was_cut_off_is_none(manifest, finished):
    wanted, storage, snapshot = finished
    Path(snapshot_manifest(storage, make_plan(wanted)[-1].key)).write_bytes(manifest)
    again, executed = run(wanted, storage)
    assert executed == [(2, 1)]
    assert_equal(again, snapshot)


def test_a_lost_snapshot_no_longer_counts_as_done(finished):
    wanted, storage, _ = finished
    key = make_plan(wanted)[0].key
    damage(content_file(storage, key))
    assert finished_records(storage, key) is not None, "nobody has looked at it yet"
    with pytest.raises(LostSnapshotError) as caught:
        load_content(storage, key)
    assert caught.value.key == key
    assert finished_records(storage, key) is None


@pytest.mark.parametrize("harm", [damage, lambda file: Path(file).write_bytes(b"")])
def test_a_damaged_epoch_checkpoint_starts_its_stage_anew_with_a_warning(
    harm, small, tmp_path, caplog
):
    wanted = experiment(small, prune={"cycles": 0})
    undisturbed, _ = run(wanted, tmp_path / "undisturbed")
    run_until_killed(wanted, tmp_path / "killed", epochs=2)
    file = epoch_file(str(tmp_path / "killed"), make_plan(wanted)[0].key)
    harm(file)
    snapshot, executed = run(wanted, tmp_path / "killed")
    assert executed == [(0, 1), (0, 2), (0, 3)]
    assert_equal(snapshot, undisturbed)
    reason = "the epoch checkpoint does not match its checksum"
    said = [r.message for r in caplog.records]
    assert said == [f"{file}: {reason}; starting the stage anew"]


def test_methods_that_differ_in_a_cycle_alone_train_on_the_same_images(small):
    one, two = experiment(small), experiment(small, prune={"sparsity": 0.5})
    assert dataset_of(one) is dataset_of(two)


def test_a_dense_run_does_not_depend_on_what_its_trials_ignore(small, tmp_path):
    """It is shared: a pattern that matches nothing is one trial's mistake, in its own cycle."""
    wrong = experiment(small, prune={"sparsity": 0.9, "ignore": ["no_such_layer"]})
    with pytest.raises(ValueError, match=r"prune\.ignore must match.*'no_such_layer'"):
        run(wrong, tmp_path)
    dense = make_plan(experiment(small))[0]
    assert finished_records(str(tmp_path), dense.key) is not None


def test_a_batch_larger_than_the_data_is_told(small, tmp_path):
    with pytest.raises(ValueError, match=r"batch_size must be <= the 540 .*got 541.*Write 540"):
        run(experiment(small, batch_size=541), tmp_path)


@pytest.mark.parametrize(("batch", "workers", "write"), [(60, 8, 56), (3, 4, 4), (61, 2, 60)])
def test_a_batch_that_the_workers_cannot_share_is_told(batch, workers, write, small, tmp_path):
    wanted = experiment(small, batch_size=batch)
    with pytest.raises(ValueError) as caught:
        run_stage(wanted, make_plan(wanted)[0], {}, Worker(0, workers), str(tmp_path))
    text = str(caught.value)
    assert text.startswith("experiment.batch_size is the global batch")
    assert f"multiple of the {workers} workers, got {batch}. Write {write}" in text


def test_the_whole_data_may_be_one_batch(small, tmp_path):
    wanted = experiment(small, batch_size=540, dense={"epochs": 1}, prune={"cycles": 0})
    assert run(wanted, tmp_path)[1] == [(0, 1)]


def test_an_error_says_what_a_user_needs_to_know():
    assert failure_message(ValueError("seed must be >= 0")) == "seed must be >= 0"
    assert failure_message(OSError("no space")) == "no space"
    with pytest.raises(KeyError) as caught:
        {}["absent"]
    line = caught.value.__traceback__.tb_lineno
    assert failure_message(caught.value) == f"KeyError: 'absent' (test_run.py, line {line})"
    assert failure_message(RuntimeError("never raised")) == "RuntimeError: never raised"


def test_a_stage_of_no_use_to_the_last_one_is_not_run(finished):
    """A dense part, for example, of a run that is finished."""
    wanted, storage, snapshot = finished
    plan = make_plan(wanted, cut_dense_at=[1])
    assert finished_records(storage, plan[0].key) is None
    again, executed = run(wanted, storage, plan)
    assert executed == [] and encode(again) == encode(snapshot)
