"""Ray, joined or started here for as long as a study runs."""

from __future__ import annotations

import io
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO

import ray

MAX_STARTS = 3
ANSWER_S = 10.0
LOGGERS = ("ray", "ray.train", "ray.tune", "ray.data")


# What Ray says of a process or node that died is said by the study, in its own words, when it
# matters, and without the end of a raylet's log; Ray counts slots and waiting trials against the
# CPUs of a small machine. Tune, told to be silent, still speaks of trials that ended without a
# result.
DROPPED = (
    "PYTHON worker processes have been started",
    "A worker died or was killed",
    "Raylet is terminated.",
    "has been marked dead because",
    "retries remaining",
    "completed. Last result: ",
)


class WithoutRaysWorries(io.TextIOBase):
    """An output without what Ray says of processes that are replaced anyway.

    All else that Ray says, as that no node can hold a worker, passes.
    """

    def __init__(self, target: TextIO) -> None:
        self._target, self._dropped = target, False

    def write(self, text: str) -> int:
        dropped = any(words in text for words in DROPPED)
        if not dropped and not (self._dropped and text == "\n"):  # its line's end comes by itself
            self._target.write(text)
        self._dropped = dropped
        return len(text)

    def flush(self) -> None:
        self._target.flush()

    def isatty(self) -> bool:
        return not self._target.closed and self._target.isatty()  # it may be asked after all

    def fileno(self) -> int:
        return self._target.fileno()


class RayStoppedError(OSError):
    """Ray itself ended, or cannot be reached; what is finished lies in the storage."""


@contextmanager
def connected(meanwhile: Callable[[], object] = lambda: None) -> Iterator[bool]:
    """A Ray that this process is connected to, and whether the connection ends with the context.

    It stays if the process was connected before; else it is the cluster of RAY_ADDRESS, or a new
    Ray on this machine, and the connection ends with the context. `meanwhile` is called while Ray
    starts; what it raises ends such a connection again. Ray is quiet inside; loggers,
    standard output and signal handlers are as before afterwards. Raises ``RayStoppedError`` where
    Ray fails inside.
    """
    is_ours = not ray.is_initialized()
    with ExitStack() as stack:
        stack.enter_context(_quiet_loggers())
        handlers = stack.enter_context(_signal_handlers())
        stack.enter_context(redirect_stdout(WithoutRaysWorries(sys.stdout)))
        stack.enter_context(redirect_stderr(WithoutRaysWorries(sys.stderr)))
        if is_ours:
            stack.callback(ray.shutdown)
            with ThreadPoolExecutor(1) as pool:
                other = pool.submit(meanwhile)
                _join_or_start()  # in this thread: Ray's processes end with the one they began in
                other.result()
            for number, handler in handlers.items():
                if callable(handler):  # Ray puts its own in the place of the caller's
                    signal.signal(number, handler)
        else:
            meanwhile()
        try:
            yield is_ours
        except Exception as error:
            if not _is_rays(error):
                raise
            reason = str(error).strip().split("\n")[0]
            node = ray.worker.global_worker.node  # None once Ray was shut down
            log = f". Ray's own log is in {node.get_logs_dir_path()}" if node else ""
            raise RayStoppedError(
                f"Ray stopped ({reason}): the same command goes on from here{log}"
            ) from error


def _is_rays(error: Exception) -> bool:
    """Whether an error is Ray's own."""
    from ray.tune.error import TuneError

    return isinstance(error, ray.exceptions.RayError | TuneError)


def _join_or_start() -> None:
    """Join the cluster of RAY_ADDRESS, or start a Ray on this machine."""
    address = os.environ.get("RAY_ADDRESS")
    if address:
        _check_answers(address)
    else:
        # Ray would give its workers what the machine's other processes leave, which beside busy
        # ones is next to nothing: they get the priority of this process instead.
        os.environ.setdefault("RAY_worker_niceness", "0")
    for attempt in range(1, MAX_STARTS + 1):
        try:
            ray.init(
                address=address or "local",  # not some cluster that was left on this machine
                log_to_driver=False,
                configure_logging=False,
                include_dashboard=None if address else False,
            )
            return
        except Exception as error:
            ray.shutdown()
            if address:
                raise RayStoppedError(f"no Ray answers at {address}: {error}") from error
            if attempt == MAX_STARTS:  # it gives its processes 30 s, and a busy machine needs more
                raise RayStoppedError(f"Ray could not be started: {error}") from error


def _check_answers(address: str) -> None:
    """Whether somebody listens at an address; Ray itself would ask for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        return  # auto, or a URL
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
    except OSError as error:
        raise RayStoppedError(
            f"no Ray answers at RAY_ADDRESS={address} ({error}). Unset it to start a Ray on this "
            f"machine, or write the address that `ray start --head` printed"
        ) from error


@contextmanager
def _quiet_loggers() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger.level, logger.propagate, list(logger.handlers)) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)  # what dies is started again; Ray's own log tells of it
    try:
        yield
    finally:
        for logger, (level, propagate, handlers) in zip(loggers, before, strict=True):
            logger.setLevel(level)
            logger.propagate, logger.handlers = propagate, handlers


@contextmanager
def _signal_handlers() -> Iterator[dict[signal.Signals, Any]]:
    """The handlers of now, which are there again afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield {}  # only the main thread may set handlers, so nobody has
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield before
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
