"""Trained weights into a network: every name and shape must fit, and what doesn't is all told."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rayprune.config.entries import FIELD
from rayprune.models.state_dict import EXTRA
from rayprune.pruning.layers import CONVOLUTIONS

# What wrappers put before every name: DistributedDataParallel, torch.compile, training frameworks.
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
COUNTER = "num_batches_tracked"  # files from before torch 0.4.1 lack it
QUANTIZED = (torch.qint8, torch.quint8, torch.qint32)
NUM_HINTS = 40  # lines with the nearest name: of two networks with nothing in common, enough


@dataclass(frozen=True)
class Expected:
    """What is known of the data that a network is for; None: unknown."""

    num_classes: int | None = None
    in_channels: int | None = None
    is_certain: bool = True
    """False: the numbers are made up, and shapes, which depend on them, say nothing."""


def load_weights_(
    model: nn.Module,
    given: Mapping[str, Any],
    source: str,
    *,
    expected: Expected = Expected(),
    new_head: bool = False,
) -> tuple[str, ...]:
    """Load a state_dict into a network, in place; return what a user should know of it.

    `source` is what messages call the file. Prefixes of wrappers are stripped, half and double
    precision become float32. With `new_head` a head for another number of classes stays as it is.
    Raises a ``ValueError`` that names every tensor which is missing, unknown or of another shape.
    """
    own = model.state_dict()  # with the versions of its layers, by which some read their tensors
    tensors = {name: tensor for name, tensor in own.items() if isinstance(tensor, Tensor)}
    given = _known_values(without_prefixes(given, own), own, model)
    missing = _missing(model, tensors, given)
    unknown = sorted(name for name in given if name not in own)
    shapes = {
        name: tuple(given[name].shape)
        for name, tensor in tensors.items()
        if name in given and given[name].shape != tensor.shape
    }
    head = _head(tensors, shapes, expected.num_classes)
    first = _first_layer(model, tensors, shapes, expected.in_channels)
    kinds = {name: given[name].dtype for name in tensors if name in given}
    wrong = {name: kind for name, kind in kinds.items() if not _fits(name, tensors[name], kind)}
    excused = set(head if new_head else ()) if expected.is_certain else set(shapes)
    lines = [
        *_of_names(missing, unknown, tensors, given),
        *_of_shapes(tensors, shapes, head, first, excused, expected),
        *_of_kinds(wrong, tensors),
        *(f"{name} has NaN or infinity in it" for name in _broken(model, given)),
    ]
    if lines:
        raise ValueError("\n  ".join([f"{FIELD}: {source} does not fit the network:", *lines]))
    for name in given.keys() - excused:
        own[name] = given[name]
    with torch.no_grad():
        model.load_state_dict(own)
    return tuple(_notes(source, head if new_head else [], shapes, kinds, tensors))


def without_prefixes(given: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The state_dict without what wrappers put before its names, once or more.

    A prefix goes where most names have it and no name of the network's `own` does.
    """
    names = {name: name for name in given}  # theirs -> without
    for prefix in _worn(names.values(), own):
        stripped = {name: now.removeprefix(prefix) for name, now in names.items()}
        if len(set(stripped.values())) < len(names):
            break
        return without_prefixes({now: given[name] for name, now in stripped.items()}, own)
    return dict(given)


def _worn(names: Any, own: Mapping[str, Any]) -> Iterator[str]:
    for prefix in PREFIXES:
        num = sum(name.startswith(prefix) for name in names)
        if num > len(names) / 2 and not any(name.startswith(prefix) for name in own):
            yield prefix


def _known_values(
    given: Mapping[str, Any], own: Mapping[str, Any], model: nn.Module
) -> dict[str, Any]:
    """What of a state_dict is for the network or should be.

    Numbers become tensors where the network has one. What is no tensor and of no name of the
    network's, such as an epoch, is nobody's; nor are buffers that it no longer saves.
    """
    unsaved = {name for name, _ in model.named_buffers()} - own.keys()
    values = {}
    for name, value in given.items():
        if isinstance(own.get(name), Tensor) and isinstance(value, bool | int | float):
            value = torch.as_tensor(value)
        is_for_own = name in own and isinstance(value, Tensor) == isinstance(own[name], Tensor)
        is_tensor = isinstance(value, Tensor) and name not in unsaved and not name.endswith(EXTRA)
        if is_for_own or (name not in own and is_tensor):
            values[name] = value
    return values


def _missing(
    model: nn.Module, tensors: Mapping[str, Tensor], given: Mapping[str, Any]
) -> list[str]:
    """Names that the file lacks; a tied weight is there under either of its names."""
    identities = {name: id(tensor) for name, tensor in model.state_dict(keep_vars=True).items()}
    there = {identities[name] for name in given if name in identities}
    return [
        name
        for name in tensors
        if name not in given and identities[name] not in there and not name.endswith(COUNTER)
    ]


def _head(
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    num_classes: int | None,
) -> list[str]:
    """Tensors that are a class each along their first dimension, and of other classes in the file.

    There may be several, as of a network with auxiliary heads.
    """
    found = [
        name
        for name, shape in shapes.items()
        if shape and tensors[name].ndim == len(shape)
        if tensors[name].shape[0] == num_classes and tensors[name].shape[1:] == shape[1:]
    ]
    return found if len({shapes[name][0] for name in found}) == 1 else []


def _first_layer(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    in_channels: int | None,
) -> list[str]:
    """The first convolution's weight, if the file has it for other channels."""
    layers = (n for n, module in model.named_modules() if isinstance(module, CONVOLUTIONS))
    name = f"{next(layers, '')}.weight"
    if name not in shapes or len(shapes[name]) != tensors[name].ndim:
        return []
    own, theirs = tuple(tensors[name].shape), shapes[name]
    is_it = own[1] == in_channels and (own[0], own[2:]) == (theirs[0], theirs[2:])
    return [name] if is_it else []


def _fits(name: str, tensor: Tensor, theirs: torch.dtype) -> bool:
    own = tensor.dtype
    if name.endswith(COUNTER) and theirs.is_floating_point:  # as averaging weights leaves it
        return True
    kinds = [(kind.is_floating_point, kind.is_complex) for kind in (own, theirs)]
    return kinds[0] == kinds[1] and theirs not in QUANTIZED


def _of_names(
    missing: Sequence[str],
    unknown: Sequence[str],
    own: Mapping[str, Tensor],
    given: Mapping[str, Any],
) -> Iterator[str]:
    """A line for each name that only one side has."""
    hints = NUM_HINTS
    for word, names, here, others, there, where in (
        ("missing", missing, own, unknown, given, "in the file"),
        ("unknown", unknown, given, missing, own, "of the network"),
    ):
        for name in names:
            line, hints = f"{word}: {name} {tuple(here[name].shape)}", hints - 1
            alike = [other for other in others if there[other].shape == here[name].shape]
            near = difflib.get_close_matches(name, alike or others, 1, 0.3) if hints >= 0 else []
            for other in near:
                line += f"; nearest {where}: {other} {tuple(there[other].shape)}"
            yield line


def _of_shapes(
    own: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    head: Sequence[str],
    first: Sequence[str],
    excused: set[str],
    expected: Expected,
) -> Iterator[str]:
    """A line for each tensor of another shape, one for the whole head."""
    if head and not excused.issuperset(head):
        named = " and ".join(f"{name} {shapes[name]}" for name in head)
        yield (
            f"the head is for {shapes[head[0]][0]} classes in the file, {named}, and the data has "
            f"{expected.num_classes}. Write experiment.model.new_head: true to start it fresh"
        )
    for name in (name for name in shapes if name not in {*excused, *head}):
        line = f"{name} is {shapes[name]} in the file, {tuple(own[name].shape)} in the network"
        if name in first and shapes[name][1] in (1, 3):
            line += (
                f": it is for images of {shapes[name][1]} channels, these have "
                f"{expected.in_channels}. Write experiment.data.channels: {shapes[name][1]}"
            )
        yield line


def _of_kinds(wrong: Mapping[str, torch.dtype], own: Mapping[str, Tensor]) -> Iterator[str]:
    for name, kind in wrong.items():
        yield (
            f"{name} is {_word(kind)} in the file, {_word(own[name].dtype)} in the network. Save "
            f"the weights as {_word(own[name].dtype)}"
        )


def _broken(model: nn.Module, given: Mapping[str, Any]) -> list[str]:
    """What training that diverged leaves; a buffer, as a mask of attention, may be infinite."""
    own = model.state_dict(keep_vars=True)
    return [
        name
        for name, tensor in given.items()
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and name in own
        if tensor.isnan().any()
        or (isinstance(own[name], nn.Parameter) and not tensor.isfinite().all())
    ]


def _notes(
    source: str,
    fresh: Sequence[str],
    shapes: Mapping[str, tuple[int, ...]],
    kinds: Mapping[str, torch.dtype],
    own: Mapping[str, Tensor],
) -> Iterator[str]:
    if fresh:
        yield (
            f"{FIELD}: {source} has a head for {shapes[fresh[0]][0]} classes, the data has "
            f"{own[fresh[0]].shape[0]}: {', '.join(fresh)} start fresh"
        )
    converted = {_word(kind) for name, kind in kinds.items() if kind != own[name].dtype}
    converted &= {"float16", "bfloat16", "float64"}
    if converted:
        yield f"{FIELD}: {source} holds {' and '.join(sorted(converted))}, taken as float32"


def _word(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")
