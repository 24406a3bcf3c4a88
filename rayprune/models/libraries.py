"""Networks of torchvision and timm: how they are built, and what their files call differently."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from rayprune.config.entries import TIMM
from rayprune.models.names import OURS, import_timm
from rayprune.models.weights import without_prefixes

# Their trained files have heads that a loss of one output has no use for.
AUXILIARY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
# Files from before a module's name could not have a dot in it.
OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|conv))\.([12]\..*)$")


def from_timm(
    name: str, options: Mapping[str, Any], num_classes: int, in_channels: int
) -> nn.Module:
    """The network timm/…, with random weights."""
    create = partial(import_timm(name).create_model, name.removeprefix(TIMM))
    given = {"num_classes": num_classes, "in_chans": in_channels, **options}
    return _call_foreign(create, name, given)


def from_torchvision(
    name: str,
    options: Mapping[str, Any],
    num_classes: int,
    in_channels: int,
    *,
    is_ready: bool,
) -> nn.Module:
    """The network of torchvision's, with random weights, for those of an entry if `is_ready`."""
    import torchvision

    if in_channels != 3:
        raise ValueError(
            f"experiment.model.name: torchvision's {name} takes images of 3 channels, these have "
            f"{in_channels}. Write experiment.data.channels: 3, or take timm/{name} or one of "
            f"{', '.join(OURS)}"
        )
    given: dict[str, Any] = {"num_classes": num_classes}
    if name in AUXILIARY:  # a loss takes one output; ready weights want inputs scaled for them
        given |= {"aux_logits": False, "transform_input": is_ready}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about how these two are initialised
        return _call_foreign(
            partial(torchvision.models.get_model, name), name, {**given, **options}
        )


def renamed(name: str | None, given: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    """The state_dict of a library's file under the names that the library's network has now."""
    own = model.state_dict()
    given = without_prefixes(given, own)
    if name is None or name in OURS:
        return given
    if name.startswith(TIMM):
        return _through_timm(given, own, model)
    dropped = AUXILIARY.get(name, ())
    if name.startswith("densenet"):
        given = {OLD_DENSENET.sub(r"\1\2", key): value for key, value in given.items()}
    return {k: v for k, v in given.items() if k in own or not k.startswith(tuple(dropped))}


def _through_timm(
    given: dict[str, Any], own: Mapping[str, Any], model: nn.Module
) -> dict[str, Any]:
    """What timm makes of files that others wrote; each of its modules knows those of its own."""
    if given.keys() == own.keys() and all(given[k].shape == own[k].shape for k in own):
        return given
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return given
    try:
        converted = convert(dict(given), model)
    except Exception:  # a file that it doesn't know; the names are compared as they are
        return given
    return dict(converted) if isinstance(converted, Mapping) else given


def _call_foreign(
    build: Callable[..., nn.Module], name: str, arguments: dict[str, Any]
) -> nn.Module:
    """A builder of a library, which finds out only inside which arguments it takes."""
    try:
        return build(**arguments)
    except TypeError as error:
        raise ValueError(f"experiment.model.kwargs do not fit {name}: {error}") from error
