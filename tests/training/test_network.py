"""What an experiment's network costs."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from rayprune.config import Experiment
from rayprune.training.network import initial_snapshot, network_cost

DATASET = SimpleNamespace(
    classes=("a", "b"), example=(torch.zeros(1, 1, 4, 4), None), num_channels=1
)


class Choosy(nn.Sequential):
    """Runs with some weights only: here those without a negative one are refused."""

    def forward(self, x):
        if not self[0].weight.is_meta and bool((self[0].weight >= 0).all()):
            raise ArithmeticError("too large")
        return super().forward(x)


def network(num_classes, in_channels, kind=nn.Sequential):
    return kind(
        nn.Conv2d(in_channels, 4, 1), nn.Conv2d(4, 2, 4), nn.Flatten(), nn.Linear(2, num_classes)
    )


def costs(kind, caplog):
    torch.manual_seed(0)
    model = network(2, 1, kind)
    masks = {f"{n}.weight": torch.ones_like(model[n].weight) > 0 for n in (0, 1, 3)}
    masks["0.weight"][1] = False
    experiment = Experiment.model_validate({"model": {"target": f"{__name__}:network"}})
    own = network_cost(experiment, DATASET, masks)
    return own, network_cost(experiment, DATASET, masks, filtered=model), caplog.text


def test_what_reads_a_removed_filter_is_counted_as_gone(caplog):
    own, filtered, said = costs(nn.Sequential, caplog)
    assert own.num_nonzero - filtered.num_nonzero == 1 + 2 * 16  # its bias, and its readers
    assert own.flops_nonzero - filtered.flops_nonzero == 2 * 16
    assert not said


def test_a_network_that_cannot_be_looked_into_counts_its_filters_alone(caplog):
    own, filtered, said = costs(Choosy, caplog)
    assert own == filtered
    assert "count the removed filters' own weights alone: Choosy does not run" in said


class OnlyThere(nn.Module):
    """Runs where its users have it run, and nowhere else, as kernels for GPUs do."""

    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.fc = nn.Linear(16 * in_channels, num_classes)

    def forward(self, x):
        raise NotImplementedError("no kernel for this device")


class WithState(nn.Linear):
    def get_extra_state(self):
        return {"version": 2}

    def set_extra_state(self, state):
        pass


def with_state(num_classes, in_channels):
    return nn.Sequential(nn.Flatten(), WithState(16 * in_channels, num_classes))


def test_a_network_that_runs_only_elsewhere_is_counted_by_its_weights(caplog):
    experiment = Experiment.model_validate({"model": {"target": f"{__name__}:OnlyThere"}})
    masks = {"fc.weight": torch.ones(2, 16, dtype=torch.bool)}
    masks["fc.weight"][0] = False
    found = network_cost(experiment, DATASET, masks)
    assert (found.flops, found.flops_nonzero) == (32, 16)
    assert "flops count every weight once: OnlyThere" in caplog.text


def test_a_state_that_is_no_tensor_is_told():
    experiment = Experiment.model_validate({"model": {"target": f"{__name__}:with_state"}})
    with pytest.raises(ValueError, match=r"must hold tensors alone, got 1\._extra_state"):
        initial_snapshot(with_state(2, 1), experiment)
