"""How long a study takes in the order that the ledger chooses, against the best order there is."""

import math
import random
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations, count, pairwise, product
from statistics import fmean

import pytest

from rayprune.config import Experiment
from rayprune.config.load import load_study, shipped_studies
from rayprune.distributed.ledger import Ledger, Run
from rayprune.plan import Inputs, Stage
from rayprune.trials import make_trials

EXPERIMENT = Experiment()
NUM_TREES = 400
EPOCH_S = 10.0

LISTED = [n for n in shipped_studies() if load_study(n).search.algorithm.is_listed]


@dataclass(frozen=True)
class Tree:
    """Stages that a study shares; a trial ends at each stage that nothing goes on from."""

    epochs: tuple[int, ...]
    parents: tuple[int | None, ...]
    """Of each stage the one that it goes on from, which is one before it; None: a dense run."""

    @property
    def plans(self):
        """Of each trial."""
        ends = [stage for stage in range(len(self.epochs)) if stage not in self.parents]
        return [[stage_of(self, stage) for stage in self.chain(end)] for end in ends]

    def chain(self, stage):
        parent = self.parents[stage]
        return [*([] if parent is None else self.chain(parent)), stage]


def random_tree(chance):
    """Dense runs, cycles after them, and cycles that go on from cycles, up to eight stages."""
    num_stages = chance.randint(2, 8)
    num_dense = chance.randint(1, min(3, num_stages))
    parents = [None] * num_dense
    parents += [chance.randrange(number) for number in range(num_dense, num_stages)]
    return Tree(tuple(chance.randint(1, 6) for _ in parents), tuple(parents))


def random_trees():
    """With a number of slots for each."""
    chance = random.Random(0)
    return [(random_tree(chance), chance.randint(1, 3)) for _ in range(NUM_TREES)]


# ---- what the ledger makes of it ----


def stage_of(tree, number):
    parent = tree.parents[number]
    before = None if parent is None else f"{parent}"
    return Stage(
        cycle=len(tree.chain(number)) - 1,
        epochs=tree.epochs[number],
        sparsity=0.5,
        schedule="llr",
        key=f"{number}",
        inputs=Inputs(weights=before, masks=before),
    )


class Slots:
    """Slots that ask a ledger for stages; all epochs take equally long."""

    def __init__(self, plans, num_slots):
        self.now, self.plans, self.ended = 0, plans, {}
        self.ledger = Ledger(idle_timeout_s=math.inf, clock=lambda: 1.0 + self.now * EPOCH_S)
        for number, plan in enumerate(plans):
            self.ledger.submit(f"{number}", EXPERIMENT, plan)
        self.lives = [self.ledger.join(slot) for slot in range(num_slots)]
        self.numbers = [count() for _ in self.lives]
        self.runs = {}

    def run(self):
        """Return when each trial ended, in epochs, the first one first."""
        self.ask()
        while self.runs:
            self.now += 1
            for slot in list(self.runs):
                self.epoch(slot)
            self.ask()
        return sorted(self.ended[plan[-1].key] for plan in self.plans)

    def ask(self):
        for slot in range(len(self.lives)):
            while slot not in self.runs and self.found_work(slot):
                if self.runs[slot][0].epochs == 0:  # it prunes, and retrains nothing
                    self.finish(slot)

    def found_work(self, slot):
        answer = self.ledger.next_stage(self.lives[slot], next(self.numbers[slot]))
        if isinstance(answer, Run):
            self.runs[slot] = answer.stage, self.now
        return isinstance(answer, Run)

    def epoch(self, slot):
        stage, begun = self.runs[slot]
        done = self.now - begun
        assert self.ledger.epoch_done(self.lives[slot], stage.key, [{}] * done, 1.0)
        if done == stage.epochs:
            self.finish(slot)

    def finish(self, slot):
        stage, _ = self.runs.pop(slot)
        self.ledger.finished(self.lives[slot], stage.key, None, {})
        self.ended[stage.key] = self.now


def makespan(tree, num_slots):
    return Slots(tree.plans, num_slots).run()[-1]


def least(plans, num_slots):
    """No order takes less: whatever begins late and is far from the end shares the slots."""
    stages = {stage.key: stage for plan in plans for stage in plan}
    heads, tails = dict.fromkeys(stages, 0), dict.fromkeys(stages, 0)
    for plan in plans:
        for before, stage in pairwise(plan):
            heads[stage.key] = heads[before.key] + before.epochs
        for stage, after in reversed(list(pairwise(plan))):
            way = after.epochs + tails[after.key]
            tails[stage.key] = max(tails[stage.key], way)
    times = [heads[key] + stage.epochs + tails[key] for key, stage in stages.items()]
    for head, tail in product({*heads.values()}, {*tails.values()}):
        late = [s.epochs for k, s in stages.items() if heads[k] >= head and tails[k] >= tail]
        times += [head + math.ceil(sum(late) / num_slots) + tail] if late else []
    return max(times)


# ---- the best there is ----


def best(tree, num_slots):
    """The least time that any order takes, slots that wait on purpose included."""
    everything = range(len(tree.epochs))

    @cache
    def rest(done, running):
        """Time from here on; `running` has (epochs left, stage) of what runs."""
        begun = done | {stage for _, stage in running}
        ready = [s for s in everything if s not in begun and tree.parents[s] in {None} | done]
        num_free = min(num_slots - len(running), len(ready))
        times = []
        # Something may end before a slot begins: fewer than all that are free may be used.
        for number in range(num_free, -1 if running else 0, -1):
            for chosen in combinations(ready, number):
                runs = [*running, *((tree.epochs[s], s) for s in chosen)]
                step = min(left for left, _ in runs)
                ended = {s for left, s in runs if left == step}
                runs = tuple(sorted((left - step, s) for left, s in runs if left > step))
                times.append(step + rest(done | ended, runs))
        return min(times, default=0)

    return rest(frozenset(), ())


@pytest.mark.parametrize(
    ("tree", "num_slots", "expected"),
    [
        (Tree((3,), (None,)), 2, 3),
        (Tree((3, 2, 1), (None, 0, 1)), 3, 6),
        (Tree((3, 3, 2, 2, 2), (None,) * 5), 2, 6),
        (Tree((1, 3, 3, 3), (None, 0, 0, None)), 2, 6),
        (Tree((4, 4, 4), (None,) * 3), 2, 8),
    ],
)
def test_the_best_order_of_what_is_known(tree, num_slots, expected):
    assert best(tree, num_slots) == expected


# ---- laws ----


@pytest.fixture(scope="module")
def times():
    """(Tree, slots, time in the ledger's order, time in the best)."""
    found = []
    for tree, num_slots in random_trees():
        time = makespan(tree, num_slots)
        is_best = time == least(tree.plans, num_slots)
        found.append((tree, num_slots, time, time if is_best else best(tree, num_slots)))
    return found


def test_no_study_takes_longer_than_grahams_bound(times):
    for tree, num_slots, time, optimum in times:
        assert optimum <= time <= (2 - 1 / num_slots) * optimum, tree


def test_studies_take_hardly_longer_than_in_the_best_order(times):
    """With two and three slots: 0.4 percent longer on average, and 96 of 100 are optimal."""
    ratios = [time / optimum for _, num_slots, time, optimum in times if num_slots > 1]
    optimal = fmean(ratio == 1 for ratio in ratios)
    print(f"\nmean {fmean(ratios):.4f}, worst {max(ratios):.3f}, optimal {optimal:.1%}")
    assert fmean(ratios) < 1.01 and max(ratios) < 1.3 and optimal > 0.9


def test_one_slot_is_never_idle(times):
    """Whatever the order."""
    assert all(time == sum(tree.epochs) for tree, slots, time, _ in times if slots == 1)


@pytest.mark.parametrize("num_slots", [1, 2, 3])
def test_a_single_trial_takes_as_long_as_its_stages(num_slots):
    tree = Tree((5, 1, 6, 2), (None, 0, 1, 2))
    assert makespan(tree, num_slots) == 14


def test_as_many_slots_as_trials_end_with_the_longest_trial(times):
    for tree, *_ in times:
        num_slots = len(tree.plans)
        assert makespan(tree, num_slots) == least(tree.plans, num_slots=1_000)


def test_dense_runs_alone_take_no_longer_than_the_bound_of_longest_first():
    """Graham, 1969: no more than 4/3 - 1/(3 S) of the best."""
    chance, worst = random.Random(1), 1.0
    for _ in range(100):
        epochs = tuple(chance.randint(1, 6) for _ in range(chance.randint(1, 7)))
        tree, num_slots = Tree(epochs, (None,) * len(epochs)), chance.randint(2, 3)
        ratio = makespan(tree, num_slots) / best(tree, num_slots)
        assert ratio <= 4 / 3 - 1 / (3 * num_slots), tree
        worst = max(worst, ratio)
    print(f"\nworst {worst:.3f}")


def test_dense_runs_that_longest_first_is_worst_for_meet_the_bound():
    tree = Tree((3, 3, 2, 2, 2), (None,) * 5)
    assert makespan(tree, 2) / best(tree, 2) == pytest.approx(4 / 3 - 1 / 6)


def test_stages_that_all_take_equally_long_are_run_in_the_best_order():
    """Hu, 1961: the longest way first is optimal then."""
    for tree, num_slots in random_trees():
        tree = replace(tree, epochs=(1,) * len(tree.epochs))
        time = makespan(tree, num_slots)
        assert time in (least(tree.plans, num_slots), best(tree, num_slots)), tree


# Of those whose trials are known before; a searcher's are proposed as it runs. With two or three
# trials, as recipes have, no order reaches the bound.
LISTED = [
    name
    for name in shipped_studies()
    if load_study(name).search.algorithm.is_listed and not name.startswith("recipe_")
]


@pytest.mark.parametrize("num_slots", [2, 4, 8, 16])
@pytest.mark.parametrize("name", LISTED)
def test_a_study_as_people_write_it_takes_hardly_longer_than_any_order_could(name, num_slots):
    plans = [trial.plan for trial in make_trials(load_study(name))]
    ratio = Slots(plans, num_slots).run()[-1] / least(plans, num_slots)
    print(f"\n{name}, {num_slots} slots: {ratio:.3f}")
    assert 1 <= ratio < 1.1
