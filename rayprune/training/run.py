"""Stages, run and kept: prune, then train, then make the snapshot durable under the stage's key."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from torch import nn

from rayprune.config import Data, Experiment, OwnTask
from rayprune.config.preprocessing import Preprocessing
from rayprune.data import Dataset, load_data
from rayprune.models import trained_preprocessing
from rayprune.plan import Stage
from rayprune.pruning.coupled import coupled_filters
from rayprune.pruning.groups import Group
from rayprune.pruning.masks import Masks
from rayprune.results.faults import reach
from rayprune.results.files import epoch_file, stage_lease_file
from rayprune.results.lease import LeaseHeldError, held
from rayprune.results.stages import (
    LostSnapshotError,
    finished_records,
    load_content,
    save_stage,
)
from rayprune.results.storage import StorageError, read_bytes, write_bytes
from rayprune.snapshot import Snapshot, SnapshotError, decode, encode, prune
from rayprune.training.checkpoint import epochs_done_of
from rayprune.training.network import initial_snapshot, make_model
from rayprune.training.rates import cycle_rates, dense_rates
from rayprune.training.setup import channel_example, loses_filters, num_steps_per_epoch
from rayprune.training.stage import OnEpoch, train_stage
from rayprune.training.worker import Worker, broadcast

ELSEWHERE_S = 2.0  # how soon a stage that another study runs is looked at again

log = logging.getLogger(__name__)


class StageElsewhereError(Exception):
    """Another study runs this stage, or has just done it."""


def run_plan(
    experiment: Experiment,
    plan: Sequence[Stage],
    worker: Worker,
    storage: str,
    *,
    owner: str = "",
    on_epoch: OnEpoch = lambda report: True,
) -> Snapshot:
    """Run the stages of a plan that its last one needs and that the storage does not hold.

    Every rank calls it and returns the last snapshot. A stage that another owner runs is waited
    for. Raises what `run_stage` raises, but for ``StageElsewhereError``.
    """
    while True:
        keys = broadcast(_missing(plan, storage) if worker.is_first else None, worker)
        try:
            return _run_missing(experiment, plan, keys, worker, storage, owner, on_epoch)
        except LostSnapshotError:
            continue  # it no longer counts as done: the next round runs it again
        except StageElsewhereError:
            time.sleep(ELSEWHERE_S)


def run_stage(
    experiment: Experiment,
    stage: Stage,
    inputs: Mapping[str, Snapshot],
    worker: Worker,
    storage: str,
    *,
    owner: str = "",
    on_epoch: OnEpoch = lambda report: True,
) -> tuple[Snapshot, bytes] | None:
    """Run one stage and keep its result; `inputs` holds the snapshots of ``stage.inputs.keys``.

    Return the snapshot and, on rank 0, its encoded content (empty on the others), or None when
    `on_epoch` said stop. Goes on from the stage's last epoch checkpoint. `owner` names the study,
    so that others which use the storage leave the stage alone meanwhile. Raises ``ValueError`` for
    data, models and goals that cannot be, ``StorageError``; ``StageElsewhereError`` on every rank.
    """
    dataset = dataset_of(experiment)
    _check_batch(experiment, dataset, worker)
    with _alone(storage, stage.key, owner, worker):
        return _run_stage(experiment, stage, inputs, dataset, worker, storage, on_epoch)


def _run_stage(
    experiment: Experiment,
    stage: Stage,
    inputs: Mapping[str, Snapshot],
    dataset: Dataset,
    worker: Worker,
    storage: str,
    on_epoch: OnEpoch,
) -> tuple[Snapshot, bytes] | None:
    assert stage.inputs.teacher is None and not stage.inputs.ingredients, "no plan has them so far"
    is_first = stage.inputs.masks is None or stage.inputs.weights is None
    model = make_model(experiment, dataset, is_filled=is_first)
    known: dict[str | None, Snapshot] = dict(inputs.items())
    if is_first:
        known[None] = initial_snapshot(model, experiment)
    before, weights = known[stage.inputs.masks], known[stage.inputs.weights]
    coupled = _coupled(experiment, stage, model, before.masks, dataset)
    masks = prune(before, stage, experiment.prune, coupled)
    start = replace(weights, masks=masks, records=before.records)
    steps = num_steps_per_epoch(experiment, dataset)
    if stage.is_dense:
        rates = dense_rates(experiment, stage, steps)
    else:
        parameters = [name for name, _ in model.named_parameters()]
        rates = cycle_rates(experiment, stage, before, start.masks, parameters, steps)
    trained = train_stage(
        experiment,
        stage,
        start,
        rates,
        model=model,
        dataset=dataset,
        worker=worker,
        checkpoint=_read_checkpoint(storage, stage, worker),
        on_epoch=on_epoch,
        save_checkpoint=lambda content: _save_checkpoint(storage, stage, content),
    )
    if trained is None:
        return None
    content = b""
    if worker.is_first:
        content = encode(trained.snapshot)
        save_stage(storage, stage.key, content, trained.snapshot.records, trained.history)
    return trained.snapshot, content


def _coupled(
    experiment: Experiment, stage: Stage, model: nn.Module, masks: Masks, dataset: Dataset
) -> tuple[Group, ...]:
    """The filters that the stage removes together, alike on all ranks."""
    if not (experiment.prune.couple_filters and loses_filters(experiment, stage)):
        return ()
    example = channel_example(dataset)
    try:
        return coupled_filters(model, masks, example)
    except ImportError as error:
        raise ValueError(f"prune.couple_filters: {error}") from error
    except ValueError as error:
        raise ValueError(f"{error}. Write prune.couple_filters: false") from error


@contextmanager
def _alone(storage: str, key: str, owner: str, worker: Worker) -> Iterator[None]:
    """While open, other studies leave a stage alone. Raises ``StageElsewhereError``."""
    with ExitStack() as stack:
        is_free = None
        if worker.is_first:
            try:
                file = stage_lease_file(storage, key)
                stack.enter_context(held(file, owner, same_owner=True))
                # Done since whoever wants it looked: by another study, or before a death.
                is_free = finished_records(storage, key) is None
            except LeaseHeldError:
                is_free = False
        if not broadcast(is_free, worker):
            raise StageElsewhereError(key)
        yield


def dataset_of(experiment: Experiment) -> Dataset:
    """An experiment's samples and their split, images as its weights were trained with."""
    trained = trained_preprocessing(experiment.model)
    is_own = isinstance(experiment.task, OwnTask)
    return load_dataset(experiment.data, experiment.seed, not is_own, trained)


@lru_cache(maxsize=2)
def load_dataset(
    data: Data, seed: int, has_classes: bool = True, trained: Preprocessing | None = None
) -> Dataset:
    """The samples and their split; a process that runs many stages decodes images once."""
    return load_data(data, seed=seed, has_classes=has_classes, trained=trained)


def failure_message(error: Exception) -> str:
    """What a user reads of an error that ended a stage.

    A ``ValueError`` and an ``OSError`` say it themselves; anything else with its kind and place.
    """
    if isinstance(error, ValueError | OSError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def _missing(plan: Sequence[Stage], storage: str) -> list[str]:
    """Keys of the stages to run: the last one and what it needs, as far as they are not done."""
    stages = {stage.key: stage for stage in plan}
    missing: set[str] = set()
    wanted = [plan[-1].key]
    while wanted:
        key = wanted.pop()
        if key not in missing and finished_records(storage, key) is None:
            missing.add(key)
            wanted += stages[key].inputs.keys
    return [stage.key for stage in plan if stage.key in missing]


def _run_missing(
    experiment: Experiment,
    plan: Sequence[Stage],
    missing: Sequence[str],
    worker: Worker,
    storage: str,
    owner: str,
    on_epoch: OnEpoch,
) -> Snapshot:
    inputs: dict[str, Snapshot] = {}
    to_run = [stage for stage in plan if stage.key in missing]
    for number, stage in enumerate(to_run):
        for key in stage.inputs.keys:
            inputs[key] = inputs.get(key) or _load(storage, key, worker)
        finished = run_stage(
            experiment, stage, inputs, worker, storage, owner=owner, on_epoch=on_epoch
        )
        assert finished is not None, "a plan that is run whole is wanted to its end"
        inputs[stage.key] = finished[0]
        needed = {key for later in to_run[number + 1 :] for key in later.inputs.keys}
        inputs = {k: v for k, v in inputs.items() if k in needed or k == plan[-1].key}
    return inputs.get(plan[-1].key) or _load(storage, plan[-1].key, worker)


def _load(storage: str, key: str, worker: Worker) -> Snapshot:
    """Rank 0 reads for all ranks. Raises ``LostSnapshotError`` on every one."""
    found = None
    if worker.is_first:
        try:
            found = load_content(storage, key)
        except LostSnapshotError:
            found = b""
    content = broadcast(found, worker)
    if not content:
        raise LostSnapshotError(key)
    return decode(content)


def _check_batch(experiment: Experiment, dataset: Dataset, worker: Worker) -> None:
    """Every rank needs a share of each batch, and a sample of each split to measure on."""
    batch, num_samples = experiment.batch_size, len(dataset.train)
    if num_samples < batch:
        raise ValueError(
            f"experiment.batch_size must be <= the {num_samples} training samples, got {batch}. "
            f"Write {num_samples} or less"
        )
    if batch % worker.world_size:
        raise ValueError(
            f"experiment.batch_size is the global batch: it must be a multiple of the "
            f"{worker.world_size} workers, got {batch}. "
            f"Write {batch // worker.world_size * worker.world_size or worker.world_size}"
        )
    smallest = min(len(dataset.val), len(dataset.test))
    if smallest < worker.world_size:
        raise ValueError(
            f"validation and test need a sample for each of the {worker.world_size} workers, got "
            f"{smallest}. Raise experiment.data.val_fraction, or take fewer workers"
        )


def _read_checkpoint(storage: str, stage: Stage, worker: Worker) -> bytes | None:
    """Rank 0 reads, so that no rank goes on from a checkpoint that another one did not see.

    The beginning of a dense run goes on from a checkpoint of the whole run, too. One from before
    the stage's first epoch, or from after its last, is of no use to it.
    """
    found = b""
    if worker.is_first:
        done = stage.first_epoch
        for key in filter(None, (stage.key, stage.part_of)):
            content, epochs = _checkpoint(epoch_file(storage, key))
            if done < epochs <= stage.last_epoch:
                found, done = content, epochs
    return broadcast(found if worker.is_first else None, worker) or None


def _save_checkpoint(storage: str, stage: Stage, content: bytes) -> None:
    """Keep an epoch; without it only an interruption would cost more, so the stage goes on."""
    reach("run.before_checkpoint")
    try:
        write_bytes(epoch_file(storage, stage.key), content)
    except StorageError as error:
        log.warning("an epoch was not kept, the stage goes on: %s", error)
    reach("run.after_checkpoint")


def _checkpoint(file: str) -> tuple[bytes, int]:
    """An epoch checkpoint and its epochs; 0 epochs if there is none, or a damaged one."""
    content = read_bytes(file)
    try:
        return (b"", 0) if content is None else (content, epochs_done_of(content))
    except SnapshotError as error:
        log.warning("%s: %s; starting the stage anew", file, error)
        return b"", 0
