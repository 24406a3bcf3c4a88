"""Small studies among accidents: whatever is killed, nothing of a study may change.

    python tests/e2e/chaos.py --runs 20 --seed 1      random processes are killed; about 25 minutes
    python tests/e2e/chaos.py --runs 50 --quiet       nothing is killed, but the machine is busy
    python tests/e2e/chaos.py --runs 4 --interrupt    Ctrl-C and SIGTERM, then the same command

All that is random comes from the seed and the number of the run, and is printed: `--first 7 --runs
1` repeats the seventh run. What went wrong stays in the folder that is named; the rest is deleted.
"""

from __future__ import annotations

import argparse
import atexit
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import yaml
from ray_nodes import Nodes, command_line, end_processes, processes_with, ray_nodes

import rayprune as rp
import rayprune.data
from rayprune.config import load_study
from rayprune.results.stages import load_content, read_manifest
from rayprune.snapshot import decode
from rayprune.trials import make_trials

LIMIT_S = 600.0  # within which a study has ended; far above what it takes: machines are busy
LEFT_S = 90.0  # within which an ended study leaves no process: Ray's agents may take a minute
LONG_S = 5.0  # after which what still runs is worth a line
STOP_S = 10.0  # within which an interrupted command has ended
INTERRUPTS = 5  # of one study
NODES_EVERY = 5  # each fifth run is on several nodes
VARY = ("seconds", "samples_per_second")  # what no two runs have in common
DIVERSE = ("executed", *VARY)  # which trial ran a stage depends on who was first

# What is killed -> how the command lines of its processes begin.
VICTIMS = {
    "worker": "ray::RayTrainWorker",
    "meeting": "ray::SynchronizationActor",
    "trial": "ray::ImplicitFunc",
    "ledger": "ray::LedgerActor",
    "slot": "ray::SlotsOfNode",
    "driver": f"{sys.executable} -m rayprune.tune",
}
NODE = "node"


class ChaosError(AssertionError):
    """A run that is not right."""


@dataclass(frozen=True)
class Kill:
    """A random process of this kind dies, so long after one is there and the kill before."""

    victim: str
    after_s: float

    def __str__(self) -> str:
        return f"{self.victim} after {self.after_s:.1f} s"


@dataclass(frozen=True)
class Plan:
    """What happens in a run."""

    number: int
    workers: int
    on_nodes: bool
    kills: Sequence[Kill]

    def __str__(self) -> str:
        where = "several nodes" if self.on_nodes else "this machine"
        slots = 1 if self.workers == 2 else 2
        kills = ", ".join(map(str, self.kills)) or "none"
        return f"run {self.number}: {slots} slots of {self.workers} on {where}; kills: {kills}"


def make_plan(seed: int, number: int) -> Plan:
    """The plan of a run, always the same for a seed and a number."""
    draw = random.Random(f"{seed} {number}")
    on_nodes = number % NODES_EVERY == 0
    victims = [draw.choice(list(VICTIMS)) for _ in range(draw.randint(1, 4))]
    if on_nodes:
        victims[draw.randrange(len(victims))] = NODE
    kills = [Kill(victim, draw.uniform(0, 12)) for victim in victims]
    return Plan(number, 1 + number % 2, on_nodes, kills)


class Place:
    """A folder with a study, and how to start it; all its processes have the folder as HOME."""

    def __init__(self, folder: Path, workers: int, nodes: Nodes | None = None) -> None:
        self.folder, self.file, self.nodes = folder, folder / "chaos.yaml", nodes
        self.ray_folder = Path(tempfile.mkdtemp(prefix="ray"))  # sockets' paths are to be short
        self.file.write_text(yaml.safe_dump(study(folder, workers)))
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY")}
        own = {"HOME": str(folder), "RAY_TMPDIR": str(self.ray_folder), "OMP_NUM_THREADS": "1"}
        self._environment = environment | own if nodes is None else nodes.environment
        # The package that is tested is the one that this script imports, in all processes.
        self._environment |= {"PYTHONPATH": str(Path(rp.__file__).parents[1])}

    @property
    def outputs(self) -> Sequence[str]:
        """What each start of the command has printed."""
        files = sorted(self.folder.glob("output-*.txt"))
        return [file.read_text() for file in files]

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        number = len(self.outputs)
        with (self.folder / f"output-{number}.txt").open("w") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "rayprune.tune", str(self.file), *words],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
            )

    def processes(self, victim: str) -> Sequence[int]:
        """The processes of this kind, in order of their ids."""
        pids = sorted(processes_with("HOME", str(self.folder)))
        return [pid for pid in pids if command_line(pid).startswith(VICTIMS[victim])]

    def left(self) -> Sequence[str]:
        """Command lines of the study's processes; of a cluster, those that a study starts."""
        pids = [pid for pid in processes_with("HOME", str(self.folder)) if is_alive(pid)]
        lines = [command_line(pid) for pid in pids]
        begins = "" if self.nodes is None else tuple(VICTIMS.values())
        return [line for line in lines if line.startswith(begins)]


@contextmanager
def place(workers: int, *, on_nodes: bool = False) -> Iterator[Place]:
    """A folder for one run, which stays where the run was not right, and Ray's logs with it."""
    folder = Path(tempfile.mkdtemp(prefix="chaos"))
    with ExitStack() as stack:
        nodes = stack.enter_context(ray_nodes(folder)) if on_nodes else None
        made = Place(folder, workers, nodes)
        try:
            yield made
        except BaseException:
            shutil.copytree(
                nodes.ray_folder if nodes else made.ray_folder,
                folder / "ray",
                symlinks=True,
                ignore=lambda where, names: [n for n in names if n == "sockets"],
                dirs_exist_ok=True,
            )
            print(f"  kept: {folder}", flush=True)
            raise
        finally:
            end_processes("HOME", str(folder))
            shutil.rmtree(made.ray_folder, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def study(folder: Path, workers: int) -> Mapping[str, Any]:
    """Eight trials that share a dense run of ten epochs; some ten seconds of training."""
    experiment = {
        "model": {"name": "lenet_300_100"},
        "data": {"parquet": few_images()},
        "batch_size": 10,
        "optim": {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4},
        "dense": {"epochs": 10},
        "retrain": {"epochs": 5, "schedule": "allr"},
    }
    space = {
        "retrain.schedule": {"grid": ["llr", "allr"]},
        "retrain.epochs": {"grid": [4, 8]},
        "prune.sparsity": {"grid": [0.8, 0.95]},
    }
    return {
        "name": "chaos",
        "experiment": experiment,
        "search": {"space": space},
        "scaling": {"workers": workers, "slots": 1 if workers == 2 else 2},
        "storage": str(folder / "storage"),
    }


@cache
def few_images() -> Mapping[str, str]:
    """Parquet files of 600 and 200 of the embedded images; the same for all runs, as keys are."""
    folder = Path(tempfile.mkdtemp(prefix="chaos-images"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    embedded = Path(rayprune.data.__file__).parent / "fashion_mini"
    files = {}
    for name, number in (("train", 600), ("test", 200)):
        files[name] = str(folder / f"{name}.parquet")
        pq.write_table(pq.read_table(embedded / f"{name}.parquet")[:number], files[name])
    return files


# ---- runs ----


def disturbed(plan: Plan) -> float:
    """Carry out a plan; return how long it took. Raises ``ChaosError``."""
    with place(plan.workers, on_nodes=plan.on_nodes) as there:
        if there.nodes is not None:
            there.nodes.add(1), there.nodes.add(1)
        began = time.monotonic()
        driver = there.start()
        for kill in plan.kills:
            driver = carry_out(kill, there, driver, plan, began)
        wait(driver, there, began)
        took = time.monotonic() - began
        check(there, driver.returncode)
        expect_same(contents(there), undisturbed(plan.workers), there)
        return took


def carry_out(
    kill: Kill, there: Place, driver: subprocess.Popen[bytes], plan: Plan, began: float
) -> subprocess.Popen[bytes]:
    """Kill one process, or none if the study ends before; return the driver that runs then."""
    draw = random.Random(f"{kill} {plan}")
    due: float | None = None
    while driver.poll() is None:
        expect(time.monotonic() - began < LIMIT_S, "not done within the limit", there)
        victims = nodes_with_cpus(there) if kill.victim == NODE else there.processes(kill.victim)
        if victims and due is None:
            due = time.monotonic() + kill.after_s
        if victims and due is not None and time.monotonic() >= due:
            pid = draw.choice(victims)
            print(f"  {time.monotonic() - began:5.1f} s: killed {kill.victim} {pid}", flush=True)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            if kill.victim == NODE and there.nodes is not None:
                there.nodes.add(1)
            if kill.victim != "driver":
                return driver
            driver.wait()
            return there.start()  # what the dead one has left ends by itself
        time.sleep(0.1)
    print(f"  too late to kill: {kill.victim}", flush=True)
    return driver


def nodes_with_cpus(there: Place) -> Sequence[int]:
    """The raylets of the nodes that workers run on."""
    assert there.nodes is not None
    return [pid for node in there.nodes.workers for pid in node.processes("raylet/raylet")]


def wait(driver: subprocess.Popen[bytes], there: Place, began: float) -> None:
    try:
        driver.wait(timeout=max(0.0, LIMIT_S - (time.monotonic() - began)))
    except subprocess.TimeoutExpired:
        raise ChaosError(f"not done within {LIMIT_S:.0f} s:\n{there.outputs[-1]}") from None


def check(there: Place, code: int) -> None:
    """The study has ended well, says so last, and has left no process. Raises ``ChaosError``."""
    expect(code == 0, f"exit code {code}", there)
    for output in there.outputs:
        for bad in ("Traceback", "(raylet)"):
            expect(bad not in output, f"people see {bad}", there)
    results = rp.open_results(there.folder / "storage" / "chaos")
    statuses = {trial.name: trial.status for trial in results.trials}
    expect(len(statuses) == 8 and set(statuses.values()) == {"finished"}, f"{statuses}", there)
    last = [line.split()[0] for line in there.outputs[-1].splitlines()[-4:]]
    files = ["report", "table", "best", "dense"]
    expect(last == files, "the summary is not what is printed last", there)
    wait_for_nobody(there)


def wait_for_nobody(there: Place) -> None:
    began, lasted = time.monotonic(), 0.0
    while left := [line.split()[0] for line in there.left() if line]:
        lasted = time.monotonic() - began
        expect(lasted < LEFT_S, f"left: {left}", there)
        time.sleep(0.2)
        last = left
    if lasted > LONG_S:
        print(f"  {lasted:.0f} s after the end there still was {last}", flush=True)


def expect(condition: bool, complaint: str, there: Place) -> None:
    if not condition:
        said = "\n----\n".join(there.outputs)
        raise ChaosError(f"{complaint}; people saw:\n{said}")


def expect_same(found: Mapping[str, Any], calm: Mapping[str, Any], there: Place) -> None:
    different = [what for what in {**found, **calm} if found.get(what) != calm.get(what)]
    expect(not different, f"not as undisturbed: {different}", there)


def contents(there: Place) -> Mapping[str, Any]:
    """All that a study has come to, but for times: snapshots, records, histories and the table."""
    loaded = load_study(there.file)
    found: dict[str, Any] = {}
    for key in {stage.key for trial in make_trials(loaded) for stage in trial.plan}:
        manifest = read_manifest(str(loaded.storage), key)
        expect(manifest is not None, f"stage {key} has no manifest", there)
        snapshot = decode(load_content(str(loaded.storage), key))  # looks at its hash
        records = [*snapshot.records, *manifest.records]
        found |= {
            f"{key} weights": {n: w.numpy().tobytes() for n, w in snapshot.weights.items()},
            f"{key} masks": {n: m.numpy().tobytes() for n, m in snapshot.masks.items()},
            f"{key} records": [replace(record, **dict.fromkeys(VARY, 0)) for record in records],
            f"{key} history": manifest.history,
        }
    rows = rp.open_results(there.folder / "storage" / "chaos").table.drop_columns(DIVERSE)
    return {**found, "table": rows.to_pylist()}


@cache
def undisturbed(workers: int) -> Mapping[str, Any]:
    """What a study comes to where nothing is killed."""
    with place(workers) as there:
        driver = there.start()
        wait(driver, there, time.monotonic())
        check(there, driver.returncode)
        return contents(there)


def quiet(plan: Plan) -> float:
    """A run in which nothing is killed, beside two busy processes; return how long it took.

    Raises ``ChaosError``.
    """
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        with place(plan.workers) as there:
            began = time.monotonic()
            driver = there.start()
            wait(driver, there, began)
            took = time.monotonic() - began
            check(there, driver.returncode)
            return took
    finally:
        for process in busy:
            process.kill()
            process.wait()


def interrupted(plan: Plan) -> float:
    """A study that is interrupted again and again; return the longest time that an end took.

    Raises ``ChaosError``.
    """
    draw, took = random.Random(f"interrupt {plan}"), [0.0]
    with place(plan.workers) as there:
        for interrupt in range(INTERRUPTS):
            number = draw.choice((signal.SIGINT, signal.SIGTERM))
            at_report, is_early = interrupt == INTERRUPTS - 1, draw.random() < 0.5
            moment = draw.uniform(0, 2) if at_report else draw.uniform(0, 10 if is_early else 60)
            driver = there.start()
            wait_for_moment(there, driver, moment, at_report)
            driver.send_signal(number)
            sent = time.monotonic()
            with suppress(subprocess.TimeoutExpired):
                driver.wait(timeout=LEFT_S)
            took.append(time.monotonic() - sent)
            last = (there.outputs[-1].splitlines() or [""])[-1]
            when = f"{number.name} {moment:.1f} s after the {'end' if at_report else 'start'}"
            print(f"  {when}: {driver.returncode} {took[-1]:.1f} s later, {last!r}", flush=True)
            expect(driver.returncode in (0, 128 + number), f"code {driver.returncode}", there)
            if driver.returncode:
                expect(last.startswith("interrupted; to go on"), "no word on how to go on", there)
                expect(took[-1] < STOP_S, f"it took {took[-1]:.0f} s to end", there)
                wait_for_nobody(there)
        driver = there.start()
        wait(driver, there, time.monotonic())
        check(there, driver.returncode)
        expect_same(contents(there), undisturbed(plan.workers), there)
    return max(took)


def wait_for_moment(
    there: Place, driver: subprocess.Popen[bytes], moment: float, at_report: bool
) -> None:
    """Returns so long after the start, or after the best model was written, or at the end.

    A process starts once it catches signals: before, Python imports what says what to do then.
    """
    best = there.folder / "storage" / "chaos" / "best" / "provenance.json"
    began: float | None = None
    while driver.poll() is None and (began is None or time.monotonic() - began < moment):
        if (
            began is None
            and catches(driver.pid, signal.SIGTERM)
            and (best.exists() or not at_report)
        ):
            began = time.monotonic()
        time.sleep(0.02)


def catches(pid: int, number: signal.Signals) -> bool:
    with suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        (caught,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")]
        return bool(int(caught, 16) >> number - 1 & 1)
    return False


# ---- the command ----


def is_alive(pid: int) -> bool:
    with suppress(psutil.Error):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def main() -> int:
    """Return 0 if every run was right, else 1."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--first", type=int, default=1, help="the number of the first run")
    parser.add_argument("--seed", type=int, default=random.randrange(1000))
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--quiet", action="store_true", help="kill nothing, on a busy machine")
    ways.add_argument("--interrupt", action="store_true", help="Ctrl-C and SIGTERM")
    options = parser.parse_args()
    way = quiet if options.quiet else interrupted if options.interrupt else disturbed
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what a run has started ends with it
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
    right = 0
    print(f"seed {options.seed}", flush=True)
    for number in range(options.first, options.first + options.runs):
        plan = make_plan(options.seed, number)
        if way is not disturbed:
            plan = replace(plan, kills=(), on_nodes=False)
        print(plan, flush=True)
        try:
            print(f"  right, {way(plan):.1f} s", flush=True)
            right += 1
        except ChaosError as error:
            print(f"  WRONG: {error}", flush=True)
    print(f"{right} of {options.runs} right (seed {options.seed})")
    return 0 if right == options.runs else 1


if __name__ == "__main__":
    sys.exit(main())
