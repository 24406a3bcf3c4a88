"""Measuring in shares equals measuring the whole; batch-norm statistics estimated anew."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from rayprune.config import Experiment
from rayprune.data import InMemory, Split
from rayprune.data.splits import Normalisation
from rayprune.plan import make_plan
from rayprune.training import evaluate as module
from rayprune.training.evaluate import evaluate, recalibrate_batch_norm_
from rayprune.training.run import run_plan
from rayprune.training.task import TASKS
from rayprune.training.worker import Worker

ALONE = Worker()


def made_split(num, *, pixels=False, augmentation="none"):
    """Coloured noise of 6x6 pixels in four classes, a label for each image or for each pixel."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (num, 3, 6, 6), dtype=torch.uint8, generator=generator)
    targets = torch.randint(4, (num, 6, 6) if pixels else (num,), generator=generator)
    mean, std = torch.tensor([100.0, 120.0, 140.0]), torch.tensor([50.0, 60.0, 70.0])
    return Split(InMemory(images, targets), augmentation, Normalisation.of(mean, std))


def inputs_of(split):
    ((inputs, _),) = split.batches([torch.arange(len(split))], device=ALONE.device)
    return inputs


class Net(nn.Module):
    """Two convolutions with batch norm; scores for each pixel, or for the image."""

    def __init__(self, *, pixels=False):
        super().__init__()
        self.pixels = pixels
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return x if self.pixels else x.mean((2, 3))


def made_net(**options):
    torch.manual_seed(0)
    return Net(**options)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("num", [5, 23])
def test_shares_of_several_ranks_equal_the_whole(task, num, monkeypatch):
    """Three ranks, one after the other; the sum over them is made here."""
    pixels = task == "segmentation"
    split, model = made_split(num, pixels=pixels), made_net(pixels=pixels)
    whole = evaluate(model, split, TASKS[task], num, ALONE)
    assert evaluate(model, split, TASKS[task], 4, ALONE) == pytest.approx(whole)

    shares = []
    monkeypatch.setattr(
        module, "all_reduce_", lambda counts, worker: shares.append(counts) or counts
    )
    monkeypatch.setattr(module, "gather", lambda value, worker: [value] * 3)
    for rank in range(3):
        evaluate(model, split, TASKS[task], 4, Worker(rank, 3))
    assert TASKS[task].metrics(sum(shares)) == pytest.approx(whole)


OURS = TASKS["classification"]
SCORED = 0  # batches that a task has counted


def uneven(output, targets):
    global SCORED
    SCORED += 1
    return torch.ones(2 + SCORED % 2)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (replace(OURS, count=lambda o, t: None), "count must return a tensor .*, got NoneType"),
        (
            replace(OURS, count=lambda o, t: torch.tensor(3.0)),
            r"count .* a tensor \(k,\) .*, got \(\)",
        ),
        (
            replace(OURS, count=lambda o, t: torch.zeros(0)),
            r"count .* a tensor \(k,\) .*, got \(0,\)",
        ),
        (replace(OURS, count=uneven), "count .* equally many numbers for every batch, got 3 and 2"),
        (replace(OURS, metrics=lambda c: 0.5), "metrics must return a dictionary .*, got 0.5"),
        (replace(OURS, metrics=lambda c: {}), "metrics must return a dictionary .*, got {}"),
        (replace(OURS, metrics=lambda c: {"f1": "good"}), "metrics must return numbers: .*'good'"),
        (replace(OURS, metrics=lambda c: {"f1": float("nan")}), r"f1 is not a number \(nan\)"),
    ],
)
def test_a_broken_task_is_named(broken, message):
    broken = replace(broken, name="task nets:task")
    with pytest.raises(ValueError, match=f"^task nets:task: {message}"):
        evaluate(made_net(), made_split(7), broken, 2, ALONE, may_be_nan=False)


def test_a_network_that_was_just_pruned_may_have_no_number():
    broken = replace(OURS, metrics=lambda counts: {"f1": float("nan")})
    assert "f1" in evaluate(made_net(), made_split(7), broken, 2, ALONE)


def test_measuring_uses_running_statistics_and_leaves_the_model_as_it_is():
    split, model = made_split(7), made_net().train()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    metrics = evaluate(model, split, TASKS["classification"], 2, ALONE)
    assert model.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    with torch.no_grad():
        scores = model.eval()(inputs_of(split))
    assert metrics["accuracy"] == float((scores.argmax(1) == split.samples.targets).double().mean())


def test_recalibrated_statistics_are_the_mean_over_batches():
    """By hand: 23 images in batches of 5, the last 3 left out."""
    split, model = made_split(23), made_net()
    with torch.no_grad():
        model.bn1.running_mean.fill_(9.0)
        model.bn1.num_batches_tracked.fill_(100)
    recalibrate_batch_norm_(model, split, TASKS["classification"], 5, ALONE)

    first, second = [], []
    with torch.no_grad():
        for batch in inputs_of(split)[:20].split(5):
            x = model.conv1(batch)
            first.append(moments(x))
            mean, _ = moments(x)
            variance = x.var((0, 2, 3), correction=0)
            x = (x - mean[:, None, None]) / (variance[:, None, None] + model.bn1.eps).sqrt()
            second.append(moments(model.conv2(x.relu())))
    for norm, expected in ((model.bn1, first), (model.bn2, second)):
        means, variances = map(torch.stack, zip(*expected, strict=True))
        torch.testing.assert_close(norm.running_mean, means.mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(norm.running_var, variances.mean(0), rtol=1e-4, atol=1e-5)
        assert norm.num_batches_tracked == 4


def moments(x):
    """Mean and unbiased variance of each channel of (n, c, h, w)."""
    return x.mean((0, 2, 3)), x.var((0, 2, 3))


def test_recalibration_changes_statistics_alone_and_augments_nothing():
    plain, augmented = made_net(), made_net()
    before = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    recalibrate_batch_norm_(plain, made_split(12), TASKS["classification"], 4, ALONE)
    recalibrate_batch_norm_(
        augmented, made_split(12, augmentation="crop_flip"), TASKS["classification"], 4, ALONE
    )
    after = plain.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    kinds = ("running_mean", "running_var", "num_batches_tracked")
    assert changed == {f"{norm}.{kind}" for norm in ("bn1", "bn2") for kind in kinds}
    assert all(torch.equal(after[k], v) for k, v in augmented.state_dict().items())
    assert plain.bn1.momentum == 0.1, "training goes on with its own momentum"


def test_a_hundred_batches_are_enough():
    model = made_net()
    recalibrate_batch_norm_(model, made_split(240), TASKS["classification"], 2, ALONE)
    assert model.bn1.num_batches_tracked == 100


def test_a_split_smaller_than_a_batch_is_used_whole():
    split, model = made_split(3), made_net()
    recalibrate_batch_norm_(model, split, TASKS["classification"], 8, ALONE)
    with torch.no_grad():
        mean, _ = moments(model.conv1(inputs_of(split)))
    torch.testing.assert_close(model.bn1.running_mean, mean, rtol=1e-4, atol=1e-5)


def test_without_batch_norm_there_is_nothing_to_do():
    def fail(*_):
        raise AssertionError("the model was run")

    model = nn.Linear(2, 2)
    model.register_forward_hook(fail)
    recalibrate_batch_norm_(model, made_split(3), TASKS["classification"], 2, ALONE)


def small_net(num_classes, in_channels):
    """Convolutions with batch norm, whose statistics no longer fit when they are pruned hard."""
    layers = []
    for before, after in ((in_channels, 16), (16, 32), (32, 32)):
        conv = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 16, num_classes))


@pytest.fixture(scope="module")
def pruned(small, tmp_path_factory):
    """The same pruned network with statistics as trained and recalibrated, for three seeds."""
    storage = str(tmp_path_factory.mktemp("pruned"))

    def run(seed, recalibrate, epochs=0):
        fields = {
            **small,
            "model": {"target": f"{__name__}:small_net"},
            "dense": {"epochs": 8},
            "prune": {"sparsity": 0.9},
            "recalibrate_batch_norm": recalibrate,
            "retrain": {"epochs": epochs},
            "seed": seed,
        }
        experiment = Experiment.model_validate(fields)
        return run_plan(experiment, make_plan(experiment), ALONE, storage)

    return run


@pytest.mark.slow
def test_recalibration_helps_a_network_that_was_pruned_hard(pruned):
    gains = []
    for seed in range(3):
        plain, recalibrated = pruned(seed, False), pruned(seed, True)
        assert all(torch.equal(m, recalibrated.masks[n]) for n, m in plain.masks.items())
        numbers = [s.records[-1].metrics["pruned_val_accuracy"] for s in (plain, recalibrated)]
        gains.append(numbers[1] - numbers[0])
    assert sum(gains) / len(gains) > 0.1, gains


def test_a_record_says_which_statistics_were_used_and_what_is_not_retrained_keeps_them(pruned):
    plain, recalibrated = pruned(0, False), pruned(0, True)
    assert [r.batch_norm for r in plain.records] == ["as trained", "as trained"]
    assert [r.batch_norm for r in recalibrated.records] == ["recalibrated"] * 2
    kept = recalibrated.records[-1].metrics
    assert kept["val_accuracy"] == kept["pruned_val_accuracy"]
    for name, weight in plain.weights.items():
        statistic = name.rpartition(".")[2] in ("running_mean", "running_var")
        assert torch.equal(weight, recalibrated.weights[name]) != (
            statistic or name.endswith("num_batches_tracked")
        )


def test_retraining_starts_from_recalibrated_statistics_and_replaces_them(pruned):
    plain, recalibrated = pruned(0, False, epochs=1), pruned(0, True, epochs=1)
    numbers = [s.records[-1].metrics for s in (plain, recalibrated)]
    assert numbers[0]["pruned_val_loss"] != numbers[1]["pruned_val_loss"]
    for name, weight in plain.weights.items():
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            assert torch.equal(weight, recalibrated.weights[name]), "training uses its batches"


def test_a_method_that_prunes_at_its_end_is_measured_with_statistics_of_what_is_left(
    small, tmp_path
):
    """LC's largest weights have company until the end, and its running means are of both."""
    fields = {
        **small,
        "model": {"target": f"{__name__}:small_net"},
        "dense": {"epochs": 8, "sparsify": {"method": "lc"}},
        "prune": {"sparsity": 0.9, "cycles": 0},
    }
    gains = []
    for seed in range(2):
        records = []
        for recalibrate in (False, True):
            given = {**fields, "seed": seed, "recalibrate_batch_norm": recalibrate}
            wanted = Experiment.model_validate(given)
            snapshot = run_plan(wanted, make_plan(wanted), ALONE, str(tmp_path))
            records.append(snapshot.records[-1])
        assert [record.batch_norm for record in records] == ["as trained", "recalibrated"]
        gains.append(records[1].metrics["val_accuracy"] - records[0].metrics["val_accuracy"])
    assert sum(gains) / len(gains) > 0.1, gains


class Remembers(nn.Linear):
    """Keeps a factor from its first forward pass on, as layers keep the angles of places."""

    factor = None

    def forward(self, x):
        if self.factor is None:
            self.factor = x.new_ones(4)
        return super().forward(x.flatten(1)) * self.factor


def test_a_network_can_be_trained_with_what_it_kept_while_it_was_measured():
    model = Remembers(108, 4)
    evaluate(model, made_split(4), TASKS["classification"], 2, ALONE)
    model(torch.ones(1, 3, 6, 6)).sum().backward()
    assert model.weight.grad.abs().sum() > 0
