"""Small whole plans, run and compared."""

import torch
from torch import nn

from rayprune.config import Experiment
from rayprune.plan import make_plan
from rayprune.results.files import snapshot_file
from rayprune.results.stages import load_content, read_manifest
from rayprune.snapshot import decode
from rayprune.training.run import run_plan
from rayprune.training.worker import Worker

WORKER = Worker()
TIMES = {"seconds", "samples_per_second"}  # what may differ between equal runs


class KilledError(Exception):
    """Ends a run as the death of its process would."""


def small_net(num_classes, in_channels):
    """Convolutions, batch norm and a linear layer: 4-d weights, channels_last, buffers."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 16, 3, stride=2, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(49 * 32, num_classes),
    )


def experiment(small, **fields):
    return Experiment.model_validate({**small, **fields})


def convolutional(small, **fields):
    """An experiment with `small_net`."""
    return experiment(small, **{"model": {"target": f"{__name__}:small_net"}, **fields})


def run(wanted, storage, plan=None):
    """Run a plan; the last snapshot, and (cycle, epoch of its run) of every epoch executed."""
    executed = []

    def on_epoch(report):
        executed.append((report.stage.cycle, report.stage.first_epoch + report.epochs_done))
        return True

    plan = plan or make_plan(wanted)
    return run_plan(wanted, plan, WORKER, str(storage), on_epoch=on_epoch), executed


def run_until_killed(wanted, storage, plan=None, *, epochs):
    """Run a plan whose process dies at the end of that many epochs."""
    executed = []

    def on_epoch(report):
        executed.append(report)
        if len(executed) == epochs:
            raise KilledError
        return True

    try:
        run_plan(wanted, plan or make_plan(wanted), WORKER, str(storage), on_epoch=on_epoch)
    except KilledError:
        return
    raise AssertionError(f"the plan has only {len(executed)} epochs")


def kept(storage, key):
    """The snapshot that a storage holds."""
    return decode(load_content(str(storage), key))


def content_file(storage, key):
    """Where the content of a stage that is done lies."""
    return snapshot_file(str(storage), key, read_manifest(str(storage), key).sha256)


def assert_equal(a, b):
    """Bit for bit the same weights, masks and training state, and the same records but times."""
    for name in ("weights", "masks", "training_state"):
        of_a, of_b = getattr(a, name), getattr(b, name)
        assert list(of_a) == list(of_b)
        different = [key for key in of_a if not torch.equal(of_a[key], of_b[key])]
        assert not different, (name, different)
    assert list(map(without_times, a.records)) == list(map(without_times, b.records))


def without_times(record):
    return {name: value for name, value in vars(record).items() if name not in TIMES}
