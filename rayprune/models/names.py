"""Which networks have a name: ours, torchvision's and timm's."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from rayprune.config.entries import TIMM
from rayprune.models.lenet import lenet5, lenet_300_100
from rayprune.models.resnet import cifar_resnet, resnet18_cifar
from rayprune.models.small_cnn import small_cnn
from rayprune.models.vgg import vgg16_bn_cifar
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


def check_name(name: str | None) -> None:
    """Raise a ``ValueError`` that names the nearest one where no network is called so."""
    if name is not None and name.startswith(TIMM):
        import_timm(name)
    elif name not in OURS and name not in torchvision_names():
        known = [*OURS, *torchvision_names()]
        near = difflib.get_close_matches(str(name), known, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(
            f"experiment.model.name: no network {name!r}.{hint} Ours are {', '.join(OURS)}; the "
            f"others are torchvision's classification models, and timm/<name>"
        )


def torchvision_names() -> list[str]:
    """Of its classification networks."""
    import torchvision  # seconds: only for names that are not ours

    return list(torchvision.models.list_models(module=torchvision.models))


def import_timm(name: str) -> Any:
    """The package timm. Raises a ``ValueError`` where it is not here or knows no such network."""
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
