"""What is written is what is read; what is damaged is refused."""

import numpy as np
import pytest
import torch
from made_records import record
from torch import nn

from rayprune.pruning.masks import prunable
from rayprune.snapshot import Snapshot, SnapshotError, decode, encode


def made_snapshot(*, training=False):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(20, 7))
    weights = dict(model.state_dict())
    masks = {name: torch.rand(weights[name].shape) > 0.7 for name in prunable(model)}
    masks["0.weight"] = torch.ones(5, 3, 3, 3, dtype=torch.bool)
    weights["3.weight"] = weights["3.weight"] * masks["3.weight"]
    records = (record(), record(cycle=1, key="l", weights_from="w", masks_from="k", part_of="p"))
    kept = {
        f"exp_avg:{name}": torch.randn_like(weight) for name, weight in model.named_parameters()
    }
    kept["step:0.weight"] = torch.tensor(3.0)
    return Snapshot(weights, masks, records, kept if training else {})


@pytest.mark.parametrize("as_array", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_what_is_written_is_what_is_read(training, as_array):
    before = made_snapshot(training=training)
    content = encode(before)
    after = decode(np.frombuffer(content, np.uint8) if as_array else content)
    assert after.records == before.records
    assert len(before.training_state) == (7 if training else 0)
    for field in ("weights", "masks", "training_state"):
        written, read = getattr(before, field), getattr(after, field)
        assert list(read) == list(written), "names keep their order"
        for name, tensor in written.items():
            assert read[name].dtype == tensor.dtype and torch.equal(read[name], tensor), name
    assert encode(after) == content


def test_momentum_under_a_mask_is_written_whole():
    """It belongs to the optimiser, which a mask does not thin out."""
    mask = torch.tensor([[True, False], [False, True]])
    weight, momentum = torch.eye(2), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    after = decode(
        encode(Snapshot({"w": weight}, {"w": mask}, (), {"momentum_buffer:w": momentum}))
    )
    assert torch.equal(after.training_state["momentum_buffer:w"], momentum)


def test_a_sparse_snapshot_is_small():
    weight = torch.randn(1000, 100)
    mask = torch.zeros(1000, 100, dtype=torch.bool)
    mask.view(-1)[::20] = True
    content = encode(Snapshot({"w": weight * mask}, {"w": mask}))
    survivors, bits = 4 * 5_000, 100_000 // 8
    assert len(content) < 1.02 * (survivors + bits)


def test_a_kept_weight_that_is_zero_stays_kept():
    snapshot = Snapshot(
        {"w": torch.zeros(2, 2)}, {"w": torch.tensor([[True, False], [False, True]])}
    )
    assert torch.equal(decode(encode(snapshot)).masks["w"], snapshot.masks["w"])


@pytest.mark.parametrize("mask", [torch.zeros(3, 5), torch.ones(3, 5), torch.eye(3, 5)])
def test_layers_that_lost_all_or_nothing_are_read_as_they_were(mask):
    weight = torch.randn(3, 5) * mask
    after = decode(encode(Snapshot({"w": weight}, {"w": mask.bool()})))
    assert torch.equal(after.weights["w"], weight) and torch.equal(after.masks["w"], mask.bool())


def test_a_weight_laid_out_by_channels_last_is_read_in_its_own_order():
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    mask = torch.rand(4, 3, 2, 2) > 0.5
    snapshot = Snapshot({"w": weight * mask}, {"w": mask}, (), {"momentum_buffer:w": weight})
    after = decode(encode(snapshot))
    assert torch.equal(after.weights["w"], weight * mask)
    assert torch.equal(after.training_state["momentum_buffer:w"], weight)


def test_tensors_that_share_memory_are_written_each():
    """Those of layers that share a weight, and parts of one tensor."""
    shared = torch.arange(6.0).view(2, 3)
    weights = {"a": shared, "b": shared, "row": shared[1], "turned": shared.T}
    after = decode(encode(Snapshot(weights, {})))
    assert all(torch.equal(after.weights[name], weight) for name, weight in weights.items())


@pytest.mark.parametrize("damage", [lambda c: b"", lambda c: c[:100], lambda c: b"nonsense" * 9])
def test_damaged_bytes_are_refused(damage):
    with pytest.raises(SnapshotError):
        decode(damage(encode(made_snapshot())))
