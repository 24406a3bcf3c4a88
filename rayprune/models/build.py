"""A network by name, or from any function; its start weights from a file."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from rayprune.config.target import find_target
from rayprune.models.lenet import lenet5, lenet_300_100
from rayprune.models.resnet import cifar_resnet, resnet18_cifar
from rayprune.models.small_cnn import small_cnn
from rayprune.models.vgg import vgg16_bn_cifar
from rayprune.models.weights import load_weights_, take_fitting_
from rayprune.models.wide_resnet import wrn_28_10

Build = Callable[..., nn.Module]
OURS: dict[str, Build] = {
    "lenet_300_100": lenet_300_100,
    "lenet5": lenet5,
    "small_cnn": small_cnn,
    "resnet20": partial(cifar_resnet, 20),
    "resnet32": partial(cifar_resnet, 32),
    "resnet44": partial(cifar_resnet, 44),
    "resnet56": partial(cifar_resnet, 56),
    "resnet18_cifar": resnet18_cifar,
    "vgg16_bn_cifar": vgg16_bn_cifar,
    "wrn_28_10": wrn_28_10,
}
TARGET = "experiment.model.target"
TIMM = "timm/"
WITH_AUXILIARY = ("googlenet", "inception_v3")


def check_model(
    name: str | None = None, *, target: str | None = None, weights: str | None = None
) -> None:
    """Raise a ``ValueError`` for a network that cannot be built; builds nothing."""
    if target is not None:
        find_target(target, TARGET)
    elif name is not None and name.startswith(TIMM):
        _timm(name)
    elif name not in OURS and name not in _torchvision_names():
        known = [*OURS, *_torchvision_names()]
        near = difflib.get_close_matches(str(name), known, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(
            f"experiment.model.name: no network {name!r}.{hint} Ours are {', '.join(OURS)}; the "
            f"others are torchvision's classification models, and timm/<name>"
        )
    if weights and not Path(weights).is_file() and not _is_torchvision_entry(name, weights):
        raise ValueError(
            f"experiment.model.weights: {weights} is neither a file that is here nor a torchvision "
            f"entry of {name or target}, such as DEFAULT"
        )


def build_model(
    name: str | None = None,
    *,
    target: str | None = None,
    kwargs: Mapping[str, Any] | None = None,
    weights: str | None = None,
    weights_key: str | None = None,
    new_head: bool = False,
    num_classes: int | None = None,
    in_channels: int | None = 3,
) -> nn.Module:
    """The network of that name or function, for so many classes and image channels.

    Weights are random, by torch's seed, unless `weights` names a file (.safetensors, .pt, .pth) or
    a torchvision entry. Raises ``ValueError`` for what cannot be built.
    """
    check_model(name, target=target, weights=weights)
    options = dict(kwargs or {})
    if target is not None:
        model = _from_target(target, options, num_classes, in_channels)
    elif name in OURS:
        given = {"num_classes": num_classes, "in_channels": in_channels, **options}
        model = _call(OURS[name], name, given)
    elif name is not None and name.startswith(TIMM):
        given = {"num_classes": num_classes, "in_chans": in_channels, **options}
        create = partial(_timm(name).create_model, name.removeprefix(TIMM))
        model = _call_foreign(create, name, given)
    else:
        assert name is not None
        model = _from_torchvision(name, options, weights, num_classes, in_channels)
    if weights is not None and not _is_torchvision_entry(name, weights):
        load_weights_(model, weights)
    return model


def _from_target(
    target: str, options: dict[str, Any], num_classes: int, in_channels: int
) -> nn.Module:
    build = find_target(target, TARGET)
    takes = inspect.signature(build).parameters
    offered = {
        k: v
        for k, v in {"num_classes": num_classes, "in_channels": in_channels}.items()
        if v is not None
    }
    # Only what it names: a builder that hands **kwargs on may reach one that takes neither.
    given = {k: v for k, v in offered.items() if k in takes and k not in options}
    model = _call(build, target, {**given, **options})
    if not isinstance(model, nn.Module):
        raise ValueError(f"{TARGET}: {target} must return an nn.Module, got {type(model).__name__}")
    return model


def _call(build: Build, what: str, arguments: dict[str, Any]) -> nn.Module:
    try:
        inspect.signature(build).bind(**arguments)
    except TypeError as error:
        raise ValueError(f"experiment.model.kwargs do not fit {what}: {error}") from error
    return build(**arguments)


def _call_foreign(build: Build, name: str, arguments: dict[str, Any]) -> nn.Module:
    """A builder of a library, which finds out only inside which arguments it takes."""
    try:
        return build(**arguments)
    except TypeError as error:
        raise ValueError(f"experiment.model.kwargs do not fit {name}: {error}") from error


def _torchvision_names() -> list[str]:
    import torchvision  # seconds: only for names that are not ours

    return torchvision.models.list_models(module=torchvision.models)


def _is_torchvision_entry(name: str | None, weights: str) -> bool:
    if name is None or name in OURS or name.startswith(TIMM) or name not in _torchvision_names():
        return False
    import torchvision

    return weights in ["DEFAULT", *torchvision.models.get_model_weights(name).__members__]


def _from_torchvision(
    name: str, options: dict[str, Any], weights: str | None, num_classes: int, in_channels: int
) -> nn.Module:
    import torchvision

    if in_channels != 3:
        raise ValueError(
            f"experiment.model.name: torchvision's {name} takes images of 3 channels, these have "
            f"{in_channels}. Take one of {', '.join(OURS)}, or timm/{name}"
        )
    entry = weights if weights and _is_torchvision_entry(name, weights) else None
    given: dict[str, Any] = {"num_classes": num_classes}
    if name in WITH_AUXILIARY:  # a loss takes one output; ready weights want inputs scaled for them
        given |= {"aux_logits": False, "transform_input": entry is not None}
    build = partial(torchvision.models.get_model, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about how these two are initialised
        model = _call_foreign(build, name, {**given, **options})
        if entry is not None:
            ready = _call_foreign(build, name, {"weights": entry, **options}).state_dict()
            fitting = {k: ready[k] for k in model.state_dict()}  # all but auxiliary heads
            take_fitting_(model, fitting, f"{name} {entry}")
        return model


def _timm(name: str) -> Any:
    if importlib.util.find_spec("timm") is None:
        raise ValueError(
            f"experiment.model.name: {name} needs the package timm. "
            f"Run: pip install 'rayprune[timm]'"
        )
    import timm

    plain = name.removeprefix(TIMM)
    if not timm.is_model(plain.split(".")[0]):
        near = difflib.get_close_matches(plain, timm.list_models(), 1)
        hint = f" Did you mean {TIMM}{near[0]}?" if near else ""
        raise ValueError(f"experiment.model.name: timm has no model {plain!r}.{hint}")
    return timm
