"""What is written is what is read; what is damaged is refused."""

import numpy as np
import pytest
import torch
from made_records import record
from torch import nn

from rayprune.config import Prune
from rayprune.plan import Stage
from rayprune.pruning.masks import num_pruned, prunable
from rayprune.snapshot.encoding import Snapshot, SnapshotError, decode, encode
from rayprune.snapshot.prune import norm_drop, prune


def make_snapshot():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(20, 7))
    weights = dict(model.state_dict())
    masks = {name: torch.rand(weights[name].shape) > 0.7 for name in prunable(model)}
    masks["0.weight"] = torch.ones(5, 3, 3, 3, dtype=torch.bool)
    weights["3.weight"] = weights["3.weight"] * masks["3.weight"]
    return Snapshot(weights, masks, (record(), record(stage=1, parent="k")))


def stage(sparsity, index=1):
    return Stage(
        index=index, epochs=1, sparsity=sparsity, schedule="llr", adapt=False, key="x", parent="k"
    )


@pytest.mark.parametrize("as_array", [False, True])
def test_what_is_written_is_what_is_read(as_array):
    before = make_snapshot()
    content = encode(before)
    after = decode(np.frombuffer(content, np.uint8) if as_array else content)
    assert after.records == before.records
    assert list(after.weights) == list(before.weights) and list(after.masks) == list(before.masks)
    assert all(torch.equal(after.weights[k], before.weights[k]) for k in before.weights)
    assert all(torch.equal(after.masks[k], before.masks[k]) for k in before.masks)
    assert encode(after) == content


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


@pytest.mark.parametrize("damage", [lambda c: b"", lambda c: c[:100], lambda c: b"nonsense" * 9])
def test_damaged_bytes_are_refused(damage):
    with pytest.raises(SnapshotError):
        decode(damage(encode(make_snapshot())))


def test_a_prune_step_touches_no_weight_and_only_shrinks_masks():
    before = make_snapshot()
    copies = {k: v.clone() for k, v in before.weights.items()}
    after = prune(before, stage(0.9), Prune(sparsity=0.9))
    assert all(torch.equal(before.weights[k], copies[k]) for k in copies)
    assert all((after.masks[k] <= before.masks[k]).all() for k in after.masks)
    assert num_pruned(after.masks) == round(0.9 * sum(m.numel() for m in after.masks.values()))


def test_ignored_weights_stay_dense_and_the_goal_counts_the_others():
    before = make_snapshot()
    after = prune(before, stage(0.9), Prune(sparsity=0.9, ignore=("0",)))
    assert after.masks["0.weight"].all()
    assert int((~after.masks["3.weight"]).sum()) == round(0.9 * 140)


def test_the_dense_stage_and_a_goal_that_is_passed_prune_nothing():
    before = make_snapshot()
    assert prune(before, stage(0.9, index=0), Prune()) is before
    after = prune(before, stage(0.1), Prune(sparsity=0.1))
    assert all(torch.equal(after.masks[k], before.masks[k]) for k in before.masks)


def test_norm_drop_on_a_case_done_by_hand():
    # ||W||^2 = 9 + 16 + 144 + 0 = 169; the step removes 3 and 4 of the 3 weights that remain.
    parameters = {"w": torch.tensor([3.0, 4.0, 12.0, 0.0]), "bias": torch.tensor([0.0])}
    before = {"w": torch.tensor([True, True, True, False])}
    after = {"w": torch.tensor([False, False, True, False])}
    assert norm_drop(parameters, before, after) == pytest.approx(5 / 13 / (2 / 3) ** 0.5)
    assert norm_drop(parameters, after, after) == 0


@pytest.mark.parametrize(
    ("q", "d1"),
    [(0.2, 0.146), (0.5, 0.378), (0.8, 0.662), (0.9, 0.789), (0.95, 0.871), (0.99, 0.962)],
)
def test_norm_drop_of_gaussian_weights_has_the_check_values(q, d1):
    weights = {"w": torch.randn(400_000, generator=torch.Generator().manual_seed(0))}
    masks = {"w": torch.ones(400_000, dtype=torch.bool)}
    after = prune(Snapshot(weights, masks), stage(q), Prune(sparsity=q)).masks
    assert norm_drop(weights, masks, after) == pytest.approx(d1, abs=2e-3)
