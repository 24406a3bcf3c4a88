"""One holds a lease at a time; who is gone for good does not hold it for long."""

import json
import logging
import multiprocessing
import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from rayprune.results import faults, lease, storage
from rayprune.results.files import stage_lease_file, study_lease_file
from rayprune.results.lease import (
    LEASE_S,
    LeaseHeldError,
    held,
    read_lease,
    release,
    renew,
    take,
)
from rayprune.results.storage import write_bytes

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def file(tmp_path):
    return study_lease_file(str(tmp_path / "study"))


@pytest.fixture
def quick(monkeypatch):
    """Leases are renewed a hundred times a second."""
    monkeypatch.setattr(lease, "RENEW_EVERY_S", 0.01)
    monkeypatch.setattr(storage, "WAITS_S", ())


def write_lease(file, holder):
    write_bytes(file, json.dumps(asdict(holder)).encode())


def wait_for(is_so):
    end = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_files_lie_beside_what_they_guard():
    assert study_lease_file("s3://b/study") == "s3://b/study/running.json"
    assert stage_lease_file("s3://b", "k") == "s3://b/stages/k/running.json"


def test_a_lease_is_held_until_it_is_released(file):
    mine = take(file, "study", now=1000.0)
    assert read_lease(file) == mine and mine.pid == os.getpid() and mine.owner == "study"
    with pytest.raises(LeaseHeldError) as caught:
        take(file, "study", now=1001.0)
    assert caught.value.holder == mine and isinstance(caught.value, ValueError)
    assert f"study is in use by process {mine.pid} on {mine.host}, last" in str(caught.value)
    assert file in str(caught.value)
    release(file, mine)
    assert read_lease(file) is None
    assert take(file, "study", now=1002.0).token != mine.token


def test_a_lease_that_is_renewed_lasts_and_one_that_is_not_runs_out(file):
    mine = take(file, "study", now=1000.0)
    assert renew(file, mine, now=1050.0)
    assert read_lease(file) == replace(mine, renewed=1050.0)
    with pytest.raises(LeaseHeldError):
        take(file, "other", now=1050.0 + LEASE_S - 1)
    other = take(file, "other", now=1050.0 + LEASE_S)
    assert not renew(file, mine, now=1120.0)
    release(file, mine)
    assert read_lease(file) == other, "what is another's by now is left alone"


def test_another_host_holds_it_until_it_runs_out(file):
    """Whatever its process id means here."""
    mine = take(file, "study", now=1000.0)
    elsewhere = replace(mine, host="elsewhere", machine="another boot", pid=2**22 + 1, started="1")
    write_lease(file, elsewhere)
    with pytest.raises(LeaseHeldError, match="on elsewhere"):
        take(file, "study", now=1000.0 + LEASE_S - 1)
    assert take(file, "study", now=1000.0 + LEASE_S)


@pytest.mark.parametrize("is_waited_for", [True, False])
def test_a_dead_process_of_this_host_holds_nothing(is_waited_for, file):
    """A killed one whose parent has not asked for it yet is dead, too."""
    code = f"import os; from rayprune.results.lease import take; take({file!r}, 's'); os._exit(0)"
    process = subprocess.Popen([sys.executable, "-c", code])
    if is_waited_for:
        process.wait()
    else:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert read_lease(file).pid == process.pid
    assert take(file, "other").pid == os.getpid()
    process.wait()


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="Linux counts process starts")
def test_another_process_of_the_same_number_holds_nothing(file):
    mine = take(file, "study")
    write_lease(file, replace(mine, started=str(int(mine.started) - 1)))
    assert take(file, "other")


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="Linux tells containers apart")
def test_a_process_of_another_container_is_not_called_dead(file):
    """It has the same host name, and its number is nobody's here."""
    mine = take(file, "study", now=1000.0)
    write_lease(file, replace(mine, machine=f"{mine.machine}, another", pid=2**22 + 1))
    with pytest.raises(LeaseHeldError):
        take(file, "other", now=1001.0)


def test_the_same_owner_may_take_over_where_that_is_said(file):
    mine = take(file, "study", now=1000.0)
    with pytest.raises(LeaseHeldError):
        take(file, "other", same_owner=True, now=1001.0)
    theirs = take(file, "study", same_owner=True, now=1001.0)
    assert not renew(file, mine, now=1002.0) and renew(file, theirs, now=1002.0)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"owner": 1}', b"\xff"])
def test_a_damaged_lease_is_nobodys(content, file, caplog):
    mine = take(file, "study")
    write_bytes(file, content)
    with caplog.at_level(logging.WARNING):
        assert read_lease(file) is None
    assert file in caplog.text
    assert renew(file, mine) and read_lease(file).token == mine.token, "nobody has taken it"
    write_bytes(file, content)
    assert take(file, "other")


def take_when_told(file, barrier, wins):
    barrier.wait()
    with suppress(LeaseHeldError):
        take(file, f"taker {os.getpid()}", now=2000.0)
        wins.put(os.getpid())
    barrier.wait()  # alive until all have tried


@pytest.mark.parametrize("before", ["nothing", "run out", "damaged"])
def test_of_twenty_takers_on_a_local_disk_one_wins(before, file):
    if before == "run out":
        take(file, "study", now=1000.0)
    if before == "damaged":
        write_bytes(file, b"{")
    barrier, wins = FORK.Barrier(20), FORK.Queue()
    takers = [FORK.Process(target=take_when_told, args=(file, barrier, wins)) for _ in range(20)]
    for taker in takers:
        taker.start()
    winner = wins.get(timeout=60)
    for taker in takers:
        taker.join()
    assert wins.empty() and [taker.exitcode for taker in takers] == [0] * 20
    assert read_lease(file).pid == winner


def on_an_object_store(monkeypatch):
    monkeypatch.setattr(lease, "local_path", lambda uri: None)


def test_on_an_object_store_the_last_of_two_writers_wins(file, monkeypatch):
    on_an_object_store(monkeypatch)
    theirs = []

    def other_writes(seconds):
        monkeypatch.setattr(lease.time, "sleep", lambda seconds: None)
        os.remove(file)  # it looked before we wrote
        theirs.append(take(file, "other", now=1000.0))

    monkeypatch.setattr(lease.time, "sleep", other_writes)
    with pytest.raises(LeaseHeldError, match="other is in use"):
        take(file, "study", now=1000.0)
    assert read_lease(file) == theirs[0]


def test_whoever_holds_one_renews_it_and_gives_it_back(file, quick):
    with held(file, "study") as mine:
        wait_for(lambda: read_lease(file).renewed > mine.renewed)
        with pytest.raises(LeaseHeldError), held(file, "other"):
            pass
        assert read_lease(file).token == mine.token
    assert read_lease(file) is None
    with pytest.raises(ZeroDivisionError), held(file, "study"):
        raise ZeroDivisionError
    assert read_lease(file) is None


def test_who_has_lost_a_lease_is_told_once_and_leaves_it_alone(file, quick, caplog):
    with held(file, "study"):
        theirs = take(file, "study", same_owner=True)
        wait_for(lambda: caplog.records)
        time.sleep(0.05)
    assert read_lease(file) == theirs
    assert [r.getMessage() for r in caplog.records] == [f"{file} was taken by another process"]


def test_a_trouble_while_renewing_is_told_once_and_passes(file, quick, caplog, monkeypatch):
    with held(file, "study") as mine:
        trouble = [{"at": "storage.write", "do": "unavailable", "last": 5}]
        monkeypatch.setattr(faults, "_times", type(faults._times)())
        monkeypatch.setenv(faults.VARIABLE, json.dumps(trouble))
        wait_for(lambda: faults._times["storage.write", None] > 7)
        assert read_lease(file).token == mine.token
    told = [r.getMessage() for r in caplog.records]
    assert len(told) == 1 and told[0].startswith("a lease was not renewed") and file in told[0]
    assert read_lease(file) is None


def test_a_process_that_ends_while_it_holds_one_does_end(file):
    code = f"from rayprune.results.lease import held; h = held({file!r}, 's'); h.__enter__()"
    done = subprocess.run([sys.executable, "-c", code], timeout=60)
    assert done.returncode == 0
    assert take(file, "other")


def test_a_folder_that_cannot_be_written_is_an_error_of_the_storage(tmp_path):
    Path(tmp_path / "study").touch()
    with pytest.raises(storage.StorageError, match="cannot lock"):
        take(study_lease_file(str(tmp_path / "study")), "study")
