"""What is left is said once it is measured, and is right where every epoch takes as long."""

import pytest

from rayprune.config import Experiment
from rayprune.console.estimate import LEAST_EPOCHS, Estimate
from rayprune.plan import make_plan
from rayprune.results.progress import StageProgress, StudyProgress


def stages_of(*plans):
    return {stage.key: stage for plan in plans for stage in plan}


def plan(**fields):
    return make_plan(Experiment.model_validate({"retrain": {"epochs": 4}, **fields}))


def simulate(plans, num_parallel, *, epoch_s=2.0, first_s=20.0):
    """(time, what is said, truth) at every step of a study whose epochs take `epoch_s`.

    The first epoch takes `first_s`, since workers warm up.
    """
    stages = stages_of(*plans)
    estimate, done, now, said = Estimate(stages), dict.fromkeys(stages, 0), 0.0, []
    executed, is_first = 0, True
    while any(done[key] < stage.epochs for key, stage in stages.items()):
        ready = [
            key
            for key, stage in stages.items()
            if done[key] < stage.epochs
            and all(done[k] == stages[k].epochs for k in stage.inputs.keys)
        ]
        running = ready[:num_parallel]

        estimate.note(_progress(stages, done, running, executed, num_parallel), now)
        now += first_s if is_first else epoch_s
        is_first = False
        for key in running:
            done[key] += 1
            executed += 1
        progress = _progress(stages, done, running, executed, num_parallel)
        estimate.note(progress, now)
        said.append((now, estimate.seconds_left(progress)))
    return [(at, left, now - at) for at, left in said]


def _progress(stages, done, running, executed, num_parallel):
    states = {}
    for key, stage in stages.items():
        over = done[key] == stage.epochs
        status = "done" if over else "running" if key in running else "wanted"
        states[key] = StageProgress(status, done[key])
    return StudyProgress(states, executed_epochs=executed, num_parallel=num_parallel)


@pytest.mark.parametrize("num_parallel", [1, 2])
def test_it_is_right_in_a_study_of_equal_epochs(num_parallel):
    plans = [plan(retrain={"epochs": 4, "schedule": s}) for s in ("llr", "slr", "clr", "allr")]
    told = [(left, truth) for _, left, truth in simulate(plans, num_parallel) if left is not None]
    assert len(told) > 8
    for left, truth in told:
        # A dense run leaves the second slot idle: the two bounds are then a little too low.
        assert 0.6 * truth <= left <= 1.05 * truth
    assert told[-1][0] == pytest.approx(2.0)


def test_a_chain_of_cycles_takes_its_own_length_however_many_slots():
    told = simulate([plan(prune={"cycles": 3})], num_parallel=8)
    for _, left, truth in told[LEAST_EPOCHS + 1 : -1]:
        assert left == pytest.approx(truth)


def test_nothing_is_said_from_the_first_epoch_which_warms_up():
    told = simulate([plan()], num_parallel=1)
    assert [left for _, left, _ in told[:LEAST_EPOCHS]] == [None] * LEAST_EPOCHS
    assert max(left for _, left, _ in told if left) < 40, "the 20 s of the first do not count"
