"""A slot goes on over the deaths of its workers, and says in one line why they died."""

import os
import traceback
from types import SimpleNamespace

import pytest
import ray
from asked import Asked
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import (
    UserExceptionWithTraceback,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
)

from rayprune.config import Experiment, Scaling
from rayprune.distributed import slots as module
from rayprune.distributed.ledger import Ledger
from rayprune.distributed.slots import MAX_STARTS, MetAloneError, SlotsOfNode, _reason, resources_of
from rayprune.plan import make_plan
from rayprune.results.storage import StorageError

PLAN = make_plan(Experiment())
TAG = 77


@pytest.fixture
def ledger(monkeypatch):
    """A real one, asked as an actor, with work for a slot."""
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    deciding = Ledger(max_failures=-1)
    deciding.submit("a", Experiment(), PLAN)
    return Asked(deciding)


@pytest.fixture
def run(ledger, monkeypatch):
    """Run slot 0 over these lives of its workers, one after the other; return what happened.

    The last one ends in peace, as where its workers were told to stop.

    A life is called with the ledger and its number, and raises what Ray Train would raise.
    """
    happened = []
    monkeypatch.setattr(module, "TRAIN_SETTINGS", {})
    monkeypatch.setattr(module, "remove_groups", lambda tag: happened.append(f"removed {tag}"))

    def run(*lives):
        remaining = list(lives)

        def fit(slot, tag, place, scaling):
            happened.append("run")
            remaining.pop(0)(ledger.answering)

        monkeypatch.setattr(module, "_fit", fit)
        try:
            place = SimpleNamespace(ledger=ledger, has_dashboard=False)
            SlotsOfNode().run(0, TAG, place, Scaling())
        except RuntimeError as error:
            happened.append(str(error))
        assert not remaining
        return happened

    return run


def dies(ledger):
    """At work."""
    ledger.next_stage(ledger.join(0), 0)
    raise RuntimeError("killed")


def hangs(ledger):
    """Given up by the ledger before its run ends."""
    ledger.next_stage(ledger.join(0), 0)
    ledger.slot_lost(0, "no epoch ended within 600 s")
    raise RuntimeError("killed")


def does_not_start(ledger):
    raise RuntimeError("no package")


def ends_all_work(ledger):
    ledger.withdraw_all()
    ledger.close()


def test_workers_that_die_are_replaced_and_the_ledger_hears_why(run, ledger):
    lives = [dies] * (3 * MAX_STARTS)
    assert run(*lives, ends_all_work).count("run") == len(lives) + 1
    assert ledger.words.count(("slot_lost", 0, "RuntimeError: killed")) == len(lives)
    notes = ledger.answering.changes().notes
    assert notes == (
        "slot 0: RuntimeError: killed; the dense run goes on after 0 of 12 epochs",
    ) * len(lives)


def test_what_a_slot_held_is_given_back_before_each_run(run):
    happened = run(dies, does_not_start, ends_all_work)
    assert happened == [f"removed {TAG}", "run"] * 3


def test_a_slot_whose_workers_never_join_ends_and_says_why(run, ledger):
    *happened, error = run(*[does_not_start] * MAX_STARTS)
    assert happened.count("run") == MAX_STARTS
    assert error == "no workers could be started: RuntimeError: no package"
    assert ledger.answering.has_work(), "another slot may do it"


def test_workers_that_were_given_up_had_started(run, ledger):
    lives = [hangs] * (3 * MAX_STARTS)
    assert run(*lives, ends_all_work).count("run") == len(lives) + 1


def test_a_slot_waits_for_nodes_for_ever(run):
    def finds_no_room(ledger):
        raise ControllerError(WorkerGroupStartupTimeoutError(num_workers=1))

    lives = [finds_no_room] * (3 * MAX_STARTS)
    assert run(*lives, ends_all_work).count("run") == len(lives) + 1


def test_starts_count_anew_once_workers_have_joined(run):
    lives = [*[does_not_start] * (MAX_STARTS - 1), dies]
    assert run(*lives * 3, ends_all_work).count("run") == len(lives) * 3 + 1


def test_a_run_that_ends_in_peace_is_the_last(run, ledger):
    """Its workers were idle: when there is work again, another slot starts."""

    def is_idle(ledger):
        ledger.join(0)

    assert run(dies, is_idle).count("run") == 2
    assert ledger.answering.has_work()


def test_without_work_nothing_is_started(run, ledger):
    ends_all_work(ledger.answering)
    assert run() == []


# ---- what Ray is asked for ----


@pytest.mark.parametrize(
    ("fields", "more"),
    [
        ({}, {}),
        ({"cpus_per_worker": 3}, {"CPU": 3}),
        ({"gpus_per_worker": 0.25}, {"GPU": 0.25}),
        ({"gpus_per_worker": 1, "accelerator_type": "A100"}, {"accelerator_type:A100": 0.001}),
        ({"labels": {"zone": "a"}}, {}),
    ],
)
def test_a_worker_asks_for_its_share(fields, more):
    resources = resources_of(Scaling.model_validate(fields))
    gpus = fields.get("gpus_per_worker")
    assert resources == {"CPU": 1, **({"GPU": gpus} if gpus else {}), **more}


@pytest.mark.parametrize("labels", [{}, {"zone": "a"}])
def test_ray_train_is_asked_for_workers_that_bear_their_slots_tag(monkeypatch, labels):
    """So what they hold is found when they are gone; and Ray Train tries nothing again."""
    asked = []

    class Trainer:
        def __init__(self, function, **options):
            asked.append(SimpleNamespace(**options))

        def fit(self):
            asked.append("fit")

    monkeypatch.setattr(module, "SlotTrainer", Trainer)
    scaling = Scaling(workers=2, cpus_per_worker=3, gpus_per_worker=1, labels=labels)
    place = SimpleNamespace(study="s", ray_folder="/ray")
    module._fit(4, TAG, place, scaling)
    options, ran = asked
    workers = options.scaling_config
    assert ran == "fit" and (workers.num_workers, workers.use_gpu) == (2, True)
    assert workers.resources_per_worker == {"CPU": 3, "GPU": 1, "memory": TAG}
    assert workers.label_selector == (labels or None)
    failing = options.run_config.failure_config
    assert (failing.max_failures, failing.controller_failure_limit) == (0, 0)
    assert (options.run_config.name, options.run_config.storage_path) == ("s-slot-4", "/ray")
    told = {"slot": 4, "tag": TAG, "place": place, "threads": 3}
    assert options.train_loop_config == told


def test_ray_trains_settings_may_be_overruled(monkeypatch):
    timeout = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
    monkeypatch.setattr(os, "environ", {timeout: "60"})
    SlotsOfNode()
    assert os.environ == {timeout: "60", "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}


# ---- why a run ended ----


def raised(error):
    """As Ray Train hands over what a worker's function raised."""
    try:
        raise error
    except Exception as caught:
        return UserExceptionWithTraceback(caught, traceback.format_exc())


DIED = WorkerHealthCheckFailedError(
    "A worker health check failed.", ray.exceptions.ActorDiedError()
)
COLLATERAL = raised(RuntimeError("[../gloo/pair.cc:553] Connection closed by peer [10.0.0.7]"))


@pytest.mark.parametrize(
    ("error", "line"),
    [
        pytest.param(
            WorkerGroupError("…", {0: COLLATERAL, 2: DIED, 1: DIED, 3: COLLATERAL}),
            "the process of rank 1, 2 died (killed, out of memory, or its node is gone)",
            id="dead ranks and those that waited for them",
        ),
        pytest.param(
            WorkerGroupError("…", {0: COLLATERAL, 1: raised(OSError(28, "No space left"))}),
            "rank 1: OSError: [Errno 28] No space left",
            id="a rank's error and one that waited for it",
        ),
        pytest.param(
            WorkerGroupError("…", {1: COLLATERAL}),
            "rank 1: RuntimeError: [../gloo/pair.cc:553] Connection closed by peer [10.0.0.7]",
            id="the network alone",
        ),
        pytest.param(
            WorkerGroupError("…", {1: raised(ValueError("first")), 0: raised(ValueError("oh"))}),
            "rank 0: ValueError: oh",
            id="the first of several",
        ),
        pytest.param(
            WorkerGroupError("…", {0: raised(RuntimeError("CUDA error: lost\nCompile with …"))}),
            "rank 0: RuntimeError: CUDA error: lost",
            id="a message of several lines",
        ),
        pytest.param(
            ControllerError(raised(TimeoutError("no worker came"))),
            "TimeoutError: no worker came",
            id="the controller",
        ),
        pytest.param(
            ControllerError(RuntimeError("oh\nand more")), "RuntimeError: oh", id="its own words"
        ),
        pytest.param(ValueError("\n\n  a line\nanother"), "ValueError: a line", id="anything"),
        pytest.param(ValueError(), "ValueError", id="nothing said"),
        pytest.param(
            WorkerGroupError("…", {0: raised(StorageError("cannot write a: the disk is full"))}),
            "rank 0: cannot write a: the disk is full",
            id="what says all",
        ),
        pytest.param(
            WorkerGroupError("…", {1: raised(MetAloneError("TypeError: no (mine.py, line 2)"))}),
            "rank 1: TypeError: no (mine.py, line 2)",
            id="what one rank met",
        ),
    ],
)
def test_the_reason_is_one_readable_line(error, line):
    assert _reason(error) == line


def test_memory_that_ran_out_is_a_death():
    error = WorkerGroupError("…", {0: ray.exceptions.OutOfMemoryError("Task was killed\n…")})
    assert _reason(error).startswith("the process of rank 0 died")
