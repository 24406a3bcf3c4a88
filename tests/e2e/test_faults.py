"""Processes that die or hang, disks that are full: a study ends as if nothing had happened."""

import time

import pytest
from disturbed import (
    TWO_RANKS,
    assert_same,
    drivers,
    happened,
    once,
    opened,
    statuses,
    stopped_processes,
    wait_until_gone,
    write_study,
)
from ray_nodes import ray_nodes

pytestmark = pytest.mark.timeout(900)

SPACE = {"retrain.schedule": {"grid": ["llr", "allr"]}, "retrain.epochs": {"grid": [1, 2]}}


@pytest.fixture
def start():
    with drivers() as started:
        yield started


@pytest.fixture(scope="module")
def calm(small, tmp_path_factory):
    """workers -> the file of a study that ran with so many, undisturbed."""
    files = {}

    def run(workers):
        if workers not in files:
            folder = tmp_path_factory.mktemp("calm")
            files[workers] = write_study(folder, small, SPACE, {"workers": workers})
            with drivers() as started:
                launcher = TWO_RANKS if workers == 2 else ("-m",)
                started(files[workers], "--local", launcher=launcher).finish()
        return files[workers]

    return run


def test_one_of_two_ranks_that_dies_costs_no_trial(small, tmp_path, start, calm):
    """Rank 1 dies in the second epoch of the dense run, and rank 0 waits for it in vain."""
    file = write_study(tmp_path, small, SPACE, {"workers": 2})
    faults = once(tmp_path, {"at": "stage.epoch", "do": "kill", "who": "rank 1", "nth": 2})
    output = start(file, faults=faults).finish()
    assert happened(faults)
    assert "goes on after 1 of 3 epochs" in output
    assert_same(file, calm(2))


@pytest.mark.slow
def test_either_rank_dies_anywhere_and_no_trial_fails(small, tmp_path, start, calm):
    file = write_study(tmp_path, small, SPACE, {"workers": 2, "max_failures": 6})
    faults = once(
        tmp_path,
        {"at": "serve.before_stage", "do": "kill", "who": "rank 1"},
        {"at": "run.before_checkpoint", "do": "kill"},
        {"at": "stage.epoch", "do": "kill", "who": "rank 0", "nth": 2},
        {"at": "stage.content_written", "do": "kill"},
        {"at": "serve.before_stage", "do": "kill", "who": "rank 0", "nth": 3},
    )
    start(file, faults=faults).finish()
    assert happened(faults)
    assert_same(file, calm(2))


@pytest.mark.slow
def test_a_worker_that_dies_anywhere_changes_no_bit(small, tmp_path, start, calm):
    file = write_study(tmp_path, small, SPACE, {"slots": 1, "max_failures": 10})
    points = [
        "serve.before_stage",
        "run.before_checkpoint",
        "run.after_checkpoint",
        "serve.before_epoch_done",
        "stage.content_written",
        "stage.manifest_written",
        "serve.before_finished",
        "serve.after_finished",
    ]
    faults = once(tmp_path, *({"at": point, "do": "kill"} for point in points))
    start(file, faults=faults).finish()
    assert happened(faults)
    assert_same(file, calm(1))
    summary = opened(file).comparison.summary
    assert summary.executed_epochs <= summary.unique_epochs + 1, "one epoch had no checkpoint"


@pytest.mark.slow
def test_the_ledger_and_the_slots_themselves_may_die(small, tmp_path, start, calm):
    file = write_study(tmp_path, small, SPACE, {"slots": 1})
    faults = once(
        tmp_path,
        {"at": "slot.before_fit", "do": "kill"},
        {"at": "ledger.before_finished", "do": "kill"},
        {"at": "ledger.after_finished", "do": "kill"},
    )
    start(file, faults=faults).finish()
    assert happened(faults)
    assert_same(file, calm(1))


@pytest.mark.slow
def test_a_stopped_worker_loses_its_stage_to_another_slot(small, tmp_path, start, calm):
    """It neither dies nor says anything: 20 s later it is given up, and ended."""
    file = write_study(tmp_path, small, SPACE, {"slots": 2})
    faults = once(tmp_path, {"at": "stage.epoch", "do": "stop", "nth": 2})
    driver = start(file, faults=faults)
    driver.wait_until(lambda: happened(faults))
    stopped = time.monotonic()
    driver.wait_until(lambda: "its workers were silent for" in driver.output)
    print(f"wanted again {time.monotonic() - stopped:.1f} s after it stopped")
    driver.wait_until(lambda: not stopped_processes(driver))
    print(f"ended {time.monotonic() - stopped:.1f} s after it stopped")
    output = driver.finish()
    print(f"the study ended {time.monotonic() - stopped:.1f} s after it stopped")
    wait_until_gone(driver)
    assert "the dense run goes on after 1 of 3 epochs" in output
    summary = opened(file).comparison.summary
    assert summary.executed_epochs == summary.unique_epochs
    assert_same(file, calm(1))


@pytest.mark.slow
def test_a_full_disk_and_a_store_in_trouble_cost_a_worker_and_no_trial(small, tmp_path, start):
    """The worker's 20th write is a checkpoint of the dense run, the others are of its end."""
    long = {**small, "dense": {"epochs": 30}}
    (tmp_path / "calm").mkdir()
    calm = write_study(tmp_path / "calm", long, SPACE)
    start(calm, "--local").finish()
    file = write_study(tmp_path, long, SPACE, {"slots": 1, "max_failures": 6})
    faults = once(
        tmp_path,
        {"at": "storage.write", "do": "full", "nth": 20},
        {"at": "storage.write", "do": "torn", "nth": 22},
        {"at": "stage.content_written", "do": "full"},
        {"at": "stage.content_written", "do": "unavailable", "nth": 2},
    )
    passing = [{"at": "storage.read", "do": "unavailable", "nth": 2, "last": 4}]
    start(file, faults=faults + passing).finish()
    assert happened(faults)
    assert_same(file, calm)


@pytest.mark.slow
def test_a_driver_whose_disk_is_full_says_so_and_goes_on_when_it_is_not(
    small, tmp_path, start, calm
):
    """Full from its first write on; started again, from its second on; until none is left to fail.

    The workers belong to a Ray that was started before, and have a disk that is not full.
    """
    file = write_study(tmp_path, small, SPACE, {"slots": 1})
    (tmp_path / "nodes").mkdir()
    with ray_nodes(tmp_path / "nodes") as nodes:
        nodes.add(1)
        code, first = 1, 1
        while code == 1:
            faults = [{"at": "storage.write", "do": "full", "nth": first, "last": 1000}]
            driver = start(file, faults=faults, **nodes.environment)
            code = driver.process.wait(timeout=200)
            print(f"full from write {first} on: exit code {code} after {driver.seconds:.0f} s")
            assert "Traceback" not in driver.output, driver.output
            assert code == 0 or "the disk is full" in driver.output
            first += 1
    assert first > 4, "study.yaml, the leases, the word for the nodes, the table"
    assert_same(file, calm(1))


@pytest.mark.slow
def test_an_object_store_without_room_slows_a_study_down_and_nothing_else(small, tmp_path, start):
    """Snapshots of 100 MB, a store of 75 MB, and a disk on which Ray may not spill."""
    (tmp_path / "mine.py").write_text(WIDE)
    wide = {**small, "model": {"target": "mine:wide"}, "dense": {"epochs": 1}}
    file = write_study(tmp_path, {**wide, "retrain": {"epochs": 1}}, scaling={"slots": 1})
    no_room = {
        "RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": "78643200",
        "RAY_local_fs_capacity_threshold": "0.0",
    }
    start(file, **no_room).finish()
    assert statuses(file) == ["finished"]


WIDE = """
from torch import nn


def wide(num_classes, in_channels):
    hidden = 32_000
    layers = nn.Linear(28 * 28 * in_channels, hidden), nn.ReLU(), nn.Linear(hidden, num_classes)
    return nn.Sequential(nn.Flatten(), *layers)
"""
