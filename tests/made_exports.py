"""Networks as a study leaves them: on real images, with random weights, pruned."""

import torch
from made_records import record

from rayprune.config import Experiment
from rayprune.data.nests import tensors_in
from rayprune.exporting.network import Network, trained_network
from rayprune.pruning.allocation import prune_weights
from rayprune.pruning.coupled import coupled_filters
from rayprune.pruning.masks import apply_
from rayprune.pruning.structured import channel_masks
from rayprune.snapshot import Snapshot
from rayprune.training.network import initial_snapshot, make_model
from rayprune.training.run import dataset_of


def made_network(
    data, name="resnet20", *, sparsity=0.9, pattern="unstructured", prune=None, **fields
) -> Network:
    """`data` is that of an experiment, or files of images; `prune` has further fields of it."""
    data = {"parquet": data} if "train" in data else data
    model = {"name": name} if isinstance(name, str) else name
    prune = {"sparsity": sparsity, "pattern": pattern, "allocation": "uniform", **(prune or {})}
    experiment = Experiment.model_validate(
        {"model": model, "data": data, "prune": prune, "batch_size": 100, **fields}
    )
    return trained_network(made_snapshot(experiment), experiment)


def made_snapshot(experiment: Experiment) -> Snapshot:
    dataset = dataset_of(experiment)
    model = make_model(experiment, dataset)
    generator = torch.Generator().manual_seed(1)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5, generator=generator)
    before = initial_snapshot(model, experiment)
    prune, example = experiment.prune, next(tensors_in(dataset.example))
    masks = prune_weights(
        {name: before.weights[name] for name in before.masks},
        before.masks,
        sparsity=prune.sparsity,
        allocation=prune.allocation,
        pattern=prune.pattern,
        round_channels=prune.round_channels,
        coupled=coupled_filters(model, before.masks, example) if prune.couple_filters else (),
    )
    silenced = channel_masks(model, masks, example) if prune.pattern == "filter" else {}
    apply_(model, masks | silenced)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return Snapshot(weights, masks, (record(metrics={"val_accuracy": 0.1, "test_accuracy": 0.1}),))
