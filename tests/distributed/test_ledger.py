"""The ledger, alone: every stage once, after its inputs, whatever slots and trials do."""

import random
from dataclasses import replace

from rayprune.config import Experiment
from rayprune.distributed.ledger import MAX_ATTEMPTS, Ledger, Run, Stop, Wait
from rayprune.plan import Inputs, count_epochs, make_plan, share_dense_runs


def experiment(epochs=2, cycles=2, seed=0, schedule="llr", rewind=None):
    return Experiment.model_validate(
        {
            "retrain": {"epochs": epochs, "schedule": schedule},
            "prune": {
                "cycles": cycles,
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


def run(ledger, slot, answer):
    for epoch in range(answer.stage.epochs):
        if not ledger.epoch_done(slot, answer.stage.key, epoch + 1, {}, 1.0):
            return False
    ledger.finished(slot, answer.stage.key, ["snapshot of", answer.stage.key], {})
    return True


def held(ledger, key):
    return ledger._entries[key].snapshot


def test_trials_that_share_a_stage_wait_for_the_same_one():
    ledger = Ledger()
    plan = submit(ledger, "a", epochs=1)
    submit(ledger, "b", epochs=3)
    one, two = ledger.join(1), ledger.join(2)
    dense = ledger.next_stage(1, one, 0)
    assert isinstance(dense, Run) and dense.stage == plan[0] and dense.inputs == {}
    assert isinstance(ledger.next_stage(2, two, 0), Wait)
    run(ledger, 1, dense)
    a, b = ledger.next_stage(1, one, 1), ledger.next_stage(2, two, 0)
    assert {a.stage.epochs, b.stage.epochs} == {1, 3}
    assert a.inputs == b.inputs == {plan[0].key: ["snapshot of", plan[0].key]}


def test_a_stage_waits_for_each_of_its_inputs():
    """Weights, masks, teacher and ingredients, in whatever order they come."""
    ledger = Ledger(num_parallel=2)
    sources = [submit(ledger, f"s{seed}", seed=seed, cycles=0)[0] for seed in range(5)]
    keys = [stage.key for stage in sources]
    inputs = Inputs(weights=keys[0], masks=keys[1], teacher=keys[2], ingredients=(*keys[3:],))
    soup = replace(sources[0], cycle=1, key="soup", inputs=inputs)
    ledger.submit("soup", experiment(), [*sources, soup])
    incarnation = ledger.join(0)
    for number in range(5):
        answer = ledger.next_stage(0, incarnation, number)
        assert answer.stage.key in keys
        run(ledger, 0, answer)
    answer = ledger.next_stage(0, incarnation, 5)
    assert answer.stage.key == "soup"
    assert answer.inputs == {key: ["snapshot of", key] for key in keys}
    run(ledger, 0, answer)
    assert not any(held(ledger, key) for key in keys)


def test_a_rewound_cycle_waits_for_its_weights_and_its_masks():
    ledger = Ledger()
    part, dense, cycle = submit(ledger, "a", cycles=1, rewind=3)
    incarnation = ledger.join(0)
    for number, stage in enumerate((part, dense)):
        answer = ledger.next_stage(0, incarnation, number)
        assert answer.stage == stage
        run(ledger, 0, answer)
    answer = ledger.next_stage(0, incarnation, 2)
    assert answer.stage == cycle
    assert answer.inputs.keys() == {part.key, dense.key}


def test_all_ranks_hear_the_same_answer():
    ledger = Ledger()
    submit(ledger, "a")
    submit(ledger, "b", seed=1)
    incarnation = ledger.join(0)
    answers = [ledger.next_stage(0, incarnation, 0) for _ in range(4)]
    assert all(answer is answers[0] for answer in answers)
    assert ledger.next_stage(0, incarnation, 1).stage.key != answers[0].stage.key


def test_a_slot_is_offered_what_goes_on_from_its_last_stage():
    ledger = Ledger()
    submit(ledger, "a", seed=0)
    submit(ledger, "b", seed=1)
    one, two = ledger.join(1), ledger.join(2)
    first, second = ledger.next_stage(1, one, 0), ledger.next_stage(2, two, 0)
    run(ledger, 1, first)
    run(ledger, 2, second)
    assert ledger.next_stage(2, two, 1).stage.inputs.weights == second.stage.key
    assert ledger.next_stage(1, one, 1).stage.inputs.weights == first.stage.key


def test_snapshots_are_let_go_when_nothing_waits_for_them():
    ledger = Ledger()
    plan = submit(ledger, "a", cycles=1)
    other = submit(ledger, "b", cycles=1, epochs=3)
    incarnation = ledger.join(0)
    for number in range(3):
        assert held(ledger, plan[0].key) == (["snapshot of", plan[0].key] if number else None)
        run(ledger, 0, ledger.next_stage(0, incarnation, number))
    assert held(ledger, plan[0].key) is None
    assert held(ledger, other[1].key) is None
    late = submit(ledger, "c", cycles=1, epochs=5)
    answer = ledger.next_stage(0, incarnation, 3)
    assert answer.stage == late[1]
    assert answer.inputs == {}


def test_progress_holds_no_snapshot():
    ledger = Ledger()
    submit(ledger, "a", cycles=1)
    snapshot = object()
    answer = ledger.next_stage(0, ledger.join(0), 0)
    ledger.finished(0, answer.stage.key, snapshot, {})
    assert held(ledger, answer.stage.key) is snapshot
    assert all(snapshot not in vars(state).values() for state in ledger.progress().stages.values())


def test_a_slot_that_came_back_goes_on_and_its_dead_ranks_are_sent_away():
    ledger = Ledger()
    submit(ledger, "a")
    old = ledger.join(0)
    lost = ledger.next_stage(0, old, 0)
    ledger.epoch_done(0, lost.stage.key, 1, {}, 1.0)
    new = ledger.join(0)
    assert isinstance(ledger.next_stage(0, old, 1), Stop)
    again = ledger.next_stage(0, new, 0)
    assert again.stage == lost.stage
    assert ledger.state(lost.stage.key).epochs_done == 1


def test_executed_epochs_are_those_that_were_run():
    ledger = Ledger()
    submit(ledger, "a")
    key = ledger.next_stage(0, ledger.join(0), 0).stage.key
    ledger.epoch_done(0, key, 6, {}, 1.0)  # five were there from before
    assert ledger.executed_epochs == 1
    ledger.next_stage(0, ledger.join(0), 0)  # killed after the checkpoint of the seventh
    ledger.epoch_done(0, key, 8, {}, 1.0)
    assert ledger.executed_epochs == 3
    ledger.next_stage(0, ledger.join(0), 0)  # killed before the checkpoint of the ninth
    ledger.epoch_done(0, key, 9, {}, 1.0)
    assert ledger.executed_epochs == 4


def test_a_stage_that_keeps_killing_its_slot_fails_and_the_others_go_on():
    ledger = Ledger()
    bad = submit(ledger, "bad", seed=1)
    good = submit(ledger, "good", seed=2)
    for _ in range(MAX_ATTEMPTS):
        incarnation = ledger.join(0)
        assert ledger.next_stage(0, incarnation, 0).stage == bad[0]
    incarnation = ledger.join(0)
    assert ledger.state(bad[-1].key).status == "failed"
    assert "died 4 times" in ledger.state(bad[-1].key).error
    assert ledger.next_stage(0, incarnation, 0).stage == good[0]


def test_what_nobody_wants_ends_at_its_next_epoch():
    ledger = Ledger()
    plan = submit(ledger, "a")
    incarnation = ledger.join(0)
    answer = ledger.next_stage(0, incarnation, 0)
    assert ledger.epoch_done(0, answer.stage.key, 1, {}, 1.0)
    ledger.withdraw("a", "stopped", "worse than others")
    assert not ledger.epoch_done(0, answer.stage.key, 2, {}, 1.0)
    ledger.close()
    assert isinstance(ledger.next_stage(0, incarnation, 1), Stop)
    assert ledger.state(plan[0].key).status == "wanted"
    (gone,) = ledger.progress().given_up.values()
    assert (gone.name, gone.status, gone.reason) == ("a", "stopped", "worse than others")


def test_when_no_trial_waits_any_more_slots_end_at_the_next_epoch():
    """As after Ctrl-C: nobody was given up, what is not done is unfinished."""
    ledger = Ledger()
    submit(ledger, "a")
    submit(ledger, "b", seed=1)
    incarnation = ledger.join(0)
    answer = ledger.next_stage(0, incarnation, 0)
    ledger.withdraw_all()
    ledger.close()
    assert not ledger.epoch_done(0, answer.stage.key, 1, {}, 1.0)
    assert isinstance(ledger.next_stage(0, incarnation, 1), Stop)
    assert ledger.progress().given_up == {}


def test_a_trial_that_is_done_or_failed_is_not_given_up_when_it_leaves():
    ledger = Ledger()
    submit(ledger, "done", cycles=0)
    plan = submit(ledger, "failed", cycles=0, seed=1)
    run(ledger, 0, ledger.next_stage(0, ledger.join(0), 0))
    ledger.failed(0, plan[0].key, "it diverged")
    for trial in ("done", "failed"):
        ledger.withdraw(trial, "stopped", "")
    assert ledger.progress().given_up == {}


def test_a_trial_that_is_gone_before_it_was_submitted_is_given_up():
    ledger = Ledger()
    ledger.withdraw("a", "unfinished", "its process died")
    assert ledger.progress().given_up["a"].status == "unfinished"


def test_a_shared_stage_goes_on_when_one_trial_withdraws():
    ledger = Ledger()
    submit(ledger, "a", epochs=1)
    submit(ledger, "b", epochs=2)
    answer = ledger.next_stage(0, ledger.join(0), 0)
    ledger.withdraw("a", "stopped", "")
    assert ledger.epoch_done(0, answer.stage.key, 1, {}, 1.0)


def test_what_was_found_finished_is_not_run():
    ledger = Ledger()
    plan = submit(ledger, "a")
    ledger.found(plan[0].key, {"val_accuracy": 0.5})
    answer = ledger.next_stage(0, ledger.join(0), 0)
    assert answer.stage == plan[1] and answer.inputs == {}
    assert ledger.progress().executed_for == {}


def test_a_lost_input_is_made_again_before_its_stage():
    ledger = Ledger()
    plan = submit(ledger, "a", cycles=1)
    ledger.found(plan[0].key, {})
    incarnation = ledger.join(0)
    answer = ledger.next_stage(0, incarnation, 0)
    assert answer.stage == plan[1]
    ledger.lost(0, plan[1].key, plan[0].key)
    answer = ledger.next_stage(0, incarnation, 1)
    assert answer.stage == plan[0]
    run(ledger, 0, answer)
    answer = ledger.next_stage(0, incarnation, 2)
    assert answer.stage == plan[1] and answer.inputs.keys() == {plan[0].key}
    run(ledger, 0, answer)
    assert ledger.state(plan[1].key).status == "done"


def test_a_failure_reaches_the_stages_that_need_it_only():
    ledger = Ledger()
    plan = submit(ledger, "a", cycles=2)
    other = submit(ledger, "b", cycles=1)
    incarnation = ledger.join(0)
    run(ledger, 0, ledger.next_stage(0, incarnation, 0))
    answer = ledger.next_stage(0, incarnation, 1)
    ledger.failed(0, answer.stage.key, "it diverged")
    failed, fine = (plan, other) if answer.stage == plan[1] else (other, plan)
    assert ledger.state(failed[-1].key).error == "it diverged"
    assert ledger.state(fine[-1].key).status == "wanted"


def test_a_slot_that_ended_lets_go_of_its_stage():
    ledger = Ledger()
    plan = submit(ledger, "a", cycles=1)
    one, two = ledger.join(1), ledger.join(2)
    assert ledger.next_stage(1, one, 0).stage == plan[0]
    assert isinstance(ledger.next_stage(2, two, 0), Wait)
    ledger.slot_lost(1)
    assert ledger.next_stage(2, two, 0).stage == plan[0]


def test_without_a_slot_what_is_not_done_fails_and_what_is_done_stays():
    ledger = Ledger()
    plan = submit(ledger, "a", cycles=1)
    run(ledger, 0, ledger.next_stage(0, ledger.join(0), 0))
    ledger.slot_lost(0)
    ledger.abandon("no node came")
    assert ledger.state(plan[0].key).status == "done"
    assert ledger.state(plan[1].key).error == "no node came"
    ledger.close()
    assert not ledger.has_work()


def test_whatever_happens_every_stage_is_run_once_and_after_its_inputs():
    """Random trials, slots, deaths and withdrawals: the invariants of the whole."""
    for seed in range(300):
        try:
            _random_study(random.Random(seed))
        except AssertionError as error:
            raise AssertionError(f"with seed {seed}: {error}") from error


def _random_study(chance):
    ledger = Ledger()
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
    plans = {f"t{n}": plan for n, plan in enumerate(share_dense_runs(wanted))}
    for (trial, plan), fields in zip(plans.items(), wanted, strict=True):
        ledger.submit(trial, fields, plan)
    withdrawn: set[str] = set()
    slots = {slot: [ledger.join(slot), 0, None] for slot in range(chance.randint(1, 3))}
    done, executed, busy_epochs = set(), 0, {}
    ledger.close()
    while slots:
        slot = chance.choice(list(slots))
        state = slots[slot]
        if chance.random() < 0.02:
            state[:] = [ledger.join(slot), 0, None]
        elif chance.random() < 0.01:
            name = chance.choice(list(plans))
            ledger.withdraw(name, "stopped", "")
            withdrawn.add(name)
        elif state[2] is None:
            answer = ledger.next_stage(slot, state[0], state[1])
            if isinstance(answer, Stop):
                del slots[slot]
            elif isinstance(answer, Run):
                assert answer.stage.key not in done, "a stage runs once"
                assert done.issuperset(answer.stage.inputs.keys), "inputs come first"
                running = [s[2].stage.key for s in slots.values() if s[2] is not None]
                assert answer.stage.key not in running, "one slot a stage"
                state[1:] = [state[1] + 1, answer]
        else:
            stage = state[2].stage
            epochs = busy_epochs.setdefault(stage.key, 0)
            if epochs < stage.epochs:
                busy_epochs[stage.key] += 1
                executed += 1
                if not ledger.epoch_done(slot, stage.key, epochs + 1, {}, 1.0):
                    state[2] = None
            else:
                ledger.finished(slot, stage.key, None, {})
                done.add(stage.key)
                state[2] = None
    progress = ledger.progress()
    failed = {key for key, s in progress.stages.items() if s.status == "failed"}
    for name, plan in plans.items():
        if name not in withdrawn:
            assert all(stage.key in done | failed for stage in plan), "every trial ends"
    assert progress.executed_epochs == executed
    if not withdrawn and not failed:
        assert executed == count_epochs(plans.values()).unique
