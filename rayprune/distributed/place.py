"""Where a slot's workers find what they need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rayprune.config.goals import Goals


@dataclass(frozen=True)
class Place:
    """The ledger and the storage of a study, for the processes of its slots."""

    ledger: Any
    storage: str
    folder: str
    """The study's own; it also names the study to others that want the same stage."""
    study: str
    """Its name, as Ray's dashboard shows it."""
    goals: Goals
    """What trials are compared by: a user's task may not measure it."""
    token: str
    """What the driver wrote there, for every node to see."""
    has_dashboard: bool
    """Whether Ray's dashboard may show the runs of Ray Train."""
    ray_folder: str
    """Where Ray Tune and Ray Train keep their own files, which nothing reads again: on the disk of
    the head, so that a storage in trouble is none for them."""
