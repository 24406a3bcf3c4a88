"""The points that a searcher has proposed so far: a study that goes on begins with them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter

from rayprune.config import Study
from rayprune.results.files import proposed_file
from rayprune.results.storage import read_bytes, write_bytes
from rayprune.trials import TrialPlan, make_trial

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Proposal:
    """A point of the search space with one of its seeds: a trial."""

    name: str
    """Of the trial."""
    point: Mapping[str, Any]
    """Searched field -> value, as the searcher said it."""
    seed: int | None
    """None where the study has no seeds of its own."""

    def make_trial(self, study: Study) -> TrialPlan:
        """The trial, or one with a mistake if the point cannot be run."""
        seed = {} if self.seed is None else {"seed": self.seed}
        return make_trial(study, self.name, {**self.point, **seed})


_PROPOSALS = TypeAdapter(tuple[Proposal, ...])


def read_proposals(folder: str) -> tuple[Proposal, ...]:
    """What was proposed in a study's folder, in order; none if it cannot be read.

    Raises ``StorageError``.
    """
    content = read_bytes(proposed_file(folder))
    try:
        return () if content is None else _PROPOSALS.validate_json(content)
    except ValueError:
        log.warning("%s cannot be read: the search begins anew", proposed_file(folder))
        return ()


def write_proposals(folder: str, proposals: Sequence[Proposal]) -> None:
    """Write down what was proposed. Raises ``StorageError``."""
    raw = [asdict(proposal) for proposal in proposals]
    content = json.dumps(raw, default=lambda number: number.item())  # libraries have their own
    write_bytes(proposed_file(folder), content.encode())
