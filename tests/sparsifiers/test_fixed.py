"""Fixed masks: what was removed stays exactly 0 while all else trains on."""

import pytest
import torch
from stepping import Training
from torch import nn

from rayprune.pruning.masks import apply_
from rayprune.sparsifiers import FixedMasks

STEPS = 8


def made_model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 4)
    ).to(memory_format=torch.channels_last)


def made_masks():
    generator = torch.Generator().manual_seed(1)
    return {
        "0.weight": torch.rand(6, 2, 3, 3, generator=generator) > 0.5,
        "4.weight": torch.rand(4, 216, generator=generator) > 0.5,
    }


def made_batches():
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(STEPS, 16, 2, 8, 8, generator=generator)
    return list(zip(images, torch.randint(4, (STEPS, 16), generator=generator), strict=True))


def begin(masks, *, silenced=None, decay="all", weight_decay=0.01):
    model = made_model()
    sparsifier = FixedMasks(model, masks, silenced=silenced or {}, weight_decay=weight_decay)
    groups = sparsifier.parameter_groups(decay=decay)
    return Training(model, sparsifier, torch.optim.SGD(groups, lr=0.1, momentum=0.9))


def test_removed_weights_are_zero_from_the_start_and_at_every_step():
    masks = made_masks()
    training, start = begin(masks), made_model()
    for step, batch in enumerate([None, *made_batches()]):
        if batch is not None:
            training.classify([batch], step - 1)
        for name, mask in masks.items():
            weight = training.model.get_parameter(name)
            assert not weight[~mask].any() and weight[mask].all()
    assert training.sparsifier.finish() is masks
    for name, parameter in start.named_parameters():
        trained = training.model.get_parameter(name)
        kept = masks.get(name, torch.ones_like(parameter, dtype=torch.bool))
        assert not trained[~kept].signbit().any(), "+0.0 when it ends"
        assert not torch.equal(trained[kept], parameter[kept]), "all else is trained"


def test_it_trains_as_one_that_masks_its_weights_by_hand():
    masks, model = made_masks(), made_model()
    apply_(model, masks)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    training = begin(masks)
    training.classify(made_batches())
    for images, classes in made_batches():
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), classes).backward()
        optimizer.step()
        apply_(model, masks)
    for name, tensor in model.state_dict().items():
        assert torch.equal(training.model.state_dict()[name], tensor), name


def test_masks_that_remove_nothing_are_not_multiplied():
    masks = made_masks() | {"0.weight": torch.ones(6, 2, 3, 3, dtype=torch.bool)}
    assert list(begin(masks).sparsifier.masks) == ["4.weight"]
    assert (
        begin({name: torch.ones_like(mask) for name, mask in masks.items()}).sparsifier.masks == {}
    )


def test_masks_are_laid_out_as_their_weights():
    sparsifier = begin(made_masks()).sparsifier
    for name, mask in sparsifier.masks.items():
        assert mask.stride() == sparsifier.model.get_parameter(name).stride()
        assert torch.equal(mask, made_masks()[name])
    assert not sparsifier.masks["0.weight"].is_contiguous()


def test_what_belongs_to_a_removed_filter_is_silent_and_no_mask_of_the_result():
    masks, channel = made_masks(), torch.tensor([True, False, True, True, False, True])
    masks["0.weight"] = channel[:, None, None, None].expand(6, 2, 3, 3).clone()
    silenced = {"0.bias": channel, "1.weight": channel, "1.bias": channel}
    training = begin(masks, silenced=silenced)
    with torch.no_grad():
        training.model[1].running_mean.fill_(3.0)
    training.classify(made_batches())
    assert training.sparsifier.finish() is masks
    for name in silenced:
        parameter = training.model.get_parameter(name)
        assert not parameter[~channel].any() and not parameter[~channel].signbit().any()
    assert training.model[1].weight[channel].all()
    with torch.no_grad():
        outputs = training.model.eval()[:3](made_batches()[0][0])
    assert not outputs[:, ~channel].any() and outputs[:, channel].any()


def test_the_network_that_is_measured_is_the_one_that_trains():
    masks = made_masks()
    training = begin(masks)
    training.classify(made_batches()[:3])
    before = {name: tensor.clone() for name, tensor in training.model.state_dict().items()}
    with training.sparsifier.shipped() as shipped:
        assert shipped is masks
        inside = training.model.state_dict()
        assert all(torch.equal(inside[name], tensor) for name, tensor in before.items())
    assert training.sparsifier.state() == {}
    training.sparsifier.load_state({})


@pytest.mark.parametrize(
    ("decay", "decayed"),
    [
        ("all", {"0.weight", "0.bias", "1.weight", "1.bias", "4.weight", "4.bias"}),
        ("weights", {"0.weight", "4.weight"}),
    ],
)
def test_weight_decay_is_for_all_or_for_weights_alone(decay, decayed):
    training = begin(made_masks(), decay=decay, weight_decay=0.03)
    names = {id(parameter): name for name, parameter in training.model.named_parameters()}
    found = {
        names[id(parameter)]: group["weight_decay"]
        for group in training.optimizer.param_groups
        for parameter in group["params"]
    }
    assert found == {name: 0.03 if name in decayed else 0.0 for name in names.values()}
