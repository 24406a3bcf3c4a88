"""Trained weights that torchvision and timm know by name, and where their files lie here.

Nothing is downloaded: an entry whose file is not on this machine is an error that names the place
and the command that fetches it. Both libraries take seconds to import, so only what names an entry
imports them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from rayprune.config.target import find_target

TIMM = "timm/"
DEFAULT = "DEFAULT"
TORCHVISION = "torchvision."
FIELD = "experiment.model.weights"


@dataclass(frozen=True)
class Entry:
    """Weights by name: `known` is the library's own description of them."""

    title: str
    files: tuple[Path, ...]
    """Where the file may lie, best first."""
    fetch: str
    """The command that brings it here, where there is a connection."""
    known: Any

    @property
    def file(self) -> Path:
        """The file on this machine. Raises ``ValueError`` if it is not here."""
        found = next((file for file in self.files if file.is_file()), None)
        if found is None:
            raise ValueError(
                f"{FIELD}: the file of {self.title} is not here, and nothing is downloaded. It "
                f"belongs at {' or '.join(map(str, self.files))}. Where there is a connection, "
                f"run: {self.fetch}"
            )
        return found


def find_entry(name: str | None, target: str | None, weights: str) -> Entry | None:
    """The entry that `weights` names for this network; None where it names none.

    `name` and `target` are those of ``experiment.model``. Raises ``ValueError`` for an entry
    without a file of its own.
    """
    if name is not None and name.startswith(TIMM):
        return _of_timm(name) if weights == DEFAULT else None
    entries = dict(_of_torchvision(name, target)) if weights.isidentifier() else {}
    return entries.get(weights)


def entry_of_file(name: str | None, target: str | None, file: Path) -> Entry | None:
    """The torchvision entry of this network whose file is called like this one."""
    entries = dict(_of_torchvision(name, target)).values()
    return next((entry for entry in entries if entry.files[0].name == file.name), None)


def _of_torchvision(name: str | None, target: str | None) -> Iterator[tuple[str, Entry]]:
    """Name -> entry, of a network of torchvision's; none for any other."""
    if not _may_be_torchvisions(name, target):
        return
    import torch
    import torchvision

    builder: str | Callable[..., Any] | None = name
    if target is not None:
        builder = find_target(target, "experiment.model.target")
    with suppress(ValueError):  # no network of torchvision's, or one without weights
        known = torchvision.models.get_model_weights(builder)
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        function = name if target is None else target.partition(":")[2]
        for given in (DEFAULT, *known.__members__):
            entry = getattr(known, given, None)
            if entry is not None:
                call = f"torchvision.models.get_model({function!r}, weights='{entry.name}')"
                yield (
                    given,
                    Entry(
                        f"torchvision's {name or target} {entry.name}",
                        (folder / Path(urlparse(entry.url).path).name,),
                        f'python -c "import torchvision; {call}"',
                        entry,
                    ),
                )


def _may_be_torchvisions(name: str | None, target: str | None) -> bool:
    if target is not None:
        return target.startswith(TORCHVISION)
    return name is not None and not name.startswith(TIMM)


def _of_timm(name: str) -> Entry | None:
    known = timm_description(name)
    if known is None:
        return None
    from huggingface_hub import constants, try_to_load_from_cache
    from torch.hub import get_dir

    plain = name.removeprefix(TIMM)
    files = [Path(known.file)] if known.file else []
    if known.hf_hub_id:
        repository, _, revision = known.hf_hub_id.partition("@")
        files_there = (known.hf_hub_filename, "model.safetensors", "pytorch_model.bin")
        cache = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
        for file in filter(None, files_there):
            found = try_to_load_from_cache(repository, file, revision=revision or None)
            files.append(Path(found) if isinstance(found, str) else cache / file)
    if known.url:
        files.append(Path(get_dir()) / "checkpoints" / Path(urlparse(known.url).path).name)
    if not files:
        raise ValueError(f"{FIELD}: timm has no trained weights of {plain}. Write a file's path")
    create = f"timm.create_model('{plain}', pretrained=True)"
    fetch = f'python -c "import timm; {create}"'
    return Entry(f"timm's {plain}", tuple(files), fetch, known)


def timm_description(name: str) -> Any:
    """What timm knows of the weights of a network timm/…; None if it doesn't know the network."""
    if importlib.util.find_spec("timm") is None:
        return None
    import timm

    with suppress(RuntimeError):  # an unknown tag, as resnet18.no_such
        return timm.models.get_pretrained_cfg(name.removeprefix(TIMM))
    return None
