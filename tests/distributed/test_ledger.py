"""The ledger, alone: every stage once, after its inputs, whatever slots and trials do."""

import gc
import random
import weakref
from dataclasses import replace

import pytest

from rayprune.config import Experiment
from rayprune.distributed.ledger import (
    AHEAD_S,
    ELSEWHERE_S,
    FIRST_PATIENCE_S,
    IDLE_S,
    LEASE_S,
    LEAST_PATIENCE_S,
    MAX_FAILURES,
    PATIENCE,
    Ledger,
    Rejoin,
    Run,
    Stop,
    Wait,
)
from rayprune.plan import Inputs, count_epochs, make_plan, share_dense_runs


def experiment(epochs=2, cycles=2, seed=0, schedule="llr", rewind=None, sparsity=0.9):
    return Experiment.model_validate(
        {
            "retrain": {"epochs": epochs, "schedule": schedule},
            "prune": {
                "cycles": cycles,
                "sparsity": sparsity,
                "rewind": None if rewind is None else {"epoch": rewind},
            },
            "seed": seed,
        }
    )


def submit(ledger, trial, **fields):
    wanted = experiment(**fields)
    plan = make_plan(wanted)
    ledger.submit(trial, wanted, plan)
    return plan


def run(ledger, life, answer):
    """Run what was answered; return whether it was wanted to its end."""
    for epoch in range(answer.stage.epochs):
        if not epoch_done(ledger, life, answer.stage.key, epoch + 1):
            return False
    ledger.finished(life, answer.stage.key, ["snapshot of", answer.stage.key], {})
    return True


def epoch_done(ledger, life, key, epochs_done):
    return ledger.epoch_done(life, key, [{"epoch": n} for n in range(epochs_done)], 1.0)


class Clock:
    """Goes on when it is told."""

    def __init__(self):
        self.now = 1.0

    def __call__(self):
        return self.now


def held(ledger, key):
    return ledger._entries[key].snapshot


def test_trials_that_share_a_stage_wait_for_the_same_one():
    ledger = Ledger()
    plan = submit(ledger, "a", epochs=1)
    submit(ledger, "b", epochs=3)
    one, two = ledger.join(1), ledger.join(2)
    dense = ledger.next_stage(one, 0)
    assert isinstance(dense, Run) and dense.stage == plan[0]
    assert isinstance(ledger.next_stage(two, 0), Wait)
    run(ledger, one, dense)
    a, b = ledger.next_stage(one, 1), ledger.next_stage(two, 0)
    assert {a.stage.epochs, b.stage.epochs} == {1, 3}
    assert ledger.snapshot(plan[0].key) == ["snapshot of", plan[0].key]


def test_a_stage_waits_for_each_of_its_inputs():
    """Weights, masks, teacher and ingredients, in whatever order they come."""
    ledger = Ledger()
    sources = [submit(ledger, f"s{seed}", seed=seed, cycles=0)[0] for seed in range(5)]
    keys = [stage.key for stage in sources]
    inputs = Inputs(weights=keys[0], masks=keys[1], teacher=keys[2], ingredients=(*keys[3:],))
    soup = replace(sources[0], cycle=1, key="soup", inputs=inputs)
    ledger.submit("soup", experiment(), [*sources, soup])
    life = ledger.join(0)
    for number in range(5):
        answer = ledger.next_stage(life, number)
        assert answer.stage.key in keys
        run(ledger, life, answer)
    answer = ledger.next_stage(life, 5)
    assert answer.stage.key == "soup"
    assert all(held(ledger, key) for key in keys)
    run(ledger, life, answer)
    assert not any(held(ledger, key) for key in keys)


def test_a_rewound_cycle_waits_for_its_weights_and_its_masks():
    ledger = Ledger()
    part, dense, cycle = submit(ledger, "a", cycles=1, rewind=3)
    life = ledger.join(0)
    for number, stage in enumerate((part, dense)):
        answer = ledger.next_stage(life, number)
        assert answer.stage == stage
        run(ledger, life, answer)
    assert ledger.next_stage(life, 2).stage == cycle
    assert held(ledger, part.key) and held(ledger, dense.key)


def test_a_question_that_is_asked_again_hears_the_same_answer():
    """As Ray asks again what was not answered because the ledger's process had trouble."""
    ledger = Ledger()
    submit(ledger, "a")
    submit(ledger, "b", seed=1)
    life = ledger.join(0)
    answers = [ledger.next_stage(life, 0) for _ in range(4)]
    assert all(answer is answers[0] for answer in answers)


def test_a_slot_that_asks_for_more_has_ended_what_it_ran():
    ledger = Ledger()
    plan = submit(ledger, "a")
    life = ledger.join(0)
    assert ledger.next_stage(life, 0).stage == plan[0]
    assert ledger.next_stage(life, 1).stage == plan[0]


def test_what_a_question_costs_does_not_depend_on_who_needs_what_the_slot_holds(monkeypatch):
    ledger = Ledger()
    for number in range(500):
        submit(ledger, f"{number}", epochs=1, cycles=1, sparsity=0.5 + number / 1_001)
    life = ledger.join(0)
    run(ledger, life, ledger.next_stage(life, 0))
    for slot in range(1, 501):  # others take all that goes on from it
        assert isinstance(ledger.next_stage(ledger.join(slot), 0), Run)
    looks, is_ready = [], ledger._is_ready
    monkeypatch.setattr(ledger, "_is_ready", lambda entry: looks.append(1) or is_ready(entry))
    for _ in range(100):
        assert isinstance(ledger.next_stage(life, 1), Wait)
    assert len(looks) <= 3 * 501, "each that became stale is dropped"


def test_snapshots_are_let_go_when_nothing_waits_for_them():
    ledger = Ledger()
    plan = submit(ledger, "a", cycles=1)
    other = submit(ledger, "b", cycles=1, epochs=3)
    life = ledger.join(0)
    for number in range(3):
        assert held(ledger, plan[0].key) == (["snapshot of", plan[0].key] if number else None)
        run(ledger, life, ledger.next_stage(life, number))
    assert held(ledger, plan[0].key) is None
    assert held(ledger, other[1].key) is None
    late = submit(ledger, "c", cycles=1, epochs=5)
    assert ledger.next_stage(life, 3).stage == late[1]
    assert held(ledger, plan[0].key) is None, "it is read from the storage"


class Reference:
    """Stands for a reference into the object store."""


@pytest.mark.parametrize("end", ["all users ran", "their trial left", "they failed"])
def test_no_reference_to_a_snapshot_that_nothing_waits_for_is_left_anywhere(end):
    ledger = Ledger()
    plan = submit(ledger, "a", cycles=1)
    life = ledger.join(0)
    reference = Reference()
    weak = weakref.ref(reference)
    ledger.next_stage(life, 0)
    ledger.finished(life, plan[0].key, [reference], {})
    answer = ledger.next_stage(life, 1)
    changes = ledger.changes()
    del reference
    gc.collect()
    assert weak() is not None
    if end == "all users ran":
        ledger.finished(life, plan[1].key, [Reference()], {})
    elif end == "their trial left":
        ledger.withdraw("a")
    else:
        ledger.failed(life, plan[1].key, "it diverged")
    gc.collect()
    assert weak() is None
    assert isinstance(answer, Run) and changes.stages


def test_executed_epochs_are_those_that_were_run():
    ledger = Ledger()
    submit(ledger, "a")
    life = ledger.join(0)
    key = ledger.next_stage(life, 0).stage.key
    epoch_done(ledger, life, key, 6)  # five were there from before
    assert ledger.executed_epochs == 1
    life = ledger.join(0)
    ledger.next_stage(life, 0)  # killed after the checkpoint of the seventh
    epoch_done(ledger, life, key, 8)
    assert ledger.executed_epochs == 3
    life = ledger.join(0)
    ledger.next_stage(life, 0)  # killed before the checkpoint of the ninth
    epoch_done(ledger, life, key, 9)
    assert ledger.executed_epochs == 4 and ledger.lost_epochs == 0


def test_lost_epochs_are_those_that_had_to_be_run_again():
    ledger = Ledger()
    key = submit(ledger, "a", cycles=1)[0].key
    for num_epochs in (3, 5):  # the second life begins anew, and comes further
        life = ledger.join(0)
        ledger.next_stage(life, 0)
        for epoch in range(num_epochs):
            epoch_done(ledger, life, key, epoch + 1)
    assert (ledger.executed_epochs, ledger.lost_epochs) == (8, 3)
    for epoch in range(5, 12):
        epoch_done(ledger, life, key, epoch + 1)
    ledger.finished(life, key, None, {})
    cycle = ledger.next_stage(life, 1).stage
    ledger.lost(life, cycle.key, key)
    run(ledger, life, ledger.next_stage(life, 2))
    assert (ledger.executed_epochs, ledger.lost_epochs) == (12 + 3 + 12, 3 + 12)


def test_shared_epochs_are_those_that_separate_runs_would_add():
    ledger = Ledger()
    plans = [submit(ledger, f"{epochs}", cycles=2, epochs=epochs) for epochs in (1, 2, 3)]
    plans.append(submit(ledger, "longer", cycles=3, epochs=3))
    plans.append(submit(ledger, "same", cycles=1))
    counted = count_epochs(plans)
    assert ledger.shared_epochs == counted.naive - counted.unique > 0
    submit(ledger, "same", cycles=1)
    assert ledger.shared_epochs == counted.naive - counted.unique, "each trial counts once"


def test_a_slot_hears_for_which_trial_it_runs_a_stage():
    """The first that still wants it."""
    ledger = Ledger()
    for trial in ("a", "b", "c"):
        submit(ledger, trial, cycles=0)
    life = ledger.join(0)
    assert ledger.next_stage(life, 0).trial == "a"
    ledger.withdraw("a")
    assert ledger.next_stage(life, 1).trial == "b"


def test_whoever_listens_late_hears_of_every_epoch():
    ledger = Ledger()
    key = submit(ledger, "a")[0].key
    life = ledger.join(0)
    ledger.next_stage(life, 0)
    epoch_done(ledger, life, key, 3)
    assert [metrics["epoch"] for metrics in ledger.history(key)] == [0, 1, 2]
    assert ledger.state(key).metrics == {"epoch": 2}


# ---- what comes first ----


def test_the_longest_way_to_the_end_of_a_trial_comes_first():
    """Though more trials wait for something else, and it was wanted earlier."""
    ledger = Ledger()
    for trial in ("a", "b", "c"):
        submit(ledger, trial, seed=1, cycles=2)
    longest = submit(ledger, "d", seed=2, cycles=3)
    assert ledger.next_stage(ledger.join(0), 0).stage == longest[0]


def test_a_slot_goes_on_from_what_it_holds_unless_that_would_make_the_study_longer():
    """So the first trial ends early, though the other dense run has the longer way to go."""
    ledger = Ledger()
    many = [submit(ledger, str(n), epochs=n + 1, cycles=1) for n in range(9)]
    life = ledger.join(0)
    run(ledger, life, ledger.next_stage(life, 0))
    other = submit(ledger, "other", seed=1, epochs=1, cycles=1)
    assert ledger.next_stage(life, 1).stage == many[-1][-1], "one slot runs all in any order"
    ledger.join(1), ledger.join(2), ledger.join(3)
    run(ledger, life, ledger.next_stage(life, 1))
    assert ledger.next_stage(life, 2).stage == other[0], "of four, three would wait for the last"


def test_a_trial_that_is_withdrawn_takes_its_long_way_with_it():
    ledger = Ledger()
    submit(ledger, "short", cycles=1)
    longer = submit(ledger, "longer", seed=1, cycles=2)
    submit(ledger, "long", cycles=3)
    ledger.withdraw("long")
    assert ledger.next_stage(ledger.join(0), 0).stage == longer[0]


def test_a_trial_that_was_paused_shares_nothing_with_itself():
    ledger = Ledger()
    for _ in range(3):
        submit(ledger, "a")
        ledger.withdraw("a")
    assert ledger.shared_epochs == 0


def test_the_way_to_the_end_is_that_of_the_longest_trial_that_waits():
    ledger = Ledger()
    submit(ledger, "a", seed=1, cycles=2)
    submit(ledger, "b", seed=2, cycles=1)
    shared = submit(ledger, "c", seed=2, cycles=3)
    submit(ledger, "d", seed=2, cycles=1, epochs=1)
    assert ledger.next_stage(ledger.join(0), 0).stage == shared[0]


def test_of_equally_long_ways_what_most_trials_wait_for_comes_first():
    ledger = Ledger()
    submit(ledger, "alone", seed=1)
    shared = submit(ledger, "a", seed=2, epochs=1)
    submit(ledger, "b", seed=2, epochs=2)
    assert ledger.next_stage(ledger.join(0), 0).stage == shared[0]


def test_what_fewer_wait_for_by_now_comes_later():
    ledger = Ledger()
    first = submit(ledger, "a", seed=1)
    for trial in ("b", "c"):
        submit(ledger, trial, seed=2)
    ledger.withdraw("c")
    assert ledger.next_stage(ledger.join(0), 0).stage == first[0]


def test_of_what_is_equally_urgent_the_oldest_comes_first():
    ledger = Ledger()
    plans = [submit(ledger, f"{seed}", seed=seed) for seed in (7, 3, 5)]
    answers = [ledger.next_stage(ledger.join(slot), 0) for slot in range(3)]
    assert [answer.stage for answer in answers] == [plan[0] for plan in plans]


def test_of_what_is_equally_urgent_a_slot_goes_on_from_its_last_stage():
    """Though something else was wanted earlier."""
    ledger = Ledger()
    submit(ledger, "a", seed=0)
    submit(ledger, "b", seed=1)
    one, two = ledger.join(1), ledger.join(2)
    first, second = ledger.next_stage(one, 0), ledger.next_stage(two, 0)
    run(ledger, one, first)
    run(ledger, two, second)
    assert ledger.next_stage(two, 1).stage.inputs.weights == second.stage.key
    assert ledger.next_stage(one, 1).stage.inputs.weights == first.stage.key


def test_what_a_slot_holds_does_not_come_before_what_is_more_urgent():
    ledger = Ledger()
    plan = submit(ledger, "a", cycles=1)
    life = ledger.join(0)
    run(ledger, life, ledger.next_stage(life, 0))
    longer = submit(ledger, "b", seed=1)
    assert ledger.next_stage(life, 1).stage == longer[0]
    run(ledger, life, Run(experiment(), longer[0], "b"))
    assert ledger.next_stage(life, 2).stage == longer[1], "of two cycles, the other has one"
    run(ledger, life, Run(experiment(), longer[1], "b"))
    assert ledger.next_stage(life, 3).stage == longer[2], "as long as the other, and held"
    run(ledger, life, Run(experiment(), longer[2], "b"))
    assert ledger.next_stage(life, 4).stage == plan[1]


def test_a_slot_that_holds_the_masks_alone_is_offered_what_needs_them():
    ledger = Ledger()
    other = submit(ledger, "b", seed=1, cycles=0)[0]
    part, dense, cycle = submit(ledger, "a", cycles=1, rewind=3, epochs=other.epochs)
    life = ledger.join(0)
    for number, stage in enumerate((part, dense)):
        answer = ledger.next_stage(life, number)
        assert answer.stage == stage
        run(ledger, life, answer)
    assert cycle.inputs.masks == dense.key != cycle.inputs.weights
    assert ledger.next_stage(life, 2).stage == cycle


def test_the_dense_runs_of_all_seeds_start_at_once():
    """Though the trials of one seed would keep every slot busy."""
    ledger = Ledger()
    trials = [(seed, epochs) for seed in range(3) for epochs in range(1, 6)]
    plans = [submit(ledger, f"{s} {e}", seed=s, epochs=e, cycles=1) for s, e in trials]
    dense = {plan[0].key for plan in plans}
    assert ledger.num_useful_slots() == len(dense) == 3
    assert {ledger.next_stage(ledger.join(slot), 0).stage.key for slot in range(3)} == dense
    assert isinstance(ledger.next_stage(ledger.join(3), 0), Wait)


# ---- how many slots ----


def follow(ledger, clock, life, answer, durations):
    """Run epochs of these durations; return how many slots were useful after each."""
    useful = []
    for epoch, epoch_s in enumerate(durations, start=1):
        clock.now += epoch_s
        epoch_done(ledger, life, answer.stage.key, epoch)
        useful.append(ledger.num_useful_slots())
    return useful


def test_slots_are_useful_for_what_runs_and_what_is_ready():
    ledger = Ledger()
    assert ledger.num_useful_slots() == 0
    submit(ledger, "a", cycles=1)
    submit(ledger, "b", cycles=1, epochs=3)
    assert ledger.num_useful_slots() == 1, "they share the dense run"
    submit(ledger, "c", seed=1)
    life = ledger.join(0)
    answer = ledger.next_stage(life, 0)
    assert (ledger.num_running, ledger.num_ready, ledger.num_useful_slots()) == (1, 1, 2)
    run(ledger, life, answer)
    ledger.next_stage(life, 1)
    assert ledger.num_useful_slots() == ledger.num_running + ledger.num_ready


def test_slots_are_useful_a_while_before_the_stages_are_ready_that_they_will_run():
    clock = Clock()
    ledger = Ledger(clock=clock)
    for epochs in (1, 2, 3):
        submit(ledger, f"{epochs}", cycles=1, epochs=epochs)
    life = ledger.join(0)
    answer = ledger.next_stage(life, 0)
    assert answer.stage.epochs == 12 and ledger.num_useful_slots() == 1
    assert follow(ledger, clock, life, answer, [AHEAD_S / 3] * 12) == [1] * 8 + [3] * 4


def one_dense_run_of_two_trials():
    """It is about to run: the ledger, its clock, the slot's life and what that was answered."""
    clock = Clock()
    ledger = Ledger(clock=clock)
    for epochs in (1, 2):
        submit(ledger, f"{epochs}", cycles=1, epochs=epochs)
    life = ledger.join(0)
    return ledger, clock, life, ledger.next_stage(life, 0)


def test_a_slow_first_epoch_does_not_hide_that_a_stage_ends_soon():
    """It reads the data; the epoch after it says how long the others take."""
    ledger, clock, life, answer = one_dense_run_of_two_trials()
    useful = follow(ledger, clock, life, answer, [100 * AHEAD_S, *[AHEAD_S / 100] * 11])
    assert useful == [1] + [2] * 11


def test_a_stage_that_has_run_its_last_epoch_ends_soon_however_long_that_took():
    ledger, clock, life, answer = one_dense_run_of_two_trials()
    useful = follow(ledger, clock, life, answer, [100 * AHEAD_S] * answer.stage.epochs)
    assert useful == [1] * 11 + [2]


def test_a_stage_without_epochs_ends_soon():
    ledger = Ledger()
    none = replace(submit(ledger, "a", cycles=1)[0], epochs=0, key="none")
    users = [replace(none, key=f"u{n}", inputs=Inputs(weights="none")) for n in range(3)]
    for user in users:
        ledger.submit(user.key, experiment(), [none, user])
    ledger.withdraw("a")
    assert ledger.next_stage(ledger.join(0), 0).stage == none
    assert ledger.num_useful_slots() == 3


def test_a_stage_that_ends_soon_and_is_the_last_keeps_its_slot_useful():
    clock = Clock()
    ledger = Ledger(clock=clock)
    submit(ledger, "a", cycles=0)
    life = ledger.join(0)
    answer = ledger.next_stage(life, 0)
    assert follow(ledger, clock, life, answer, [1.0] * 12) == [1] * 12
    ledger.finished(life, answer.stage.key, None, {})
    assert ledger.num_useful_slots() == 0


def test_what_waits_for_something_else_as_well_is_not_ready_soon():
    clock = Clock()
    ledger = Ledger(clock=clock)
    sources = [submit(ledger, f"s{seed}", seed=seed, cycles=0)[0] for seed in range(2)]
    inputs = Inputs(weights=sources[0].key, teacher=sources[1].key)
    users = [replace(sources[0], cycle=1, key=f"u{n}", inputs=inputs) for n in range(3)]
    for user in users:
        ledger.submit(user.key, experiment(), [*sources, user])
    lives = [ledger.join(slot) for slot in range(2)]
    answers = [ledger.next_stage(life, 0) for life in lives]
    assert follow(ledger, clock, lives[0], answers[0], [1.0] * 12) == [2] * 12
    assert follow(ledger, clock, lives[1], answers[1], [1.0] * 12) == [2] + [3] * 11


def test_what_a_trial_wanted_that_left_makes_no_slot_useful():
    clock = Clock()
    ledger = Ledger(clock=clock)
    submit(ledger, "a", cycles=1)
    submit(ledger, "b", cycles=1, epochs=3)
    submit(ledger, "c", seed=1)
    assert ledger.num_useful_slots() == 2
    ledger.withdraw("c")
    assert ledger.num_useful_slots() == 1
    life = ledger.join(0)
    answer = ledger.next_stage(life, 0)
    assert follow(ledger, clock, life, answer, [1.0] * 12) == [2] * 12
    ledger.withdraw("b")
    assert ledger.num_useful_slots() == 1, "what follows for b is not wanted any more"
    ledger.finished(life, answer.stage.key, None, {})
    ledger.withdraw("a")
    assert ledger.num_useful_slots() == 0


def test_when_nothing_can_be_run_no_slot_is_useful():
    ledger = Ledger()
    submit(ledger, "a")
    submit(ledger, "b", seed=1)
    ledger.abandon("no package")
    assert ledger.num_useful_slots() == 0 and not ledger.has_work()


# ---- slots without work ----


def asks_for(ledger, clock, life, number, seconds):
    """Let a slot ask, as it does, again and again for a while; return what it hears last."""
    until, answer = clock.now + seconds, ledger.next_stage(life, number)
    while isinstance(answer, Wait) and clock.now < until:
        clock.now += min(1.0, until - clock.now)
        answer = ledger.next_stage(life, number)
    return answer


def test_a_slot_that_has_been_idle_for_a_while_ends():
    """While a long stage runs elsewhere: its CPUs and GPUs may be another's."""
    clock = Clock()
    ledger = Ledger(clock=clock)
    submit(ledger, "a")
    busy, idle = ledger.join(0), ledger.join(1)
    answer = ledger.next_stage(busy, 0)
    assert isinstance(asks_for(ledger, clock, idle, 0, IDLE_S - 1.0), Wait)
    assert ledger.joined() == {0, 1}
    assert isinstance(asks_for(ledger, clock, idle, 0, 2.0), Stop)
    assert ledger.joined() == {0}
    assert not ledger.beat(idle) and epoch_done(ledger, busy, answer.stage.key, 1)
    assert ledger.changes().notes == (), "nothing died"


def test_an_idle_slot_that_is_needed_soon_is_kept():
    clock = Clock()
    ledger = Ledger(clock=clock)
    for epochs in (1, 2):
        submit(ledger, f"{epochs}", cycles=1, epochs=epochs)
    lives = [ledger.join(slot) for slot in range(3)]
    answer = ledger.next_stage(lives[0], 0)
    follow(ledger, clock, lives[0], answer, [1.0] * 11)
    ended = [asks_for(ledger, clock, life, 0, 2 * IDLE_S) for life in lives[1:]]
    assert [type(each) for each in ended] == [Stop, Wait], "of three, two will have work"
    epoch_done(ledger, lives[0], answer.stage.key, 12)
    ledger.finished(lives[0], answer.stage.key, None, {})
    assert all(isinstance(ledger.next_stage(lives[n], n), Run | Rejoin) for n in range(3))


def test_a_slot_that_found_work_may_be_idle_as_long_again():
    clock = Clock()
    ledger = Ledger(clock=clock)
    submit(ledger, "a", cycles=0, seed=1)
    busy, idle = ledger.join(0), ledger.join(1)
    ledger.next_stage(busy, 0)
    assert isinstance(asks_for(ledger, clock, idle, 0, IDLE_S - 1.0), Wait)
    submit(ledger, "b", cycles=0, seed=2)
    run(ledger, idle, ledger.next_stage(idle, 0))
    assert isinstance(asks_for(ledger, clock, idle, 1, IDLE_S - 1.0), Wait)
    assert isinstance(asks_for(ledger, clock, idle, 1, 2.0), Stop)


def test_how_long_a_slot_may_be_idle_is_the_users():
    for seconds in (0.0, 1.0, 1_000.0):
        clock = Clock()
        ledger = Ledger(idle_timeout_s=seconds, clock=clock)
        life, started = ledger.join(0), clock.now
        assert isinstance(asks_for(ledger, clock, life, 0, 10_000.0), Stop)
        assert clock.now - started == seconds


def test_a_slot_that_ended_idle_comes_back_under_its_number_as_another_life():
    clock = Clock()
    ledger = Ledger(clock=clock)
    idle = ledger.join(0)
    assert isinstance(asks_for(ledger, clock, idle, 0, IDLE_S), Stop)
    plan = submit(ledger, "a")
    again = ledger.join(0)
    assert again != idle and ledger.next_stage(again, 0).stage == plan[0]
    assert isinstance(ledger.next_stage(idle, 1), Stop)


def test_when_all_is_done_and_no_plan_will_come_no_slot_waits():
    ledger = Ledger()
    submit(ledger, "a", cycles=0)
    lives = [ledger.join(slot) for slot in range(2)]
    answer = ledger.next_stage(lives[0], 0)
    ledger.close()
    assert isinstance(ledger.next_stage(lives[1], 0), Wait), "what runs may be lost"
    run(ledger, lives[0], answer)
    assert all(isinstance(ledger.next_stage(life, 1), Stop) for life in lives)


# ---- lives of slots ----


def test_a_slot_that_came_back_goes_on_and_its_dead_ranks_are_sent_away():
    ledger = Ledger()
    submit(ledger, "a")
    old = ledger.join(0)
    lost = ledger.next_stage(old, 0)
    epoch_done(ledger, old, lost.stage.key, 1)
    new = ledger.join(0)
    assert isinstance(ledger.next_stage(old, 1), Stop)
    assert not ledger.beat(old) and ledger.beat(new)
    again = ledger.next_stage(new, 0)
    assert again.stage == lost.stage
    assert ledger.state(lost.stage.key).epochs_done == 1


def words_of(life, key):
    """Everything that a slot may say of a stage."""
    yield lambda ledger: ledger.epoch_done(life, key, [{}, {}, {}], 1.0)
    yield lambda ledger: ledger.finished(life, key, ["another snapshot"], {"val_loss": 9.0})
    yield lambda ledger: ledger.failed(life, key, "it diverged")
    yield lambda ledger: ledger.mistake(life, key, 0, "it diverged")
    yield lambda ledger: ledger.lost(life, key, key)
    yield lambda ledger: ledger.elsewhere(life, key)
    yield lambda ledger: ledger.next_stage(life, 0)
    yield lambda ledger: ledger.next_stage(life, 7)
    yield lambda ledger: ledger.beat(life)


@pytest.mark.parametrize("word", range(9))
@pytest.mark.parametrize("now", ["wanted", "running", "done", "failed"])
def test_a_lost_life_changes_nothing_any_more(word, now):
    clock = Clock()
    ledger = Ledger(clock=clock)
    key = submit(ledger, "a", cycles=1)[0].key
    old = ledger.join(0)
    ledger.next_stage(old, 0)
    epoch_done(ledger, old, key, 1)
    if now == "wanted":
        ledger.slot_lost(0, "it died")
    else:
        new = ledger.join(0)
        ledger.next_stage(new, 0)
    if now == "done":
        ledger.finished(new, key, ["snapshot"], {"val_loss": 1.0})
    elif now == "failed":
        ledger.failed(new, key, "out of range")
    before = ledger.changes(), held(ledger, key), ledger._entries[key].deaths.copy()
    assert ledger.state(key).status == now
    answer = list(words_of(old, key))[word](ledger)
    after = ledger.changes(), held(ledger, key), ledger._entries[key].deaths.copy()
    assert after == before
    assert not answer or isinstance(answer, Stop | Rejoin)


def test_a_silent_slot_is_given_up_and_its_stage_wanted_within_the_lease():
    clock = Clock()
    ledger = Ledger(clock=clock)
    plan = submit(ledger, "a")
    life = ledger.join(0)
    ledger.next_stage(life, 0)
    for _ in range(10):
        clock.now += 0.9 * LEASE_S
        assert ledger.beat(life) and ledger.expire() == []
    clock.now += 1.1 * LEASE_S
    assert ledger.expire() == [0]
    assert ledger.state(plan[0].key).status == "wanted"
    assert not ledger.beat(life), "its processes are to end"
    assert isinstance(ledger.next_stage(life, 1), Rejoin), "if they live, they may come back"
    assert ledger.next_stage(ledger.join(1), 0).stage == plan[0]


def test_a_stage_that_makes_no_progress_is_given_up_tried_again_and_fails_alone():
    clock = Clock()
    ledger = Ledger(clock=clock)
    bad = submit(ledger, "bad", seed=1)
    good = submit(ledger, "good", seed=2)
    life = ledger.join(0)
    assert ledger.next_stage(life, 0).stage == bad[0]
    clock.now += 100.0
    epoch_done(ledger, life, bad[0].key, 1)
    for _ in range(MAX_FAILURES + 1):
        waited = 0.0
        while not (given_up := ledger.expire()):
            assert waited <= PATIENCE * 100.0
            assert ledger.beat(life)  # its process lives, it does not get on
            clock.now += LEASE_S / 2
            waited += LEASE_S / 2
        assert given_up == [0] and waited > LEAST_PATIENCE_S
        life = ledger.join(0)
        answer = ledger.next_stage(life, 0)
    assert "no epoch ended within" in ledger.state(bad[-1].key).error
    assert answer.stage == good[0]


def hangs_for(ledger, clock, life):
    """Let its process live and not get on until it is given up; return the seconds."""
    started = clock.now
    while not ledger.expire():
        assert ledger.beat(life)
        clock.now += LEASE_S / 2
    return clock.now - started


@pytest.mark.parametrize("longest", [1.0, 100.0])
def test_a_stage_has_the_patience_of_its_longest_epoch(longest):
    clock = Clock()
    ledger = Ledger(clock=clock)
    key = submit(ledger, "a")[0].key
    life = ledger.join(0)
    ledger.next_stage(life, 0)
    for epoch, epoch_s in enumerate([0.5, longest, *[0.5] * 8], start=1):
        clock.now += epoch_s
        epoch_done(ledger, life, key, epoch)
        assert ledger.beat(life) and ledger.expire() == []
    expected = max(LEAST_PATIENCE_S, PATIENCE * longest)
    assert 0 < hangs_for(ledger, clock, life) - expected <= LEASE_S / 2


def test_a_cycle_has_the_patience_of_the_stage_that_it_goes_on_from():
    clock = Clock()
    ledger = Ledger(clock=clock)
    plan = submit(ledger, "a", cycles=1)
    life = ledger.join(0)
    ledger.next_stage(life, 0)
    clock.now += 100.0
    epoch_done(ledger, life, plan[0].key, 1)
    ledger.finished(life, plan[0].key, None, {})
    assert ledger.next_stage(life, 1).stage == plan[1]
    assert 0 < hangs_for(ledger, clock, life) - PATIENCE * 100.0 <= LEASE_S / 2


def test_a_first_epoch_may_take_hours():
    clock = Clock()
    ledger = Ledger(clock=clock)
    submit(ledger, "a")
    life = ledger.join(0)
    ledger.next_stage(life, 0)
    while clock.now < FIRST_PATIENCE_S:
        assert ledger.beat(life) and ledger.expire() == []
        clock.now += LEASE_S / 2
    assert ledger.beat(life)
    clock.now += 1.0
    assert ledger.expire() == [0]


def test_a_new_ledger_tells_slots_to_join_again_and_hears_nothing_of_the_old_ones():
    old, new = Ledger(), Ledger()
    plan = submit(old, "a")
    life = old.join(0)
    old.next_stage(life, 0)
    assert new.beat(life), "its workers are sound"
    assert isinstance(new.next_stage(life, 1), Rejoin)
    submit(new, "a")
    assert not epoch_done(new, life, plan[0].key, 1), "it stops after this epoch and joins again"
    new.finished(life, plan[0].key, ["snapshot"], {})
    assert new.state(plan[0].key).status == "wanted" and new.executed_epochs == 0
    assert new.next_stage(new.join(0), 0).stage == plan[0]


def test_the_first_life_of_a_new_ledger_is_not_one_of_the_old_one():
    assert Ledger().join(0) != Ledger().join(0)


# ---- verdicts and accidents ----


def test_a_stage_that_keeps_killing_its_slot_fails_and_the_others_go_on():
    ledger = Ledger()
    bad = submit(ledger, "bad", seed=1)
    good = submit(ledger, "good", seed=2)
    for _ in range(MAX_FAILURES + 1):
        life = ledger.join(0)
        assert ledger.next_stage(life, 0).stage == bad[0]
    life = ledger.join(0)
    assert ledger.state(bad[-1].key).status == "failed"
    assert "died 4 times in epoch 1" in ledger.state(bad[-1].key).error
    assert ledger.next_stage(life, 0).stage == good[0]


def test_a_stage_that_gets_on_between_deaths_never_fails():
    """Spot machines may take a long stage's workers as often as they like."""
    ledger = Ledger()
    key = submit(ledger, "a")[0].key
    for epoch in range(1, 10):
        for _ in range(MAX_FAILURES):
            ledger.next_stage(ledger.join(0), 0)
            ledger.slot_lost(0, "killed")
        life = ledger.join(0)
        ledger.next_stage(life, 0)
        assert epoch_done(ledger, life, key, epoch)
        ledger.slot_lost(0, "its slot was started again", is_blamed=False)
    assert ledger.state(key).status == "wanted"


def test_a_stage_that_dies_in_the_same_epoch_fails_though_it_starts_anew_each_time():
    """As where no checkpoint can be kept: the epochs before are run again, and say nothing."""
    ledger = Ledger()
    key = submit(ledger, "a")[0].key
    for _ in range(MAX_FAILURES + 1):
        life = ledger.join(0)
        assert ledger.next_stage(life, 0).stage.key == key
        for epoch in (1, 2):
            assert epoch_done(ledger, life, key, epoch)
        ledger.slot_lost(0, "killed")
    assert "in epoch 3" in ledger.state(key).error


def test_the_epoch_in_which_workers_die_counts_from_the_start_of_the_run():
    ledger = Ledger(max_failures=0)
    part, dense, _ = submit(ledger, "a", cycles=1, rewind=3)
    life = ledger.join(0)
    run(ledger, life, ledger.next_stage(life, 0))
    assert ledger.next_stage(life, 1).stage == dense
    epoch_done(ledger, life, dense.key, 1)
    ledger.slot_lost(0, "killed")
    assert part.epochs == 3 and "in epoch 5" in ledger.state(dense.key).error


def test_lost_nodes_are_free():
    ledger = Ledger()
    key = submit(ledger, "a")[0].key
    for number in range(10 * MAX_FAILURES):
        ledger.next_stage(ledger.join(0, nodes=[f"node {number}", "head"]), 0)
        ledger.dead_nodes = {f"node {n}" for n in range(number + 1)}
        ledger.slot_lost(0, "its node is gone")
    assert ledger.state(key).status == "wanted"


def test_the_budget_of_failures_is_the_users():
    ledger = Ledger(max_failures=0)
    key = submit(ledger, "a")[0].key
    ledger.next_stage(ledger.join(0), 0)
    ledger.slot_lost(0, "killed")
    assert ledger.state(key).status == "failed"
    ledger = Ledger(max_failures=-1)
    key = submit(ledger, "a")[0].key
    for _ in range(100):
        ledger.next_stage(ledger.join(0), 0)
    assert ledger.state(key).status == "running"


def test_a_slot_that_was_started_again_is_not_its_stages_fault():
    ledger = Ledger(max_failures=0)
    key = submit(ledger, "a")[0].key
    ledger.next_stage(ledger.join(0), 0)
    assert ledger.slot_lost(0, "its own process died", is_blamed=False) == 1
    assert ledger.state(key).status == "wanted"
    assert ledger.slot_lost(0, "nothing had joined") == 1


def test_a_mistake_is_a_verdict_once_all_ranks_have_met_it():
    ledger = Ledger()
    plan = submit(ledger, "a")
    life = ledger.join(0, num_workers=3)
    ledger.next_stage(life, 0)
    for rank in (2, 0):
        ledger.mistake(life, plan[0].key, rank, f"rank {rank} says so")
        assert ledger.state(plan[0].key).status == "running"
        assert not ledger.is_agreed(life, plan[0].key)
    ledger.mistake(life, plan[0].key, 2, "again")
    assert not ledger.is_agreed(life, plan[0].key)
    ledger.mistake(life, plan[0].key, 1, "rank 1 says so")
    assert ledger.is_agreed(life, plan[0].key)
    assert ledger.state(plan[-1].key).error == "rank 0 says so"


def test_mistakes_of_one_stage_do_not_count_for_the_next():
    ledger = Ledger()
    submit(ledger, "a", cycles=0)
    submit(ledger, "b", cycles=0, seed=1)
    life = ledger.join(0, num_workers=2)
    first = ledger.next_stage(life, 0).stage.key
    ledger.mistake(life, first, 0, "oh")
    second = ledger.next_stage(life, 1).stage.key
    ledger.mistake(life, second, 1, "oh")
    assert {ledger.state(key).status for key in (first, second)} == {"running", "wanted"} or (
        first == second
    )
    assert not ledger.is_agreed(life, second)


def test_ranks_that_were_replaced_do_not_agree_with_the_fresh_ones():
    ledger = Ledger()
    key = submit(ledger, "a")[0].key
    old = ledger.join(0)
    ledger.next_stage(old, 0)
    new = ledger.join(0)
    ledger.next_stage(new, 0)
    ledger.mistake(new, key, 0, "oh")
    assert ledger.is_agreed(new, key) and not ledger.is_agreed(old, key)


def test_when_no_slot_can_start_what_is_not_done_fails_and_what_is_done_stays():
    ledger = Ledger()
    plan = submit(ledger, "a", cycles=1)
    life = ledger.join(0)
    run(ledger, life, ledger.next_stage(life, 0))
    ledger.slot_lost(0, "it died")
    assert ledger.state(plan[1].key).status == "wanted", "another slot may come"
    ledger.abandon("no package")
    assert ledger.state(plan[0].key).status == "done"
    assert ledger.state(plan[1].key).error == "no package"
    assert not ledger.has_work()
    late = submit(ledger, "late", seed=3)
    assert ledger.state(late[-1].key).error == "no package"
    assert isinstance(ledger.next_stage(ledger.join(1), 0), Stop)


def test_a_failure_reaches_the_stages_that_need_it_only():
    ledger = Ledger()
    plan = submit(ledger, "a", cycles=2)
    other = submit(ledger, "b", cycles=1)
    life = ledger.join(0)
    run(ledger, life, ledger.next_stage(life, 0))
    answer = ledger.next_stage(life, 1)
    ledger.failed(life, answer.stage.key, "it diverged")
    failed, fine = (plan, other) if answer.stage == plan[1] else (other, plan)
    assert ledger.state(failed[-1].key).error == "it diverged"
    assert ledger.state(fine[-1].key).status == "wanted"


def test_a_stage_that_is_submitted_after_its_input_failed_fails_too():
    ledger = Ledger()
    plan = submit(ledger, "a", cycles=1)
    life = ledger.join(0)
    ledger.next_stage(life, 0)
    ledger.failed(life, plan[0].key, "it diverged")
    late = submit(ledger, "b", cycles=1, epochs=7)
    assert late[0] == plan[0] and ledger.state(late[1].key).error == "it diverged"
    ledger.close()
    assert not ledger.has_work()


# ---- who wants what ----


def test_what_nobody_wants_ends_at_its_next_epoch():
    ledger = Ledger()
    plan = submit(ledger, "a")
    life = ledger.join(0)
    answer = ledger.next_stage(life, 0)
    assert epoch_done(ledger, life, answer.stage.key, 1)
    ledger.withdraw("a")
    assert not epoch_done(ledger, life, answer.stage.key, 2)
    ledger.close()
    assert isinstance(ledger.next_stage(life, 1), Stop)
    assert ledger.state(plan[0].key).status == "wanted"


def test_when_no_trial_waits_any_more_slots_end_at_the_next_epoch():
    ledger = Ledger()
    submit(ledger, "a")
    submit(ledger, "b", seed=1)
    life = ledger.join(0)
    answer = ledger.next_stage(life, 0)
    ledger.withdraw_all()
    ledger.close()
    assert not epoch_done(ledger, life, answer.stage.key, 1)
    assert isinstance(ledger.next_stage(life, 1), Stop)


def test_a_shared_stage_goes_on_when_one_trial_withdraws():
    ledger = Ledger()
    submit(ledger, "a", epochs=1)
    submit(ledger, "b", epochs=2)
    life = ledger.join(0)
    answer = ledger.next_stage(life, 0)
    ledger.withdraw("a")
    assert epoch_done(ledger, life, answer.stage.key, 1)


def test_what_was_found_finished_is_not_run():
    ledger = Ledger()
    plan = submit(ledger, "a")
    ledger.found(plan[0].key, [{"val_accuracy": 0.4}], {"val_accuracy": 0.5})
    assert ledger.next_stage(ledger.join(0), 0).stage == plan[1]
    assert ledger.changes().executed_for == {}
    assert ledger.history(plan[0].key) == ({"val_accuracy": 0.4},)


def test_what_runs_here_is_not_found():
    """As where another study finishes it after its lease ended: this one ends on its own."""
    ledger = Ledger()
    key = submit(ledger, "a")[0].key
    life = ledger.join(0)
    ledger.next_stage(life, 0)
    ledger.found(key, [], {})
    assert ledger.state(key).status == "running"
    ledger.finished(life, key, None, {"val_loss": 0.5})
    assert ledger.state(key).metrics == {"val_loss": 0.5}


def test_a_lost_input_holds_back_all_that_need_it():
    ledger = Ledger()
    plan = submit(ledger, "a", cycles=1, epochs=3)
    other = submit(ledger, "b", cycles=1)
    ledger.found(plan[0].key, [{"val_loss": 0.5}], {})
    one, two = ledger.join(1), ledger.join(2)
    assert ledger.next_stage(one, 0).stage == plan[1]
    ledger.lost(one, plan[1].key, plan[0].key)
    assert ledger.history(plan[0].key) == ()
    again = ledger.next_stage(one, 1)
    assert again.stage == plan[0]
    assert isinstance(ledger.next_stage(two, 0), Wait)
    run(ledger, one, again)
    ready = {ledger.next_stage(life, 2).stage.key for life in (one, two)}
    assert ready == {plan[1].key, other[1].key}


def test_a_lost_input_is_made_again_before_its_stage():
    ledger = Ledger()
    plan = submit(ledger, "a", cycles=1)
    ledger.found(plan[0].key, [], {})
    life = ledger.join(0)
    assert ledger.next_stage(life, 0).stage == plan[1]
    ledger.lost(life, plan[1].key, plan[0].key)
    answer = ledger.next_stage(life, 1)
    assert answer.stage == plan[0]
    run(ledger, life, answer)
    answer = ledger.next_stage(life, 2)
    assert answer.stage == plan[1]
    run(ledger, life, answer)
    assert ledger.state(plan[1].key).status == "done"


def test_a_stage_that_another_study_runs_is_looked_at_again_in_a_while():
    clock = Clock()
    ledger = Ledger(clock=clock)
    plan = submit(ledger, "a", cycles=1)
    life = ledger.join(0)
    assert ledger.next_stage(life, 0).stage == plan[0]
    ledger.elsewhere(life, plan[0].key)
    assert isinstance(ledger.next_stage(life, 1), Wait)
    assert ledger.waits_elsewhere() == (plan[0].key,)
    clock.now += ELSEWHERE_S
    assert ledger.expire() == []
    assert ledger.next_stage(life, 1).stage == plan[0]
    ledger.elsewhere(life, plan[0].key)
    ledger.found(plan[0].key, [], {})
    assert ledger.waits_elsewhere() == ()
    assert ledger.next_stage(life, 2).stage == plan[1]


# ---- what people see ----


def test_changes_are_what_is_new_since_a_version():
    ledger = Ledger()
    plan = submit(ledger, "a", cycles=1)
    first = ledger.changes()
    assert first.stages.keys() == {stage.key for stage in plan}
    assert ledger.changes(first.version).stages == {}
    life = ledger.join(0)
    ledger.next_stage(life, 0)
    second = ledger.changes(first.version)
    assert {k: s.status for k, s in second.stages.items()} == {plan[0].key: "running"}
    run(ledger, life, Run(experiment(), plan[0], "a"))
    third = ledger.changes(second.version)
    assert third.executed_for == {plan[0].key: "a"} and third.executed_epochs == plan[0].epochs
    assert ledger.changes().stages.keys() == {stage.key for stage in plan}


def test_a_trial_that_wants_what_others_want_already_is_no_news():
    ledger = Ledger()
    submit(ledger, "a")
    version = ledger.changes().version
    submit(ledger, "b")
    ledger.withdraw("a")
    assert ledger.changes(version).stages == {}


def test_a_stage_is_run_for_the_first_trial_that_still_wants_it():
    ledger = Ledger()
    key = submit(ledger, "a")[0].key
    for trial in ("b", "c"):
        submit(ledger, trial)
    life = ledger.join(0)
    answer = ledger.next_stage(life, 0)
    ledger.withdraw("a")
    run(ledger, life, answer)
    assert ledger.changes().executed_for == {key: "b"}


def test_the_deaths_of_workers_are_told_once():
    ledger = Ledger()
    submit(ledger, "a")
    life = ledger.join(0)
    key = ledger.next_stage(life, 0).stage.key
    epoch_done(ledger, life, key, 5)
    ledger.slot_lost(0, "killed")
    first = ledger.changes()
    assert first.notes == ("slot 0: killed; the dense run goes on after 5 of 12 epochs",)
    assert ledger.changes(first.version).notes == ()
    ledger.join(1)
    ledger.slot_lost(1, "its node is gone")
    assert ledger.changes(first.version).notes == ("slot 1: its node is gone",)


# ---- whatever happens ----


def test_whatever_happens_every_stage_is_run_once_and_after_its_inputs():
    """Random trials, slots, deaths, hangs, zombies, withdrawals and lost checkpoints."""
    for seed in range(300):
        try:
            RandomStudy(random.Random(seed)).run()
        except AssertionError as error:
            raise AssertionError(f"with seed {seed}: {error}") from error


class RandomStudy:
    """A ledger, slots that do what slots do, and zombies: lives that are over and still speak."""

    def __init__(self, chance):
        self.chance, self.clock = chance, Clock()
        self.ledger = Ledger(-1, chance.choice([0.0, 5.0, 60.0]), self.clock)
        wanted = [
            experiment(
                epochs=chance.randint(0, 3),
                cycles=chance.randint(1, 3),
                seed=chance.randint(0, 1),
                schedule=chance.choice(["llr", "allr"]),
                rewind=chance.choice([None, None, 0, 2, 5]),
            )
            for _ in range(chance.randint(1, 8))
        ]
        plans = share_dense_runs(wanted)
        self.plans = {f"t{n}": (w, p) for n, (w, p) in enumerate(zip(wanted, plans, strict=True))}
        self.unsubmitted = list(self.plans)
        self.withdrawn, self.done, self.epochs, self.executed, self.again = set(), set(), {}, 0, 0
        self.furthest = {}
        self.zombies, self.most = [], chance.randint(1, 3)
        self.slots = {slot: self.new_life(slot) for slot in range(chance.randint(0, self.most))}

    def new_life(self, slot):
        return {"life": self.ledger.join(slot), "number": 0, "stage": None}

    def run(self):
        steps = 0
        while self.slots or self.ledger.has_work():
            steps += 1
            assert steps < 20_000, "everything ends"
            self.step()
            self.clock.now += self.chance.random()
            self.no_live_slot_idles_while_a_stage_is_ready()
            self.useful_slots_have_something_to_run()
        for name, (_, plan) in self.plans.items():
            if name not in self.withdrawn:
                assert all(stage.key in self.done for stage in plan), "every trial ends"
        assert self.ledger.executed_epochs == self.executed
        assert self.ledger.lost_epochs == self.again
        if not self.withdrawn:
            counted = count_epochs(p for _, p in self.plans.values())
            assert self.executed - self.again == counted.unique
            assert self.ledger.shared_epochs == counted.naive - counted.unique

    def step(self):
        what = self.chance.random()
        slot = self.chance.choice(list(self.slots)) if self.slots else None
        if self.unsubmitted and what < 0.1:
            name = self.unsubmitted.pop()
            self.ledger.submit(name, *self.plans[name])
            if not self.unsubmitted:
                self.ledger.close()
        elif slot is None or what > 0.9:  # as the pool does
            if len(self.slots) < min(self.most, self.ledger.num_useful_slots()):
                new = next(n for n in range(self.most) if n not in self.slots)
                self.slots[new] = self.new_life(new)
        elif what < 0.12:  # its workers die, and others come
            stage = self.slots[slot]["stage"]
            if stage is not None and self.chance.random() < 0.3:  # and its checkpoint is gone
                self.epochs[stage.key] = 0
            self.zombies.append(dict(self.slots[slot]))
            if self.chance.random() < 0.5:
                self.ledger.slot_lost(slot, "killed")
            self.slots[slot] = self.new_life(slot)
        elif what < 0.13:  # a while in which it says nothing
            self.clock.now += LEASE_S + 1
            others = [s for s in self.slots if s != slot]
            self.let_beat(others)
            for lost in set(self.ledger.expire()) & self.slots.keys():
                self.zombies.append(dict(self.slots[lost]))
                self.slots[lost] = self.new_life(lost)
        elif what < 0.14:
            name = self.chance.choice(list(self.plans))
            if name not in self.unsubmitted:
                self.ledger.withdraw(name)
                self.withdrawn.add(name)
        elif what < 0.2 and self.zombies:
            self.a_zombie_speaks(self.chance.choice(self.zombies))
        else:
            self.work(slot)

    def let_beat(self, slots):
        for slot in slots:
            self.ledger.beat(self.slots[slot]["life"])

    def a_zombie_speaks(self, zombie):
        key = zombie["stage"].key if zombie["stage"] else "none"
        before = self.ledger.changes()
        self.chance.choice(list(words_of(zombie["life"], key)))(self.ledger)
        assert self.ledger.changes() == before, "no late word changes anything"

    def work(self, slot):
        state = self.slots[slot]
        stage, life = state["stage"], state["life"]
        if stage is None:
            living = len(self.ledger.joined())
            answer = self.ledger.next_stage(life, state["number"])
            if isinstance(answer, Stop):
                is_needed = living <= self.ledger.num_useful_slots()
                assert not is_needed or not self.ledger.has_work()
                del self.slots[slot]
            elif isinstance(answer, Rejoin):
                self.slots[slot] = self.new_life(slot)
            elif isinstance(answer, Run):
                key = answer.stage.key
                assert key not in self.done, "a stage runs once"
                assert self.done.issuperset(answer.stage.inputs.keys), "inputs come first"
                running = [s["stage"].key for s in self.slots.values() if s["stage"] is not None]
                assert key not in running, "one slot a stage"
                state["number"] += 1
                state["stage"] = answer.stage
            return
        epochs = self.epochs.get(stage.key, 0)
        if epochs == stage.epochs:
            self.ledger.finished(life, stage.key, None, {})
            if self.ledger.state(stage.key).status == "done":
                self.done.add(stage.key)
            state["stage"] = None
            return
        is_wanted = epoch_done(self.ledger, life, stage.key, epochs + 1)
        if self.ledger.state(stage.key).epochs_done == epochs + 1:  # heard: the life is not over
            self.epochs[stage.key] = epochs + 1
            self.executed += 1
            self.again += epochs < self.furthest.get(stage.key, 0)
            self.furthest[stage.key] = max(epochs + 1, self.furthest.get(stage.key, 0))
        if not is_wanted:
            state["stage"] = None

    def no_live_slot_idles_while_a_stage_is_ready(self):
        ready = [e for e in self.ledger._entries.values() if self.ledger._is_ready(e)]
        assert bool(ready) == (self.ledger._first_ready() is not None)
        for slot, state in self.slots.items():
            if ready and state["stage"] is None and self.ledger.beat(state["life"]):
                answer = self.ledger.next_stage(state["life"], state["number"])
                assert isinstance(answer, Run), f"slot {slot} idles"
                state["number"] += 1
                state["stage"] = answer.stage
                return

    def useful_slots_have_something_to_run(self):
        entries, lives = self.ledger._entries, self.ledger._lives.values()
        left = {key for key, entry in entries.items() if entry.is_open}
        ending = [life for life in lives if life.running not in {None} | left]  # for nobody
        least = self.ledger.num_ready + self.ledger.num_running
        assert least <= self.ledger.num_useful_slots() <= len(left) + len(ending)
