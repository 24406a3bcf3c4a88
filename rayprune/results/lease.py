"""Who works on a study or a stage: a file that its holder renews until it is done.

On a local file system exactly one of many takers succeeds, by a lock on a file beside it that
stays there, empty. An object store cannot lock: of two that take at the same moment the last writer
wins, and the other one sees it as it reads back, or, if the store was slower than that, as it
renews. Hosts' clocks are to agree within seconds.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

from filelock import FileLock
from pydantic import ConfigDict, TypeAdapter

from rayprune.results.storage import StorageError, delete, local_path, read_bytes, write_bytes

log = logging.getLogger(__name__)

LEASE_S = 60.0  # one that is older than this is nobody's
RENEW_EVERY_S = 10.0
SETTLE_S = 0.5  # on an object store, before reading back: what a slow write of another may take
LOCK_S = 30.0  # the longest wait for a local lock, which is held for the time of a write


@dataclass(frozen=True, kw_only=True)
class Lease:
    """Who holds it, and when it was last renewed."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid", strict=True)

    owner: str
    """On whose behalf: a study's folder, for example."""
    token: str
    """Of this taking alone."""
    host: str
    machine: str
    """Where `pid` means this process: a boot of a machine, and a container on it."""
    pid: int
    started: str
    """When the process started, in the machine's own count; empty where that is not known."""
    renewed: float
    """Seconds since 1970."""


_LEASE = TypeAdapter(Lease)


class LeaseHeldError(ValueError):
    """Somebody else holds it."""

    def __init__(self, file: str, holder: Lease) -> None:
        seen = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder.renewed))
        super().__init__(
            f"{holder.owner} is in use by process {holder.pid} on {holder.host}, last heard of at "
            f"{seen}: wait until it is done, or end it (a process that was killed counts as gone "
            f"{LEASE_S:.0f} s later; {file} says who it is)"
        )
        self.holder = holder


def take(file: str, owner: str, *, same_owner: bool = False, now: float | None = None) -> Lease:
    """Take the lease in a file that is free, damaged or run out, or whose process is dead.

    With `same_owner`, also from another process of the same owner. Raises ``LeaseHeldError``,
    ``StorageError``.
    """
    mine = _lease_of_this_process(owner, _now(now))
    with _alone(file):
        holder = read_lease(file)
        if holder and _holds(holder, mine.renewed) and not (same_owner and holder.owner == owner):
            raise LeaseHeldError(file, holder)
        _write(file, mine)
    if local_path(file) is None:
        time.sleep(SETTLE_S)
        holder = read_lease(file)
        if holder and holder.token != mine.token:
            raise LeaseHeldError(file, holder)
    return mine


def renew(file: str, lease: Lease, *, now: float | None = None) -> bool:
    """Hold it for longer. Return False if it is another's by now. Raises ``StorageError``."""
    with _alone(file):
        holder = read_lease(file)
        if holder and holder.token != lease.token:
            return False
        _write(file, replace(lease, renewed=_now(now)))
    return True


def release(file: str, lease: Lease) -> None:
    """Give it back, unless it is another's by now. Raises ``StorageError``."""
    with _alone(file):
        holder = read_lease(file)
        if holder and holder.token == lease.token:
            delete(file)


def read_lease(file: str) -> Lease | None:
    """What a file says, whether or not it has run out; None if nothing. Raises ``StorageError``."""
    content = read_bytes(file)
    try:
        return None if content is None else _LEASE.validate_json(content)
    except ValueError:
        log.warning("%s cannot be read: it counts as nobody's", file)
        return None


@contextmanager
def held(file: str, owner: str, *, same_owner: bool = False) -> Iterator[Lease]:
    """Hold a lease: taken as `take` does, renewed by a thread, released at the end.

    Raises ``LeaseHeldError``, ``StorageError``.
    """
    lease = take(file, owner, same_owner=same_owner)
    done = threading.Event()
    keeper = threading.Thread(target=_keep, args=(file, lease, done), daemon=True)
    keeper.start()
    try:
        yield lease
    finally:
        done.set()
        keeper.join()  # or it would write after the release
        try:
            release(file, lease)
        except StorageError as error:
            log.warning("%s was left, and runs out in %.0f s: %s", file, LEASE_S, error)


def _keep(file: str, lease: Lease, done: threading.Event) -> None:
    in_trouble = False
    while not done.wait(RENEW_EVERY_S):
        try:
            if not renew(file, lease):
                log.warning("%s was taken by another process", file)
                return
            in_trouble = False
        except StorageError as error:
            if not in_trouble:
                log.warning("a lease was not renewed, and is tried again: %s", error)
            in_trouble = True


def _holds(lease: Lease, now: float) -> bool:
    return now - lease.renewed < LEASE_S and not _is_dead(lease)


def _is_dead(lease: Lease) -> bool:
    """Whether its process is known to be gone; of another machine's, nothing is known."""
    if lease.machine != _machine():
        return False
    try:
        os.kill(lease.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # another user's
        pass
    started = _started(lease.pid)
    return bool(started and lease.started) and started != lease.started


def _lease_of_this_process(owner: str, now: float) -> Lease:
    return Lease(
        owner=owner,
        token=uuid.uuid4().hex,
        host=socket.gethostname(),
        machine=_machine(),
        pid=os.getpid(),
        started=_started(os.getpid()),
        renewed=now,
    )


def _machine() -> str:
    """Two containers may share the host's name, and number their processes alike."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> str:
    """The start of a process, "dead" of one that is only waited for; numbers are used again."""
    try:
        # The name, in brackets, may hold anything. After it: the state, and 19 fields further on
        # the start.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "dead" if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        return ""


def _write(file: str, lease: Lease) -> None:
    write_bytes(file, json.dumps(asdict(lease)).encode())


def _alone(file: str) -> AbstractContextManager[object]:
    """No other process of this file system takes, renews or releases it meanwhile."""
    path = local_path(file)
    return nullcontext() if path is None else _locked(path)


@contextmanager
def _locked(path: str) -> Iterator[None]:
    lock = FileLock(f"{path}.lock", timeout=LOCK_S)
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise StorageError(f"cannot lock {path}: {error}") from error
    try:
        yield
    finally:
        lock.release()


def _now(now: float | None) -> float:
    return time.time() if now is None else now
