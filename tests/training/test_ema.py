"""The average of the weights: what it is, that training does not see it, and that it is shipped."""

from dataclasses import replace

import pytest
import torch
from made_plans import WORKER, convolutional, kept, run, small_net
from torch import nn

from rayprune.plan import Inputs, make_plan
from rayprune.results.stages import read_manifest
from rayprune.training.ema import decay_at, start_average
from rayprune.training.evaluate import evaluate, recalibrate_batch_norm_
from rayprune.training.network import make_model
from rayprune.training.run import load_dataset, run_stage
from rayprune.training.task import TASKS

OPTIM = {"name": "adamw", "lr": 2e-3}
AVERAGED = {**OPTIM, "ema_decay": 0.95}


def made_model():
    torch.manual_seed(0)
    return small_net(10, 1).to(memory_format=torch.channels_last)


@torch.no_grad()
def disturb_(model, seed):
    """Other weights and batch-norm statistics, as a step leaves them."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(torch.randn(tensor.shape, generator=generator))
        else:
            tensor.add_(1)


def copied(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(tensors, others):
    assert tensors.keys() == others.keys()
    assert not [name for name in tensors if not torch.equal(tensors[name], others[name])]


def test_the_memory_grows_to_what_was_asked():
    decays = [decay_at(0.9, step) for step in (0, 1, 8, 79, 80, 81, 10**6)]
    assert decays == pytest.approx([0.1, 2 / 11, 0.5, 80 / 89, 0.9, 0.9, 0.9])


def test_it_is_the_weighted_sum_of_all_weights_so_far():
    model = made_model()
    average, expected = start_average(model, 0.3), copied(model)
    for step in range(6):
        disturb_(model, step)
        average.update_(step)
        decay = min(0.3, (1 + step) / (10 + step))
        for name, tensor in model.state_dict().items():
            is_float = tensor.is_floating_point()
            expected[name] = decay * expected[name] + (1 - decay) * tensor if is_float else tensor
    assert list(average.tensors) == list(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(average.tensors[name], tensor)
    assert average.tensors["1.num_batches_tracked"] == 6, "what is no float is copied"


def test_what_is_shipped_for_a_while_leaves_the_training_as_it_was():
    model = made_model()
    average = start_average(model, 0.5)
    disturb_(model, 1)
    average.update_(0)
    before, own = copied(model), {n: t.clone() for n, t in average.tensors.items()}
    with average.shipped():
        assert_same(copied(model), own)
    assert_same(copied(model), before)
    with pytest.raises(KeyError), average.shipped():
        raise KeyError
    assert_same(copied(model), before)
    assert_same(dict(average.tensors), own)
    average.restart_()
    assert_same(dict(average.tensors), before)
    disturb_(model, 2)
    average.ship_()
    assert_same(copied(model), before)


def test_pruned_places_stay_zero():
    """Also where a mask has left -0.0."""
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.data = torch.tensor([[0.0, 1.0], [0.0, 2.0]])
    average = start_average(layer, 0.999)
    for step in range(2000):
        layer.weight.data = torch.tensor([[-0.0, float(step)], [0.0, -float(step)]])
        average.update_(step)
    assert average.tensors["weight"][:, 0].tolist() == [0, 0]
    assert not average.tensors["weight"][:, 0].signbit().any()


class Odd(nn.Module):
    """Two layers that share a weight, and a buffer that is another tensor after each forward."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("seen", torch.zeros(2))
        self.register_buffer("nothing", None)

    def forward(self, x):
        self.seen = self.seen + x.mean(0)
        return self.second(self.first(x))


def test_shared_weights_count_once_and_replaced_buffers_are_found():
    model = Odd()
    average = start_average(model, 0.5)
    assert list(average.tensors) == ["seen", "first.weight"]
    model(torch.ones(3, 2))
    average.update_(0)
    torch.testing.assert_close(average.tensors["seen"], torch.full((2,), 0.9))
    with average.shipped():
        assert torch.equal(model.seen, average.tensors["seen"])
    assert torch.equal(model.seen, torch.ones(2))


def with_cycle(small, optim, **fields):
    return convolutional(small, optim=optim, dense={"epochs": 2}, prune={"sparsity": 0.8}, **fields)


@pytest.mark.parametrize("recalibrate", [False, True])
def test_what_is_measured_is_what_is_shipped(recalibrate, small, tmp_path):
    """In the end, and at the last epoch where nothing is changed after it."""
    wanted = with_cycle(small, AVERAGED, recalibrate_batch_norm=recalibrate)
    dataset = load_dataset(wanted.data, wanted.seed)
    last, _ = run(wanted, tmp_path)
    for stage, record in zip(make_plan(wanted), last.records, strict=True):
        model = make_model(wanted, dataset)
        model.load_state_dict(kept(tmp_path, stage.key).weights)
        model.to(memory_format=torch.channels_last)
        for name, split in (("val", dataset.val), ("test", dataset.test)):
            measured = evaluate(model, split, TASKS["classification"], 60, WORKER)
            assert measured["loss"] == pytest.approx(record.metrics[f"{name}_loss"], rel=1e-6)
        end = read_manifest(str(tmp_path), stage.key).history[-1]
        assert recalibrate or end["val_loss"] == record.metrics["val_loss"]
        if recalibrate:
            before = copied(model)
            recalibrate_batch_norm_(model, dataset.train, TASKS["classification"], 60, WORKER)
            assert_same(copied(model), before)


def test_training_goes_on_with_the_live_weights(small, tmp_path):
    """So the beginning of a run is the same with an average, which it hands on, and without."""
    weights = {}
    for name, optim in (("plain", OPTIM), ("averaged", AVERAGED)):
        wanted = convolutional(small, optim=optim, dense={"epochs": 2}, prune={"cycles": 0})
        plan = make_plan(wanted, cut_dense_at=[1])
        weights[name, 2] = run(wanted, tmp_path / name, plan)[0]
        weights[name, 1] = kept(tmp_path / name, plan[0].key)
    plain, averaged = weights["plain", 1], weights["averaged", 1]
    assert_same(dict(plain.weights), dict(averaged.weights))
    own = {n for n in averaged.training_state if n.startswith("average:")}
    assert own == {f"average:{name}" for name in averaged.weights}
    assert averaged.training_state.keys() - own == plain.training_state.keys()
    ends = [weights[name, 2] for name in ("plain", "averaged")]
    assert not torch.equal(ends[0].weights["0.weight"], ends[1].weights["0.weight"])
    assert all(not end.training_state for end in ends)


def test_a_cycle_without_epochs_is_the_same_with_an_average_and_without(small, tmp_path):
    """Also where its batch-norm statistics are estimated anew: the average begins with those."""
    ends, inputs = [], {}
    for optim in (AVERAGED, OPTIM):
        wanted = with_cycle(small, optim, retrain={"epochs": 0}, recalibrate_batch_norm=True)
        dense, cycle = make_plan(wanted)
        if not inputs:
            run(wanted, tmp_path)
            inputs = {dense.key: kept(tmp_path, dense.key)}
        again = replace(cycle, inputs=make_inputs(inputs), key=f"again {len(ends)}")
        ends.append(run_stage(wanted, again, inputs, WORKER, str(tmp_path))[0])
    assert_same(*(dict(end.weights) for end in ends))
    (before,) = inputs.values()
    assert not torch.equal(ends[0].weights["4.running_mean"], before.weights["4.running_mean"])


def make_inputs(snapshots):
    (key,) = snapshots
    return Inputs(weights=key, masks=key)


def test_a_cycle_starts_its_average_from_the_averaged_dense_run_as_it_was_pruned(small, tmp_path):
    wanted = with_cycle(small, AVERAGED)
    run(wanted, tmp_path)
    dense, cycle = make_plan(wanted)
    inputs = {dense.key: kept(tmp_path, dense.key)}
    untrained = replace(cycle, epochs=0, key="untrained")
    start, _ = run_stage(wanted, untrained, inputs, WORKER, str(tmp_path))
    for name, weight in inputs[dense.key].weights.items():
        mask = start.masks.get(name)
        expected = weight if mask is None else weight.masked_fill(~mask, 0.0)
        assert torch.equal(start.weights[name], expected)
