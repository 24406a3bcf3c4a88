"""What a study needs that is not installed is told before anything runs."""

import pytest
import torch
from torch import nn

from rayprune import checks
from rayprune.checks import check_parts
from rayprune.config import Study


def test_coupled_filters_need_an_extra(monkeypatch):
    prune = {"pattern": "filter", "couple_filters": True}
    study = Study.model_validate({"experiment": {"prune": prune}})
    check_parts(study, [])
    monkeypatch.setattr("rayprune.checks.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"couple_filters: true .*install rayprune\[small\]"):
        check_parts(study, [])


class Counting(nn.Module):
    """No channel runs through it."""

    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.layer = nn.Conv2d(in_channels, num_classes, 3)

    def forward(self, x):
        return len(self.layer(x))


def some_images():
    raise AssertionError("only a run may call this")


def coupling(**experiment):
    prune = {"pattern": "filter", "couple_filters": True}
    return Study.model_validate({"experiment": {"prune": prune, **experiment}})


def test_a_network_whose_channels_cannot_be_followed_is_told_before_anything_runs():
    study = coupling(model={"target": f"{__name__}:Counting"})
    with pytest.raises(ValueError, match=r"couple_filters: true .* Counting: .* Write false"):
        check_parts(study, [])


def test_channels_are_followed_only_where_that_is_asked_for_and_the_data_is_known(monkeypatch):
    asked = []
    monkeypatch.setattr(checks, "_check_channels", lambda model, *_: asked.append(model.name))
    check_parts(coupling(model={"name": "resnet20"}), [])
    check_parts(coupling(data={"target": f"{__name__}:some_images"}), [])
    check_parts(Study.model_validate({"experiment": {"prune": {"pattern": "filter"}}}), [])
    assert asked == ["resnet20"]


def test_following_channels_draws_no_random_number():
    state = torch.get_rng_state()
    check_parts(coupling(model={"name": "resnet20"}), [])
    assert torch.get_rng_state().equal(state)
