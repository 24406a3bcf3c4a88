"""Drivers beside each other, and after each other: of one study, and of two that share a stage."""

import signal

import pytest
from disturbed import (
    assert_same,
    drivers,
    opened,
    statuses,
    wait_until_gone,
    write_study,
)
from ray_nodes import MARK, end_processes

from rayprune.config import load_study
from rayprune.results.files import stage_lease_file
from rayprune.results.lease import read_lease
from rayprune.trials import make_trials

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
DENSE = 150  # epochs: long enough for two Rays to start


@pytest.fixture
def start():
    with drivers() as started:
        yield started


@pytest.fixture
def study(small, tmp_path):
    """Write a study of one long dense run, in a storage that others may share; return its file."""

    def write(name="small_study", schedule="llr", below=".", epochs=DENSE):
        folder = tmp_path / below
        folder.mkdir(exist_ok=True)
        retrain = {"epochs": 1, "schedule": schedule}
        experiment = {**small, "dense": {"epochs": epochs}, "retrain": retrain}
        return write_study(folder, experiment, scaling={"slots": 1}, name=name)

    return write


def dense_key(file):
    return make_trials(load_study(file))[0].plan[0].key


def holder_of_the_dense_run(file):
    return read_lease(stage_lease_file(load_study(file).storage, dense_key(file)))


def has_begun(file):
    lease = holder_of_the_dense_run(file)
    return (
        lease is not None and lease.owner == f"{load_study(file).storage}/{load_study(file).name}"
    )


def test_a_second_driver_is_sent_away_and_takes_over_once_the_first_is_killed(study, start):
    file = study()
    first = start(file)
    first.wait_until(lambda: has_begun(file))
    second = start(file)
    refusal = second.finish(2)
    print(f"sent away after {second.seconds:.1f} s")
    assert "small_study is in use by process" in refusal and "wait until it is done" in refusal
    assert first.process.poll() is None

    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    third = start(file)
    third.finish()
    wait_until_gone(first)
    wait_until_gone(third)
    calm = study(below="calm")
    start(calm, "--local").finish()
    assert_same(file, calm)


def test_two_studies_run_the_stage_that_they_share_once(study, start):
    files = [study(), study("other_study", "allr")]
    assert dense_key(files[0]) == dense_key(files[1])
    both = [start(file) for file in files]
    for driver in both:
        driver.finish()
    summaries = [opened(file).comparison.summary for file in files]
    assert [summary.unique_epochs for summary in summaries] == [DENSE + 1, DENSE + 1]
    assert sum(summary.executed_epochs for summary in summaries) == DENSE + 2


def test_a_study_takes_over_the_stage_of_another_that_died(study, start):
    """And goes on from the last epoch that the other one kept."""
    files = [study(epochs=6 * DENSE), study("other_study", "allr", epochs=6 * DENSE)]
    first = start(files[0])
    first.wait_until(lambda: has_begun(files[0]))
    second = start(files[1])
    second.wait_until(lambda: second.processes("RayTrainWorker"))
    assert has_begun(files[0])
    end_processes(MARK, first.mark)
    second.finish()
    summary = opened(files[1]).comparison.summary
    assert statuses(files[1]) == ["finished"]
    assert summary.executed_epochs < summary.unique_epochs
