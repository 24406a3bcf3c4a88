"""Processes that die or hang, disks that are full: a study ends as if nothing had happened."""

import pytest
from disturbed import TWO_RANKS, assert_same, drivers, happened, once, write_study

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
def test_a_worker_that_dies_anywhere_changes_no_bit(small, tmp_path, start, calm):
    file = write_study(tmp_path, small, SPACE, {"slots": 1, "max_failures": 10})
    points = [
        "serve.before_stage",
        "stage.epoch",
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
