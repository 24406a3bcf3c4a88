"""README.md of an export folder: what the network is, what was measured, and how to use it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from rayprune.config import Experiment
from rayprune.config.pattern import n_of_m
from rayprune.config.task import OwnTask
from rayprune.exporting.exported import ExportedFile, Latency
from rayprune.exporting.markdown import code, line, table
from rayprune.plan.numbers import dense_epochs
from rayprune.results.labels import counted, metric_name, reads_in_percent
from rayprune.results.record import StageRecord

MISSING = "–"
LICENCE = (
    "The weights are yours, as far as the licence of the data, and of weights that training "
    "started from, allows. rayprune is Apache-2.0, and so are the loaders (.py) beside the files."
)
FASHION_MINI = (
    "fashion_mini is drawn from Fashion-MNIST (Xiao, Rasul and Vollgraf 2017), MIT licence; "
    "accuracies on it do not compare with published ones."
)


@dataclass(frozen=True, kw_only=True)
class Card:
    """All that a card says."""

    study: str
    trial: str
    experiment: Experiment
    record: StageRecord
    """Of the stage that made the network."""
    files: tuple[ExportedFile, ...]
    latencies: tuple[Latency, ...] = ()
    input_shape: tuple[int, ...] | None = None
    """Of one sample; None where inputs are no tensor of one shape."""
    num_classes: int | None = None
    versions: Mapping[str, str]
    """Package -> version, of what trained and exported."""
    lower_is_better: tuple[str, ...] = ("loss",)
    """Metrics of the task that are, without val_ and test_."""


def make_card(card: Card) -> str:
    """The card in Markdown."""
    sections = {
        f"{line(card.study)}, trial {line(card.trial)}": "\n".join(_facts(card)),
        "Metrics": _metrics(card),
        "Files": _files(card),
        "Time": _times(card),
        "Inputs": _inputs(card),
        "How to load": _loading(card),
        "Where it comes from": _provenance(card),
        "Licence": _licence(card),
    }
    title, *rest = sections.items()
    texts = [f"# {title[0]}\n\n{title[1]}", *(f"## {name}\n\n{text}" for name, text in rest)]
    return "\n\n".join(texts) + "\n"


def _facts(card: Card) -> Iterator[str]:
    experiment, record = card.experiment, card.record
    task = experiment.task.target if isinstance(experiment.task, OwnTask) else experiment.task
    pruned = f"pattern {experiment.prune.pattern}"
    if n_of_m(experiment.prune.pattern) is None:
        pruned = f"allocation {experiment.prune.allocation}, {pruned}"
    goal = "its method's own" if record.goal_sparsity is None else _percent(record.goal_sparsity)
    classes = "" if card.num_classes is None else f", {card.num_classes} classes"
    facts = {
        "Network": f"{_network(experiment)}, {record.num_parameters:,} parameters",
        "Input": f"{_shape(card.input_shape)}{classes}",
        "Data": _data(experiment),
        "Task": task,
        "Method": f"{_method(experiment, record)}; seed {experiment.seed}",
        "Sparsity": f"{_percent(record.sparsity)} of the prunable weights are zero (goal: {goal}); "
        f"{pruned}; {record.num_nonzero:,} parameters are left",
        "Multiply-adds": f"{record.flops_nonzero:,} of {record.flops:,} a sample are not with a "
        f"zero: {record.theoretical_speedup:.1f}x in theory, which is no measured time",
    }
    return (f"- {name}: {line(fact)}" for name, fact in facts.items())


def _method(experiment: Experiment, record: StageRecord) -> str:
    sparsify = experiment.dense.sparsify
    dense = f"{sparsify.method if sparsify else 'dense training'} for "
    dense += counted(dense_epochs(experiment), "epoch")
    first = "a network trained elsewhere" if experiment.is_brought else dense
    if record.cycle == 0:
        return first
    cycles = f"{counted(record.cycle, 'cycle')} of {counted(record.epochs, 'epoch')}"
    return f"{first}, then magnitude pruning in {cycles}, learning rates by {record.schedule}"


def _network(experiment: Experiment) -> str:
    model = experiment.model
    brought = f", from {model.weights}" if model.weights else ""
    return f"{model.name or model.target}{brought}"


def _data(experiment: Experiment) -> str:
    data = experiment.data
    if data.parquet is not None:
        return f"{data.parquet.train} (training), {data.parquet.test} (test)"
    return data.target or data.name or "fashion_mini"


def _metrics(card: Card) -> str:
    """A row a metric: the trained network on both splits, then each file on the test split."""
    reported = card.record.metrics
    names = [m.removeprefix("val_") for m in reported if m.startswith("val_")]
    names += [m.removeprefix("test_") for m in reported if m.startswith("test_")]
    measured = [file for file in card.files if file.metrics]
    names += [m.removeprefix("test_") for file in measured for m in file.metrics]
    head = ["metric", "validation", "test", *(f"test, {file.format}" for file in measured)]
    rows = [
        [
            metric_name(name),
            _metric(card, name, reported.get(f"val_{name}")),
            _metric(card, name, reported.get(f"test_{name}")),
            *(_metric(card, name, file.metrics.get(f"test_{name}")) for file in measured),
        ]
        for name in dict.fromkeys(names)
    ]
    if not rows:
        return "None was measured."
    batch_norm = f"Batch-norm statistics: {card.record.batch_norm}."
    how = "Validation and test are of the trained network in torch; the rest, of exported files."
    return f"{table(head, rows)}\n\n{how if measured else 'In torch.'} {line(batch_norm)}"


def _metric(card: Card, name: str, value: float | None) -> str:
    if value is None:
        return MISSING
    in_percent = reads_in_percent(f"val_{name}", card.lower_is_better) and 0 <= value <= 1
    return f"{100 * value:.1f} %" if in_percent else f"{value:.4g}"


def _files(card: Card) -> str:
    head = ["format", "files", "bytes", "after zlib", "runtime", "difference", "tolerance", "note"]
    rows = [
        [
            file.format,
            ", ".join(file.files),
            f"{file.num_bytes:,}",
            f"{file.zlib_bytes:,}",
            file.runtime,
            _number(file.difference),
            _number(file.tolerance),
            file.note or MISSING,
        ]
        for file in card.files
    ]
    said = (
        "Difference: the largest between an output and the same network's in torch, as a part of "
        "the largest output. Bytes: of all files of a format."
    )
    return f"{table(head, rows)}\n\n{said}" if rows else "None was exported."


def _times(card: Card) -> str:
    if not card.latencies:
        return (
            "Not measured. Zeros alone make no network faster: that depends on the runtime and the "
            "machine."
        )
    head = ["file", "runtime", "batch", "threads", "ms", "± ms", "fastest dense", "dense ms"]
    head += ["times as fast", "load", "machine"]
    rows = [
        [
            time.file,
            time.runtime,
            time.batch,
            time.threads,
            f"{time.median_ms:.3f}",
            f"{time.spread_ms:.3f}",
            time.dense_runtime,
            f"{time.dense_ms:.3f}",
            f"{time.speedup:.2f}",
            f"{time.load_average:.1f}",
            time.machine,
        ]
        for time in card.latencies
    ]
    return (
        f"{table(head, rows)}\n\nMedians over runs that took turns with the dense network's; ±: "
        "between the quartiles; below 1 is slower. Measured there and then; in theory it would be "
        f"{card.record.theoretical_speedup:.1f}x."
    )


def _inputs(card: Card) -> str:
    said = card.record.preprocessing
    shape = f"One sample: {_shape(card.input_shape)}."
    if said is None:
        return f"{shape} Inputs are taken as they are."
    steps = []
    if said.get("channels") is not None:
        steps.append(f"bring the image to {counted(said['channels'], 'channel')}")
    if said.get("resize") is not None:
        crop, how = said.get("eval_crop"), said.get("interpolation") or "bilinear"
        resize = f"resize it to {said['resize']} x {said['resize']} pixels ({how})"
        if crop is not None and crop < 1:
            resize += f", keeping the centre, {crop:g} of the shorter side"
        steps.append(resize)
    steps.append("divide levels by 255, so that they are from 0 to 1")
    steps.append(f"(level - mean) / std, mean {_levels(said, 'mean')}, std {_levels(said, 'std')}")
    numbered = (f"{number}. {line(step)}" for number, step in enumerate(steps, 1))
    return "\n".join([shape, "", *numbered])


def _levels(said: Mapping[str, Any], name: str) -> str:
    """A number a channel, in six digits."""
    return "[" + ", ".join(f"{level:.6g}" for level in said.get(name) or ()) + "]"


def _loading(card: Card) -> str:
    blocks = [f"{line(file.format)}:\n\n{code(file.load, 'python')}" for file in card.files]
    return "\n\n".join(blocks) or "Nothing was exported."


def _provenance(card: Card) -> str:
    record = card.record
    made = ", ".join(f"{name} {version}" for name, version in card.versions.items())
    facts = {
        "Stage": record.key,
        "Versions": made or MISSING,
        "Trained on": f"{record.device}, {counted(record.workers, 'worker')}",
    }
    experiment = yaml.safe_dump(
        card.experiment.model_dump(mode="json", exclude_none=True), sort_keys=False
    )
    lines = [f"- {name}: {line(fact)}" for name, fact in facts.items()]
    return "\n".join([*lines, "", code(experiment, "yaml")])


def _licence(card: Card) -> str:
    is_mini = _data(card.experiment) == "fashion_mini"
    return f"{LICENCE} {FASHION_MINI}" if is_mini else LICENCE


def _shape(shape: tuple[int, ...] | None) -> str:
    return "of no fixed shape" if shape is None else " x ".join(map(str, shape))


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:.2g}"


def _percent(fraction: float) -> str:
    """Enough digits for 99.95, and never 100 for a little less."""
    return f"{100 * fraction:.4g} %" if fraction <= 0.9999 else f"{100 * fraction:.6g} %"
