"""A process is afterwards as it was before Ray, and hears of Ray only what matters."""

import io
import logging
import os
import signal
import socket
import sys
import threading

import pytest
import ray
from ray.tune.error import TuneError

from rayprune.distributed import connection
from rayprune.distributed.connection import (
    DROPPED,
    LOGGERS,
    RayStoppedError,
    WithoutRaysWorries,
    connected,
)

NUMBERS = (signal.SIGINT, signal.SIGTERM)
NO_ROOM = "(autoscaler) no node type can hold {'GPU': 3}"


@pytest.fixture
def ray_elsewhere(monkeypatch, tmp_path):
    """As if this process were connected to a Ray."""
    node = type("Node", (), {"get_logs_dir_path": lambda self: str(tmp_path)})()
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray.worker.global_worker, "node", node, raising=False)


# ---- what is said ----


@pytest.mark.parametrize("words", DROPPED)
@pytest.mark.parametrize("end", ["\n", ""])
def test_what_ray_says_of_replaced_processes_is_kept_back_with_its_line(words, end):
    file = io.StringIO()
    stream = WithoutRaysWorries(file)
    print(f"(raylet) WARNING: 8 {words} on node", end=end, file=stream)
    print(NO_ROOM, file=stream)
    print(file=stream)
    assert file.getvalue() == f"{NO_ROOM}\n\n"


def test_all_else_passes_as_it_is():
    file = io.StringIO()
    stream = WithoutRaysWorries(file)
    for text in ("a line\n", "\n", "half", " and half\n", "two\nlines\n", ""):
        assert stream.write(text) == len(text)
    assert file.getvalue() == "a line\n\nhalf and half\ntwo\nlines\n"


def test_it_is_a_terminal_where_its_target_is_one():
    with open(os.devnull, "w") as file:
        stream = WithoutRaysWorries(file)
        assert not stream.isatty() and stream.fileno() == file.fileno()
        stream.flush()
    assert not stream.isatty(), "who asks at the end of the process hears no"


# ---- what is left behind ----


def state():
    """What Ray might change for a whole process."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    return (
        [(each.level, each.propagate, list(each.handlers)) for each in loggers],
        [signal.getsignal(number) for number in NUMBERS],
        (sys.stdout, sys.stderr),
    )


def change_all():
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.DEBUG)
        logging.getLogger(name).propagate = False
        logging.getLogger(name).addHandler(logging.NullHandler())
    for number in NUMBERS:
        signal.signal(number, signal.SIG_IGN)


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, ray.exceptions.RayError("it died")])
def test_loggers_handlers_and_streams_are_as_before(ray_elsewhere, error):
    before = state()
    try:
        with connected():
            change_all()
            assert isinstance(sys.stdout, WithoutRaysWorries)
            assert isinstance(sys.stderr, WithoutRaysWorries)
            if error is not None:
                raise error
    except (KeyboardInterrupt, RayStoppedError):
        pass
    assert state() == before


def test_ray_is_quiet_inside(ray_elsewhere):
    with connected():
        assert not any(logging.getLogger(name).isEnabledFor(logging.ERROR) for name in LOGGERS)


def test_a_thread_may_connect(ray_elsewhere):
    """Only the main thread could set handlers, so none is changed."""
    before, happened = state(), []

    def connect():
        with connected() as is_ours:
            happened.append(is_ours)

    thread = threading.Thread(target=connect)
    thread.start()
    thread.join()
    assert happened == [False] and state() == before


# ---- whose Ray it is ----


def test_a_ray_that_was_there_before_stays(ray_elsewhere, monkeypatch):
    monkeypatch.setattr(ray, "shutdown", pytest.fail)
    with connected() as is_ours:
        assert not is_ours


@pytest.mark.parametrize("address", [None, "10.0.0.7:6379"])
def test_a_ray_that_was_joined_or_started_here_ends_with_the_context(monkeypatch, address):
    calls = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **options: calls.append(options["address"]))
    monkeypatch.setattr(ray, "shutdown", lambda: calls.append("shutdown"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_worker_niceness", "0")
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    with connected() as is_ours:
        assert is_ours and calls == [address or "local"]
    assert calls[1:] == ["shutdown"]


def test_the_callers_handlers_work_while_a_ray_that_was_started_here_runs(monkeypatch):
    """Ray puts its own in their place, and Ctrl-C is the caller's."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **options: change_all())
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setenv("RAY_worker_niceness", "0")
    heard = []
    before = [signal.signal(number, lambda *_: heard.append(1)) for number in NUMBERS]
    try:
        with connected():
            for number in NUMBERS:
                signal.raise_signal(number)
        assert heard == [1, 1]
    finally:
        for number, handler in zip(NUMBERS, before, strict=True):
            signal.signal(number, handler)


# ---- what is done while Ray starts ----


@pytest.fixture
def ray_that_starts(monkeypatch):
    """What happened, in order; a Ray that starts once it is told to, and says when it is there."""
    happened, told, there = [], threading.Event(), threading.Event()

    def init(**options):
        happened.append("starts")
        assert told.wait(60), "nothing else was done meanwhile"
        happened.append("is there")
        there.set()

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: happened.append("ends"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_worker_niceness", "0")
    return happened, told, there


def test_something_else_is_done_in_a_thread_while_ray_starts(ray_that_starts):
    happened, told, _ = ray_that_starts
    threads = []

    def meanwhile():
        threads.append(threading.current_thread())
        told.set()

    with connected(meanwhile):
        assert happened == ["starts", "is there"]
    assert threads != [threading.current_thread()] and len(threads) == 1


def test_the_context_begins_when_both_are_done(ray_that_starts):
    happened, told, there = ray_that_starts

    def meanwhile():
        told.set()
        assert there.wait(60)
        happened.append("is checked")

    with connected(meanwhile):
        assert happened == ["starts", "is there", "is checked"]


@pytest.mark.parametrize("error", [ValueError("no such field"), RayStoppedError("gone")])
def test_a_mistake_that_is_found_meanwhile_ends_ray_again_and_is_told(ray_that_starts, error):
    happened, told, _ = ray_that_starts
    before = state()

    def meanwhile():
        told.set()
        raise error

    with pytest.raises(type(error)) as raised, connected(meanwhile):
        pytest.fail("it is not entered")
    assert raised.value is error and state() == before
    assert happened == ["starts", "is there", "ends"]


def test_where_ray_is_there_already_it_is_done_at_once(ray_elsewhere, monkeypatch):
    monkeypatch.setattr(ray, "shutdown", pytest.fail)
    done = []
    with connected(lambda: done.append(1)):
        assert done == [1]

    def mistaken():
        raise ValueError("no such field")

    before = state()
    with pytest.raises(ValueError, match="no such field"), connected(mistaken):
        pytest.fail("it is not entered")
    assert state() == before


# ---- what Ray's end is called ----


@pytest.mark.parametrize(
    "error",
    [ray.exceptions.RayError("\nthe head is gone\nand more"), TuneError("the head is gone")],
    ids=["Ray", "Tune"],
)
def test_an_error_of_ray_says_that_the_same_command_goes_on(ray_elsewhere, tmp_path, error):
    with pytest.raises(RayStoppedError) as raised, connected():
        raise error
    assert str(raised.value) == (
        f"Ray stopped (the head is gone): the same command goes on from here. Ray's own log is in "
        f"{tmp_path}"
    )
    assert raised.value.__cause__ is error and "\n" not in str(raised.value)


def test_an_error_that_is_not_rays_passes(ray_elsewhere):
    with pytest.raises(ValueError, match="oh"), connected():
        raise ValueError("oh")


def test_rays_errors_are_named_even_where_ray_is_gone(monkeypatch, ray_elsewhere):
    """Its node is forgotten once it was shut down, as from another thread."""
    monkeypatch.setattr(connection.ray.worker.global_worker, "node", None)
    with pytest.raises(RayStoppedError, match="the same command goes on from here"), connected():
        raise ray.exceptions.RaySystemError("shut down")


def test_an_address_where_nobody_listens_is_named_at_once(monkeypatch):
    with socket.socket() as listening:  # bound, so that nobody else takes the port
        listening.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with (
            pytest.raises(RayStoppedError, match=f"no Ray answers at RAY_ADDRESS={address}"),
            connected(),
        ):
            pass


def test_a_ray_that_does_not_start_is_tried_again_and_then_named(monkeypatch):
    tried = []

    def init(**options):
        tried.append(options)
        raise Exception("The current node timed out during startup")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", init)
    with (
        pytest.raises(RayStoppedError, match="could not be started: The current node"),
        connected(),
    ):
        pass
    assert len(tried) == connection.MAX_STARTS
