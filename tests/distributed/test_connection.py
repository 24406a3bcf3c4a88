"""How many slots a study gets, and what of Ray's words is kept back."""

import io

import pytest

from rayprune.config import Scaling
from rayprune.distributed import connection
from rayprune.distributed.connection import WithoutWorkerCounts, num_slots


@pytest.mark.parametrize(
    ("scaling", "num_trials", "slots"),
    [
        ({}, 100, 8),  # as many as the CPUs hold
        ({}, 3, 3),  # no more than there are trials
        ({"workers": 2}, 100, 4),
        ({"cpus_per_worker": 3}, 100, 2),
        ({"gpus_per_worker": 1}, 100, 4),  # the GPUs are fewer than the CPUs
        ({"gpus_per_worker": 0.25}, 100, 8),
        ({"workers": 16}, 100, 1),  # a cluster that is still empty gets one
        ({"slots": 64}, 100, 64),  # what the user says, for a cluster that grows
        ({"slots": 64}, 5, 5),
    ],
)
def test_slots_are_what_the_cluster_holds_and_the_study_needs(
    scaling, num_trials, slots, monkeypatch
):
    resources = {"CPU": 8.0, "GPU": 4.0}
    monkeypatch.setattr(connection.ray, "cluster_resources", lambda: resources)
    assert num_slots(Scaling.model_validate(scaling), num_trials) == slots


def test_an_empty_cluster_gets_one_slot(monkeypatch):
    monkeypatch.setattr(connection.ray, "cluster_resources", dict)
    assert num_slots(Scaling(gpus_per_worker=1), 9) == 1


def test_only_the_count_of_processes_is_kept_back():
    file = io.StringIO()
    stream = WithoutWorkerCounts(file)
    print("(raylet) WARNING: 8 PYTHON worker processes have been started on node", file=stream)
    print("(autoscaler) no node type can hold {'GPU': 3}", file=stream)
    assert file.getvalue() == "(autoscaler) no node type can hold {'GPU': 3}\n"
