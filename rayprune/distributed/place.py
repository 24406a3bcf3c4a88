"""Where a slot's workers find what they need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rayprune.results.files import ray_folder


@dataclass(frozen=True)
class Place:
    """The ledger and the storage of a study, for the processes of its slots."""

    ledger: Any
    storage: str
    folder: str
    """The study's own; it also names the study to others that want the same stage."""
    token: str
    """What the driver wrote there, for every node to see."""

    @property
    def ray_folder(self) -> str:
        return ray_folder(self.folder)
