"""A slot goes on over the deaths of its workers, and says in one line why they died."""

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
from rayprune.distributed.slots import MAX_STARTS, MetAloneError, SlotActor, Slots, _reason
from rayprune.plan import make_plan
from rayprune.results.storage import StorageError

PLAN = make_plan(Experiment())
TAG = 77


@pytest.fixture
def ledger(monkeypatch):
    """A real one, asked as an actor, with work for a slot."""
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    deciding = Ledger(num_slots=2, max_failures=-1)
    deciding.submit("a", Experiment(), PLAN)
    return Asked(deciding)


@pytest.fixture
def run(ledger, monkeypatch):
    """Run slot 0 over these lives of its workers, one after the other; return what happened.

    A life is called with the ledger and its number, and raises what Ray Train would raise.
    """
    happened = []
    monkeypatch.setattr(module, "remove_groups", lambda tag: happened.append(f"removed {tag}"))

    def run(*lives):
        remaining = list(lives)

        def fit(slot, tag, place, scaling):
            happened.append("run")
            remaining.pop(0)(ledger.answering)

        monkeypatch.setattr(module, "_fit", fit)
        SlotActor().run(0, TAG, SimpleNamespace(ledger=ledger), Scaling())
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


def test_a_slot_whose_workers_never_join_gives_up_and_says_why(run, ledger):
    assert run(*[does_not_start] * MAX_STARTS).count("run") == MAX_STARTS
    assert ledger.words[-1] == (
        "give_up",
        0,
        "no workers could be started: RuntimeError: no package",
    )
    assert ledger.answering.has_work(), "another slot may do it"


def test_workers_that_were_given_up_had_started(run, ledger):
    lives = [hangs] * (3 * MAX_STARTS)
    assert run(*lives, ends_all_work).count("run") == len(lives) + 1


def test_a_slot_waits_for_nodes_for_ever(run):
    def finds_no_room(ledger):
        raise ControllerError(WorkerGroupStartupTimeoutError(num_workers=1))

    lives = [finds_no_room] * (3 * MAX_STARTS)
    assert run(*lives, ends_all_work).count("run") == len(lives) + 1


def test_a_slot_that_ended_by_an_error_of_its_own_is_given_up(ledger, monkeypatch):
    """Where its code cannot be imported, for example: nobody else would say so."""

    def end(run):
        if run == "run 1":
            raise ray.exceptions.RayError("Traceback ...\n  line 7\nImportError: no package\n")

    actors = iter(["run 0", "run 1"])
    running = SimpleNamespace(remote=lambda *arguments: next(actors))
    monkeypatch.setattr(module, "start", lambda service: SimpleNamespace(run=running))
    slots = Slots([TAG, TAG + 1], SimpleNamespace(ledger=ledger), Scaling())
    monkeypatch.setattr(ray, "wait", lambda runs, **how: (runs, []))
    monkeypatch.setattr(ray, "get", end)
    slots.look()
    assert ledger.words == [("give_up", 1, "slot 1 ended: ImportError: no package")]


def test_starts_count_anew_once_workers_have_joined(run, ledger):
    lives = [*[does_not_start] * (MAX_STARTS - 1), dies]
    assert run(*lives * 3, ends_all_work).count("run") == len(lives) * 3 + 1
    assert "give_up" not in [word for word, *_ in ledger.words]


def test_a_run_that_ends_in_peace_is_followed_by_another_while_there_is_work(run):
    def is_idle(ledger):
        ledger.join(0)

    assert run(is_idle, is_idle, ends_all_work).count("run") == 3


def test_without_work_nothing_is_started(run, ledger):
    ends_all_work(ledger.answering)
    assert run() == []


def test_a_slot_that_is_started_again_blames_no_stage(run, ledger):
    deciding = ledger.answering
    deciding.max_failures = 0
    deciding.next_stage(deciding.join(0), 0)
    run(ends_all_work)
    assert deciding.state(PLAN[0].key).status == "wanted"


def test_all_slots_but_the_first_wait_for_it_before_they_start(ledger, monkeypatch):
    waited = []
    monkeypatch.setattr(ray, "wait", lambda waiting, timeout: waited.append((waiting, timeout)))
    ledger.answering.first_epoch_done = lambda: "the first slot is at work"
    ends_all_work(ledger.answering)
    for slot in (0, 1):
        SlotActor().run(slot, TAG, SimpleNamespace(ledger=ledger), Scaling())
    assert waited == [(["the first slot is at work"], module.FIRST_S)]


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
