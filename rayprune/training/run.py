"""Stages, run and kept: prune, then train, then make the snapshot durable under the stage's key."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from rayprune import results
from rayprune.config import Data, Experiment
from rayprune.data import Dataset, load_data
from rayprune.plan import Stage, make_plan
from rayprune.snapshot.encoding import Snapshot, decode, encode
from rayprune.snapshot.prune import prune
from rayprune.training.network import initial_snapshot, make_model
from rayprune.training.stage import EpochReport, Hooks, train_stage
from rayprune.training.worker import Worker, from_first

OnEpoch = Callable[[EpochReport], bool]


def run_plan(
    experiment: Experiment,
    worker: Worker,
    storage: str,
    *,
    on_epoch: OnEpoch = lambda report: True,
) -> Snapshot:
    """Run an experiment's stages one after the other; those the storage holds are taken from it.

    Every rank calls it and gets the last snapshot. Raises what `run_stage` raises.
    """
    snapshot: Snapshot | None = None
    for stage in make_plan(experiment):
        found = (results.load_snapshot(storage, stage.key) or b"") if worker.is_first else None
        if content := from_first(found, worker):
            snapshot = decode(content)
            continue
        finished = run_stage(experiment, stage, snapshot, worker, storage, on_epoch=on_epoch)
        assert finished is not None, "a plan that is run whole is wanted to its end"
        snapshot, _ = finished
    assert snapshot is not None
    return snapshot


def run_stage(
    experiment: Experiment,
    stage: Stage,
    before: Snapshot | None,
    worker: Worker,
    storage: str,
    *,
    on_epoch: OnEpoch = lambda report: True,
) -> tuple[Snapshot, bytes] | None:
    """One stage from the snapshot of the one before (None for the dense run), kept when it is done.

    Gives the snapshot and, on rank 0, its encoded content (empty on the others), or None when
    `on_epoch` said that nobody wants it any more. Goes on from the stage's last epoch checkpoint.
    Raises ``ValueError`` for data, models and goals that cannot be, ``StorageError``.
    """
    dataset = load_dataset(experiment.data, experiment.seed)
    if len(dataset.train) < experiment.batch_size:
        raise ValueError(
            f"experiment.batch_size must be <= the {len(dataset.train)} training images, "
            f"got {experiment.batch_size}"
        )
    model = make_model(experiment, dataset)
    before = before or initial_snapshot(model)
    snapshot = train_stage(
        experiment,
        stage,
        before,
        prune(before, stage, experiment.prune),
        model=model,
        dataset=dataset,
        worker=worker,
        progress=_read_progress(storage, stage, worker),
        hooks=Hooks(
            on_epoch,
            lambda content: results.write_bytes(results.epoch_file(storage, stage.key), content),
        ),
    )
    if snapshot is None:
        return None
    content = b""
    if worker.is_first:
        content = encode(snapshot)
        results.save_snapshot(storage, stage.key, content, snapshot.records)
    return snapshot, content


def load_dataset(data: Data, seed: int) -> Dataset:
    """The images and their split; a process that runs many stages decodes them once."""
    return _load_dataset(data.model_dump_json(), seed)


@lru_cache(maxsize=2)
def _load_dataset(data: str, seed: int) -> Dataset:
    return load_data(Data.model_validate_json(data), seed=seed)


def _read_progress(storage: str, stage: Stage, worker: Worker) -> bytes | None:
    """Rank 0 reads, so that no rank goes on from a checkpoint that another one did not see."""
    found = None
    if worker.is_first:
        found = results.read_bytes(results.epoch_file(storage, stage.key)) or b""
    return from_first(found, worker) or None
