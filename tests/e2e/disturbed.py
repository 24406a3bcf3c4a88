"""Studies whose processes a test kills, stops or misleads, and how they ought to end."""

import itertools
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager

import psutil
import torch
import yaml
from ray_nodes import MARK, command_line, end_processes, processes_with

import rayprune as rp
from rayprune.config import load_study
from rayprune.results.faults import VARIABLE
from rayprune.results.stages import load_content
from rayprune.snapshot import decode
from rayprune.trials import make_trials

STUDY_S = 600  # far above what it takes: for machines that are busy
NOT_RESULTS = ("seconds", "samples_per_second", "executed")  # columns that no two runs share
TWO_RANKS = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--")


def write_study(folder, experiment, space=None, scaling=None, name="small_study"):
    """Write a study whose results go below `folder`; return its file."""
    file = folder / f"{name}.yaml"
    fields = {
        "experiment": experiment,
        "search": {"space": space or {}},
        "scaling": scaling or {},
        "storage": str(folder / "storage"),
    }
    file.write_text(yaml.safe_dump(fields, sort_keys=False))
    return file


def once(folder, *faults):
    """Faults that happen once each, whichever process comes by first."""
    return [{**f, "mark": str(folder / f"fault-{n}")} for n, f in enumerate(faults)]


def happened(faults):
    """Whether all of them did."""
    return all(os.path.exists(fault["mark"]) for fault in faults)


class Driver:
    """`python -m rayprune.tune` as a process of its own; its output is a file."""

    _numbers = itertools.count()

    def __init__(
        self, file, *options, faults=(), launcher=("-m",), program="rayprune.tune", **environment
    ):
        number = next(self._numbers)
        self.mark = f"{file}-{number}"
        self._output = file.with_suffix(f".{number}.log")
        environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | environment
        environment |= {MARK: self.mark, VARIABLE: json.dumps(list(faults))}
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, *launcher, *filter(None, [program]), str(file), *options],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=file.parent,  # where a user's own modules are found
            )
        self.started = time.monotonic()

    @property
    def seconds(self):
        """Since it was started."""
        return time.monotonic() - self.started

    @property
    def output(self):
        """All that was printed, as one line: where lines break depends on the terminal."""
        return " ".join(self._output.read_text().split())

    def processes(self, name=""):
        """Of its Ray, those with `name` in their command line."""
        pids = processes_with(MARK, self.mark)
        return [pid for pid in pids if pid != self.process.pid and name in command_line(pid)]

    def wait_until(self, condition, seconds=STUDY_S):
        deadline = time.monotonic() + seconds
        while not condition():
            running = self.process.poll() is None and time.monotonic() < deadline
            assert running or condition(), self.output
            time.sleep(0.05)

    def finish(self, code=0):
        self.process.wait(timeout=STUDY_S)
        assert self.process.returncode == code, self.output
        assert "Traceback" not in self.output, self.output
        return self.output


@contextmanager
def drivers():
    """A function that starts drivers; what they leave running is killed at the end."""
    started = []

    def start(file, *options, **more):
        started.append(Driver(file, *options, **more))
        return started[-1]

    try:
        yield start
    finally:
        for driver in started:
            driver.process.kill()
            driver.process.wait()
            end_processes(MARK, driver.mark)


def wait_until_gone(driver, seconds=30):
    """Returns when nothing of a driver's Ray runs any more, stopped processes included."""
    deadline = time.monotonic() + seconds
    while left := driver.processes():
        assert time.monotonic() < deadline, [command_line(pid) for pid in left]
        time.sleep(0.1)


def stopped_processes(driver):
    """What a SIGSTOP holds."""
    found = []
    for pid in driver.processes():
        try:
            if psutil.Process(pid).status() == psutil.STATUS_STOPPED:
                found.append(pid)
        except psutil.Error:
            continue
    return found


def opened(file):
    study = load_study(file)
    return rp.open_results(f"{study.storage}/{study.name}")


def statuses(file):
    return [trial.status for trial in opened(file).trials]


def rows(file):
    """The table, without what differs from run to run."""
    found = opened(file).table.to_pylist()
    return [{k: v for k, v in row.items() if k not in NOT_RESULTS} for row in found]


def snapshots(file):
    """Key -> snapshot of every stage of the trials that have finished."""
    study = load_study(file)
    finished = [trial.name for trial in opened(file).trials if trial.status == "finished"]
    plans = [trial.plan for trial in make_trials(study) if trial.name in finished]
    keys = dict.fromkeys(stage.key for plan in plans for stage in plan)
    return {key: decode(load_content(study.storage, key)) for key in keys}


def assert_same(file, calm):
    """Statuses, every number of the table and every bit of every snapshot are the calm run's."""
    assert statuses(file) == statuses(calm)
    assert rows(file) == rows(calm)
    disturbed, undisturbed = snapshots(file), snapshots(calm)
    assert disturbed.keys() == undisturbed.keys()
    for key, snapshot in undisturbed.items():
        for kind in ("weights", "masks"):
            ours, theirs = getattr(disturbed[key], kind), getattr(snapshot, kind)
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[name], theirs[name]) for name in theirs), (key, kind)
