"""Named places where a test lets something go wrong; without RAYPRUNE_FAULTS they do nothing.

RAYPRUNE_FAULTS is a JSON list of faults, each an object of ``Fault``'s fields. A fault with a
`mark` happens once, however many processes come by; its mark is the file that says so.
"""

from __future__ import annotations

import errno
import json
import os
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Action = Literal["kill", "stop", "full", "unavailable", "torn"]
VARIABLE = "RAYPRUNE_FAULTS"


@dataclass(frozen=True)
class Fault:
    """What goes wrong, where, and when."""

    at: str
    """Name of the point: ``run.after_checkpoint``, ``storage.write``."""
    do: Action
    """kill or stop this process; a full disk, a server's 503, or a file that is cut off."""
    nth: int = 1
    """At the process's n-th time there, counted from 1."""
    last: int | None = None
    """Up to and with this time; the n-th alone unless given."""
    who: str | None = None
    """Only where the caller says so of itself, as ``rank 1``."""
    mark: str | None = None


_times: Counter[tuple[str, str | None]] = Counter()


def reach(at: str, who: str | None = None) -> Action | None:
    """Come by a point. Return ``torn`` where the caller is to cut off what it writes.

    Raises ``OSError`` for what goes wrong with a disk or a server.
    """
    variable = os.environ.get(VARIABLE)
    if not variable:
        return None
    _times[at, who] += 1
    for fault in _faults(variable):
        if _is_here(fault, at, who) and _is_first(fault):
            return _let_happen(fault)
    return None


@lru_cache(maxsize=4)
def _faults(variable: str) -> Sequence[Fault]:
    return [Fault(**fields) for fields in json.loads(variable)]


def _is_here(fault: Fault, at: str, who: str | None) -> bool:
    time = _times[at, who]
    is_now = fault.nth <= time <= (fault.last or fault.nth)
    return fault.at == at and fault.who in (None, who) and is_now


def _is_first(fault: Fault) -> bool:
    if fault.mark is None:
        return True
    try:
        os.close(os.open(fault.mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def _let_happen(fault: Fault) -> Action:
    if fault.do == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault.do == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif fault.do == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    elif fault.do == "unavailable":
        raise OSError("AWS Error SLOW_DOWN: 503 Service Unavailable")
    return fault.do
