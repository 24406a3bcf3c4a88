"""Why a slot's workers ended, in words for people."""

import pytest
import ray
from ray.train import WorkerGroupError

from rayprune.distributed.slots import MetAloneError, _reason
from rayprune.results.storage import StorageError

TRACEBACK = "Traceback (most recent call last):\n  File x, line 1\nKeyError: 'a'\n"


def ended(failures):
    return _reason(WorkerGroupError("text", failures))


def test_a_dead_process_counts_more_than_what_the_others_met_of_it():
    failures = {0: RuntimeError("gloo: closed by peer"), 1: ray.exceptions.ActorDiedError()}
    assert ended(failures).startswith("the process of rank 1 died")


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (StorageError("cannot write a: the disk is full"), "cannot write a: the disk is full"),
        (MetAloneError("TypeError: no (mine.py, line 2)"), "TypeError: no (mine.py, line 2)"),
        (RuntimeError("gloo: closed\nby peer"), "RuntimeError: gloo: closed"),
        (AssertionError(), "AssertionError"),
        (RuntimeError(TRACEBACK), "KeyError: 'a'"),
    ],
)
def test_an_error_is_one_line_that_tells_its_kind_unless_it_tells_all(failure, words):
    assert ended({1: failure}) == f"rank 1: {words}"


def test_what_ends_ray_trains_controller_is_told_too():
    error = RuntimeError("outside")
    error.controller_failure = TimeoutError("no workers within 30 s")
    assert _reason(error) == "no workers within 30 s"
