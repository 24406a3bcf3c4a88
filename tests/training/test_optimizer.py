"""Each optimiser trains as torch's own loop does, keeps masks, and goes on as if never stopped."""

import pytest
import torch
import torch.multiprocessing as multiprocessing
import torch.nn.functional as F
from made_plans import assert_equal, convolutional, kept, run, run_until_killed
from torch import distributed, nn

from rayprune.config.optim import Optim
from rayprune.data import NUM_RANDOMS
from rayprune.plan import make_plan
from rayprune.pruning.masks import digest, num_pruned, num_weights
from rayprune.sparsifiers import FixedMasks
from rayprune.training.network import make_model
from rayprune.training.optimizer import clip_gradients_, make_optimizer
from rayprune.training.order import epoch_order, epoch_randoms
from rayprune.training.run import load_dataset, run_plan
from rayprune.training.worker import Worker, leave_process_group, training_process

SGD = {"lr": 0.05, "weight_decay": 5e-4}
ADAM = {"name": "adam", "lr": 2e-3, "betas": (0.8, 0.99), "weight_decay": 1e-3}
ADAMW = {"name": "adamw", "lr": 2e-3, "weight_decay": 0.05}
KINDS = {"sgd": SGD, "adam": ADAM, "adamw": ADAMW}
AVERAGED = {f"{name}, averaged": {**optim, "ema_decay": 0.9} for name, optim in KINDS.items()}
OPTIMS = {
    **KINDS,
    **AVERAGED,
    "sgd, no decay": {"lr": 0.05, "weight_decay": 0.0},
    **{f"{name}, clipped": {**optim, "clip_norm": 0.5} for name, optim in KINDS.items()},
    **{f"{name}, weights decay": {**optim, "decay": "weights"} for name, optim in KINDS.items()},
    "adamw, all": {**ADAMW, "clip_norm": 0.5, "decay": "weights", "ema_decay": 0.95},
}
CYCLES = {name: OPTIMS[name] for name in (*KINDS, *AVERAGED, "adamw, all")}


def plain_loop(wanted, start=None, masks=None, *, cycle=0):
    """Two epochs with a constant learning rate, written with torch alone."""
    dataset, optim, masks = load_dataset(wanted.data, wanted.seed), wanted.optim, masks or {}
    model = make_model(wanted, dataset)
    if start is not None:
        model.load_state_dict(start)
    model.to(memory_format=torch.channels_last).train()
    mask_(model, masks)
    decayed = [p for p in model.parameters() if optim.decay == "all" or p.ndim > 1]
    spared = [p for p in model.parameters() if optim.decay == "weights" and p.ndim == 1]
    groups = [{"params": decayed}, {"params": spared, "weight_decay": 0.0}]
    settings = {"lr": optim.lr, "weight_decay": optim.weight_decay, "fused": True}
    if optim.name == "sgd":
        nesterov = optim.weight_decay > 0
        optimizer = torch.optim.SGD(groups, momentum=0.9, nesterov=nesterov, **settings)
    else:
        kind = torch.optim.Adam if optim.name == "adam" else torch.optim.AdamW
        optimizer = kind(groups, betas=optim.betas, eps=1e-8, **settings)
    average = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batch = wanted.batch_size
    steps, step = len(dataset.train) // batch, 0
    for epoch in range(2):
        where = {"seed": wanted.seed, "cycle": cycle, "epoch": epoch}
        order = epoch_order(len(dataset.train), batch, **where).unbind()
        randoms = epoch_randoms(steps, batch, NUM_RANDOMS, **where).unbind()
        for images, labels in dataset.train.batches(
            order, device=torch.device("cpu"), randoms=randoms
        ):
            scores = model(images.to(memory_format=torch.channels_last))
            optimizer.zero_grad()
            F.cross_entropy(scores, labels, label_smoothing=wanted.label_smoothing).backward()
            for name, mask in masks.items() if optim.clip_norm else ():
                model.get_parameter(name).grad[~mask] = 0
            if optim.clip_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), optim.clip_norm)
            optimizer.step()
            mask_(model, masks)
            decay = min(optim.ema_decay or 0.0, (1 + step) / (10 + step))
            for name, tensor in model.state_dict().items():
                if tensor.is_floating_point():
                    average[name].lerp_(tensor, 1 - decay)
                else:
                    average[name].copy_(tensor)
            step += 1
    return model.state_dict() if optim.ema_decay is None else average


@torch.no_grad()
def mask_(model, masks):
    for name, mask in masks.items():
        model.get_parameter(name)[~mask] = 0


@pytest.mark.parametrize(
    ("optim", "smoothing"),
    [*((optim, 0.0) for optim in OPTIMS.values()), (SGD, 0.1), (OPTIMS["adamw, all"], 0.1)],
    ids=[*OPTIMS, "sgd, smoothed", "adamw, all, smoothed"],
)
def test_a_dense_run_is_torchs_own_loop_bit_for_bit(optim, smoothing, small, tmp_path):
    dense = {"epochs": 2, "schedule": "constant"}
    wanted = convolutional(
        small, optim=optim, dense=dense, label_smoothing=smoothing, prune={"cycles": 0}
    )
    snapshot, _ = run(wanted, tmp_path)
    by_hand = plain_loop(wanted)
    assert list(snapshot.weights) == list(by_hand)
    assert not [n for n, w in by_hand.items() if not torch.equal(w, snapshot.weights[n])]


@pytest.mark.parametrize("optim", CYCLES.values(), ids=CYCLES)
def test_a_cycle_is_torchs_own_loop_with_masks_after_each_step(optim, small, tmp_path):
    """It begins with a fresh optimiser and average, at step 0."""
    retrain = {"epochs": 2, "schedule": "constant", "lr": optim["lr"]}
    wanted = convolutional(small, optim=optim, dense={"epochs": 1}, retrain=retrain)
    snapshot, _ = run(wanted, tmp_path)
    start = kept(tmp_path, make_plan(wanted)[0].key).weights
    by_hand = plain_loop(wanted, start, snapshot.masks, cycle=1)
    assert not [n for n, w in by_hand.items() if not torch.equal(w, snapshot.weights[n])]


@pytest.mark.parametrize(
    ("name", "pattern"),
    [*((name, "unstructured") for name in CYCLES), ("sgd", "filter"), ("adamw, all", "filter")],
)
def test_survivors_are_exactly_the_mask(name, pattern, small, tmp_path):
    """Neither averages of gradients nor decay beside the gradient bring a pruned weight back."""
    prune = {"sparsity": 0.6, "pattern": pattern, "ignore": ["7"] if pattern == "filter" else []}
    optim, dense = OPTIMS[name], {"epochs": 1}
    wanted = convolutional(small, optim=optim, prune=prune, dense=dense, retrain={"epochs": 2})
    snapshot, _ = run(wanted, tmp_path)
    counted = {n: m for n, m in snapshot.masks.items() if n not in prune["ignore"]}
    if pattern == "unstructured":
        assert num_pruned(counted) == round(0.6 * num_weights(counted))
    for weight_name, mask in snapshot.masks.items():
        weight = snapshot.weights[weight_name]
        assert torch.equal(weight != 0, mask) and not weight[~mask].signbit().any()
    if pattern == "filter":
        removed = ~snapshot.masks["3.weight"].flatten(1).any(1)
        assert removed.any()
        assert not any(snapshot.weights[n][removed].any() for n in ("3.bias", "4.weight", "4.bias"))
    assert snapshot.records[-1].metrics["test_accuracy"] > 0.3


@pytest.fixture(scope="module")
def undisturbed(small, tmp_path_factory):
    """Optimiser -> an experiment with a cycle, and its last snapshot."""
    found = {}

    def run_once(name):
        if name not in found:
            prune, dense = {"sparsity": 0.8}, {"epochs": 3}
            wanted = convolutional(small, optim=OPTIMS[name], prune=prune, dense=dense)
            found[name] = wanted, run(wanted, tmp_path_factory.mktemp("undisturbed"))[0]
        return found[name]

    return run_once


@pytest.mark.parametrize("name", [*KINDS, *AVERAGED, "adamw, all"])
@pytest.mark.parametrize("epochs", [1, 4])
def test_an_interrupted_run_ends_with_the_same_bits(epochs, name, undisturbed, tmp_path):
    wanted, expected = undisturbed(name)
    run_until_killed(wanted, tmp_path, epochs=epochs)
    snapshot, executed = run(wanted, tmp_path)
    assert executed == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2)][epochs:]
    assert_equal(snapshot, expected)


@pytest.mark.parametrize("name", [*KINDS, "adamw, averaged", "adamw, all"])
def test_a_run_in_parts_ends_with_the_same_bits(name, undisturbed, tmp_path):
    wanted, expected = undisturbed(name)
    plan = make_plan(wanted, cut_dense_at=[1, 2])
    run_until_killed(wanted, tmp_path, plan, epochs=2)
    assert_equal(run(wanted, tmp_path, plan)[0], expected)


def test_gradients_of_pruned_weights_do_not_count():
    layer = nn.Linear(4, 1)
    layer.weight.grad = torch.tensor([[3.0, 40.0, 4.0, 50.0]])
    masks = {"weight": torch.tensor([[True, False, True, False]])}
    clip_gradients_(layer, {"weight": layer.weight}, masks, 2.5)
    torch.testing.assert_close(layer.weight.grad, torch.tensor([[1.5, 0, 2, 0]]))
    assert layer.bias.grad is None


def test_small_gradients_are_left_alone():
    layer = nn.Linear(2, 1)
    for parameter in layer.parameters():
        parameter.grad = torch.full_like(parameter, 0.1)
    clip_gradients_(layer, {}, {}, 1.0)
    assert all((parameter.grad == 0.1).all() for parameter in layer.parameters())


@pytest.mark.parametrize("optim", KINDS.values(), ids=KINDS)
def test_an_optimiser_has_what_it_was_given_in_every_group(optim):
    wanted = Optim.model_validate(optim)
    layer = nn.Linear(2, 1)
    groups = [{"params": [layer.weight], "weight_decay": 0.3}, {"params": [layer.bias]}]
    optimizer = make_optimizer(wanted, groups)
    assert type(optimizer).__name__.lower() == wanted.name
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, wanted.weight_decay]
    for group in optimizer.param_groups:
        assert group["fused"] and group["lr"] == wanted.lr
        assert group.get("betas", wanted.betas) == wanted.betas


# Two ranks


def smooth_net(num_classes, in_channels):
    """Nothing in it makes a rounding error grow, and no image sees the others of its batch."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 4, 5, stride=4),
        nn.Tanh(),
        nn.Conv2d(4, 8, 3),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(128, num_classes),
    )


RANKED = {  # a larger eps, or Adam would make much of differences of rounding
    "adam": {"name": "adam", "eps": 1e-4},
    "adamw": {"name": "adamw", "eps": 1e-4, "clip_norm": 1.0, "ema_decay": 0.9},
    "sgd": {**SGD, "clip_norm": 0.5, "ema_decay": 0.9},
}


def ranked(small, name):
    return convolutional(
        small,
        model={"target": f"{__name__}:smooth_net"},
        optim=RANKED[name],
        dense={"epochs": 1},
        retrain={"epochs": 1},
        prune={"sparsity": 0.7},
    )


def batch_normed(small):
    """Ranks see other statistics in each batch, and their averages of them differ until its end."""
    optim = {"name": "adamw", "ema_decay": 0.9}
    return convolutional(small, optim=optim, dense={"epochs": 2}, prune={"cycles": 0})


def as_rank(rank, folder, small):
    address = f"file://{folder}/rendezvous"
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    worker = Worker(rank, 2)
    with training_process(1):
        snapshots = {n: run_both(ranked(small, n), worker, f"{folder}/{n}") for n in RANKED}
        normed = run_both(batch_normed(small), worker, f"{folder}/normed")
    for snapshot in (*snapshots.values(), normed):
        own = digest(snapshot.masks), {n: t.tolist() for n, t in snapshot.weights.items()}
        of_both = [None, None]
        distributed.all_gather_object(of_both, own)
        assert of_both[0] == of_both[1]
    if rank == 0:
        torch.save({n: (s.weights, s.masks) for n, s in snapshots.items()}, f"{folder}/two.pt")
    leave_process_group()


def run_both(wanted, worker, storage):
    return run_plan(wanted, make_plan(wanted), worker, storage)


def test_two_ranks_equal_each_other_and_one(small, tmp_path):
    multiprocessing.spawn(as_rank, (str(tmp_path), small), nprocs=2)
    for name, (weights, masks) in torch.load(tmp_path / "two.pt").items():
        alone, _ = run(ranked(small, name), tmp_path / f"{name} alone")
        assert digest(masks) == digest(alone.masks), name
        for tensor_name, tensor in alone.weights.items():
            torch.testing.assert_close(weights[tensor_name], tensor, rtol=1e-3, atol=1e-4)


def test_a_network_without_a_parameter_to_train_is_told():
    model = nn.Linear(2, 2).requires_grad_(False)
    frozen = FixedMasks(model, {}, silenced={}, weight_decay=0.0)
    with pytest.raises(ValueError, match=r"experiment\.model: no parameter .* can be trained"):
        make_optimizer(Optim(), frozen.parameter_groups())
