"""A network by name, or from any function; its start weights from a file."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rayprune import config
from rayprune.config.brought import find_weights, weights_file
from rayprune.config.entries import TIMM, TORCHVISION, entry_of_file, find_entry
from rayprune.config.target import find_target
from rayprune.models.libraries import from_timm, from_torchvision, renamed
from rayprune.models.names import OURS, check_name
from rayprune.models.ours import brought_masks
from rayprune.models.state_dict import read_state_dict
from rayprune.models.weights import Expected, load_weights_

TARGET = "experiment.model.target"

log = logging.getLogger(__name__)


def check_model(
    name: str | None = None,
    *,
    target: str | None = None,
    weights: str | None = None,
    weights_key: str | None = None,
    new_head: bool = False,
) -> None:
    """Raise a ``ValueError`` for a network that cannot be built; builds nothing, reads no weights.

    The arguments are the fields of ``experiment.model``.
    """
    if target is not None:
        find_target(target, TARGET)
    else:
        check_name(name)
    if weights is None:
        return
    path = find_weights(name, target, weights)
    if not loads_itself(target):
        weights_file(path)
    elif weights_key is not None or new_head:
        field = "weights_key" if weights_key is not None else "new_head"
        raise ValueError(
            f"experiment.model.{field}: {target} takes weights and loads them itself. Leave "
            f"{field} out, and pass what it needs in experiment.model.kwargs"
        )


def loads_itself(target: str | None) -> bool:
    """Whether the function takes `weights`, so that it gets their path.

    Those of torchvision's have such an argument, too, which takes no path.
    """
    if target is None or target.startswith(TORCHVISION):
        return False
    return "weights" in inspect.signature(find_target(target, TARGET)).parameters


def build_model(
    name: str | None = None,
    *,
    target: str | None = None,
    kwargs: Mapping[str, Any] | None = None,
    weights: str | None = None,
    weights_key: str | None = None,
    new_head: bool = False,
    num_classes: int | None,
    in_channels: int | None = 3,
    is_filled: bool = True,
) -> nn.Module:
    """The network of that name or function, for so many classes and image channels.

    Weights are random, by torch's seed, unless `weights` says where trained ones are: a file, a
    folder of ours, or the name of an entry of torchvision's or timm's. `num_classes` and
    `in_channels` are None where the data has none: a function is then not offered them. Without
    `is_filled` the network is the same, and `weights` are not read: other ones will take their
    place. Raises ``ValueError`` for what cannot be built, and for weights that do not fit, each by
    its name.
    """
    expected = Expected(num_classes, in_channels)
    fields = {"name": name, "target": target, "weights": weights, "weights_key": weights_key}
    check_model(**fields, new_head=new_head)
    how = (weights, weights_key, new_head, expected)
    model, notes = _build(name, target, dict(kwargs or {}), *how, is_filled=is_filled)
    for note in notes:  # the check before a study warned of them
        log.info(note)
    return model


def check_weights(
    model: config.Model,
    *,
    num_classes: int | None,
    in_channels: int | None,
    is_certain: bool = True,
) -> None:
    """Build the network once, with its weights, and warn of what a user should know of them.

    Without `is_certain` the data is not known so far: what depends on its classes and channels is
    not looked at. Raises ``ValueError`` as `build_model`.
    """
    expected = Expected(num_classes, in_channels)
    options = dict(model.kwargs)
    if not is_certain:
        expected = _made_up(model, options)
    how = (model.weights, model.weights_key, model.new_head, expected)
    try:
        with torch.random.fork_rng(devices=[]):  # a caller's random numbers are his own
            network, notes = _build(model.name, model.target, options, *how)
    except (ValueError, OSError):
        raise
    except Exception as error:  # whatever a function of the user's raises
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{TARGET}: {model.target or model.name} failed: {reason}") from error
    brought_masks(model.weights, network)
    for note in notes:
        log.warning(note)


def _made_up(model: config.Model, options: Mapping[str, Any]) -> Expected:
    """Numbers with which a network can be built; certain where it asks for none."""
    takes: Collection[str] = ("num_classes", "in_channels")
    if model.target is not None:
        takes = inspect.signature(find_target(model.target, TARGET)).parameters
    elif "in_chans" in options:  # timm's word
        takes = ("num_classes",)
    asked = set(takes) & {"num_classes", "in_channels"} - options.keys()
    num_classes = 1000 if "num_classes" in asked else None
    in_channels = 3 if "in_channels" in asked else None
    return Expected(num_classes, in_channels, is_certain=not asked)


def _build(
    name: str | None,
    target: str | None,
    options: dict[str, Any],
    weights: str | None,
    weights_key: str | None,
    new_head: bool,
    expected: Expected,
    *,
    is_filled: bool = True,
) -> tuple[nn.Module, tuple[str, ...]]:
    """The network, and what a user should know of its weights."""
    path = None if weights is None else find_weights(name, target, weights)
    if target is not None:
        gives = {} if path is None or not loads_itself(target) else {"weights": str(path)}
        model = _from_target(target, {**options, **gives}, expected)
        if gives:
            return model, ()
    else:
        assert name is not None
        model = _from_name(name, options, expected, path, weights)
    if path is None or not is_filled:
        return model, ()
    file = weights_file(path)
    given = renamed(name, read_state_dict(file, weights_key), model)
    num_classes = options.get("num_classes", expected.num_classes)
    in_channels = options.get("in_channels", options.get("in_chans", expected.in_channels))
    known = Expected(num_classes, in_channels, expected.is_certain)
    return model, load_weights_(model, given, str(file), expected=known, new_head=new_head)


def _from_name(
    name: str, options: dict[str, Any], expected: Expected, path: Path | None, weights: str | None
) -> nn.Module:
    num_classes, in_channels = expected.num_classes, expected.in_channels or 3
    if num_classes is None and "num_classes" not in options:
        raise ValueError(
            f"experiment.model.name: {name} has an output for each class, and the data has no "
            f"classes. Add model.kwargs: {{num_classes: 1}}"
        )
    num_classes = options.get("num_classes", num_classes)
    assert num_classes is not None
    if name in OURS:
        given = {"num_classes": num_classes, "in_channels": in_channels, **options}
        return _call(OURS[name], name, given)
    if name.startswith(TIMM):
        return from_timm(name, options, num_classes, in_channels)
    is_ready = path is not None and (
        find_entry(name, None, str(weights)) or entry_of_file(name, None, path)
    )
    return from_torchvision(name, options, num_classes, in_channels, is_ready=bool(is_ready))


def _from_target(target: str, options: dict[str, Any], expected: Expected) -> nn.Module:
    build = find_target(target, TARGET)
    takes = inspect.signature(build).parameters
    offered = {"num_classes": expected.num_classes, "in_channels": expected.in_channels}
    # Only what it names: a builder that hands **kwargs on may reach one that takes neither.
    given = {
        name: number
        for name, number in offered.items()
        if number is not None and name in takes and name not in options
    }
    model = _call(build, target, {**given, **options})
    if not isinstance(model, nn.Module):
        raise ValueError(f"{TARGET}: {target} must return an nn.Module, got {type(model).__name__}")
    return model


def _call(build: Callable[..., nn.Module], what: str, arguments: dict[str, Any]) -> nn.Module:
    try:
        inspect.signature(build).bind(**arguments)
    except TypeError as error:
        raise ValueError(f"experiment.model.kwargs do not fit {what}: {error}") from error
    return build(**arguments)
