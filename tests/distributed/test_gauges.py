"""What Prometheus hears of a study."""

import pytest

from rayprune.config import Experiment
from rayprune.distributed import gauges as module
from rayprune.distributed.gauges import Gauges
from rayprune.distributed.ledger import Ledger
from rayprune.plan import make_plan


@pytest.fixture
def shown(monkeypatch):
    """Name of a gauge and its study -> its value."""
    values = {}

    class Gauge:
        def __init__(self, name, description, tag_keys):
            assert description and tag_keys == ("study",)
            self.name = name

        def set(self, value, tags):
            assert isinstance(value, float)
            values[self.name, tags["study"]] = value

    monkeypatch.setattr(module, "Gauge", Gauge)
    return values


def submit(ledger, trial, **fields):
    experiment = Experiment.model_validate(fields)
    plan = make_plan(experiment)
    ledger.submit(trial, experiment, plan)
    return plan


def values_of(shown, study):
    return {name.removeprefix("rayprune_"): v for (name, of), v in shown.items() if of == study}


def test_gauges_say_how_a_study_stands(shown):
    ledger = Ledger()
    dense = submit(ledger, "a", prune={"cycles": 1})[0]
    submit(ledger, "b", prune={"cycles": 2})
    submit(ledger, "c", seed=1)
    for slot in (0, 1):
        life = ledger.join(slot)
    for epoch in (1, 2):
        assert ledger.next_stage(life, epoch).stage == dense
        ledger.epoch_done(life, dense.key, [{}], 1.0)
    Gauges("one").show(ledger)
    assert values_of(shown, "one") == {
        "epochs_done": 2.0,
        "epochs_lost": 1.0,
        "epochs_shared": float(dense.epochs),
        "stages_ready": 1.0,
        "stages_running": 1.0,
        "slots": 2.0,
    }


def test_studies_of_one_cluster_are_told_apart(shown):
    ledger = Ledger()
    ledger.join(0)
    one, two = Gauges("one"), Gauges("two")
    one.show(ledger)
    two.show(Ledger())
    assert [values_of(shown, study)["slots"] for study in ("one", "two")] == [1.0, 0.0]


def test_what_ended_is_shown_as_ended(shown):
    ledger, gauges = Ledger(), Gauges("one")
    submit(ledger, "a")
    ledger.next_stage(ledger.join(0), 0)
    gauges.show(ledger)
    assert shown["rayprune_slots", "one"] == shown["rayprune_stages_running", "one"] == 1.0
    ledger.slot_lost(0, "killed")
    gauges.show(ledger)
    assert shown["rayprune_slots", "one"] == shown["rayprune_stages_running", "one"] == 0.0
    assert shown["rayprune_stages_ready", "one"] == 1.0


def test_rays_own_gauges_take_what_is_described():
    """Their names and tags are checked when they are made."""
    Gauges("one")
