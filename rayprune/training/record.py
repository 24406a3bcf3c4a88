"""What a stage did and reached, as a row of the results table."""

from __future__ import annotations

from collections.abc import Mapping

from rayprune.plan import Inputs
from rayprune.pruning.allocation import emptied_layers
from rayprune.pruning.masks import Masks, not_ignored, sparsity
from rayprune.results.record import StageRecord
from rayprune.training.checkpoint import EpochState
from rayprune.training.network import network_cost
from rayprune.training.setup import StageSetup, loses_filters


def stage_record(
    setup: StageSetup, masks: Masks, metrics: Mapping[str, float], state: EpochState
) -> StageRecord:
    """The record of a stage that ended with these masks and metrics."""
    experiment, stage, rates = setup.experiment, setup.stage, setup.rates
    # Sparsity counts what may be pruned; the other numbers are of the whole network.
    counted = {name: masks[name] for name in not_ignored(masks, stage.ignore)}
    filtered = setup.model if loses_filters(experiment, stage) else None
    whole = network_cost(experiment, setup.dataset, masks, filtered=filtered)
    cost = vars(whole) | {"sparsity": sparsity(counted)}
    is_as_brought = stage.is_dense and experiment.is_brought
    is_whole = stage.part_of is None and not is_as_brought
    recalibrated = experiment.recalibrate_batch_norm and is_whole
    num_samples = setup.samples_per_epoch * stage.last_epoch
    # A dense run says the same of itself whether or not it ran in parts, as its key does.
    inputs = Inputs() if stage.is_dense and stage.part_of is None else stage.inputs
    return StageRecord(
        key=stage.key,
        weights_from=inputs.weights,
        masks_from=inputs.masks,
        part_of=stage.part_of,
        cycle=stage.cycle,
        epochs=stage.last_epoch,
        schedule=stage.schedule,
        lr_peak=rates.peak,
        d1=rates.d1,
        d2=rates.d2,
        d=rates.d,
        goal_sparsity=stage.sparsity,
        metrics=metrics,
        emptied_layers=tuple(emptied_layers(masks)),
        batch_norm="recalibrated" if recalibrated else "as trained",
        seconds=state.seconds,
        samples_per_second=num_samples / state.seconds if state.seconds else 0.0,
        workers=setup.worker.world_size,
        device=setup.worker.device_name,
        preprocessing=setup.dataset.preprocessing,
        **cost,
    )
