"""What a study takes of a head's memory: by itself, for each slot, and for each of Tune's trials.

pytest -m slow -s tests/benchmarks/test_head_memory.py
"""

import signal
import sys
from pathlib import Path

import psutil
import pytest
import yaml

sys.path.append(str(Path(__file__).parent.parent / "e2e"))
from disturbed import Driver
from ray_nodes import MARK, processes_with, ray_nodes

pytestmark = pytest.mark.slow


def megabytes(pids):
    """Proportional set size: what processes share counts once."""
    return sum(psutil.Process(pid).memory_full_info().pss for pid in pids) / 1e6


@pytest.fixture
def nodes(tmp_path):
    (tmp_path / "nodes").mkdir()
    with ray_nodes(tmp_path / "nodes") as started:
        started.add(2)
        yield started


def on_head(nodes, file, num_slots, num_trials):
    """MB of the head's processes and the driver, while so many slots and trials are at work."""
    driver = Driver(file, f"scaling.slots={num_slots}", **nodes.environment)
    try:
        driver.wait_until(lambda: len(nodes.workers[0].processes("RayTrainWorker")) == num_slots)
        head = lambda: processes_with(MARK, nodes.head.mark)  # noqa: E731
        driver.wait_until(lambda: "epochs: 0 of" not in driver.output.split("] ")[-1])
        driver.wait_until(lambda: len(nodes.head.processes("ImplicitFunc")) == num_trials)
        assert not nodes.head.processes("SlotsOfNode")
        return megabytes([*head(), driver.process.pid])
    finally:
        driver.process.send_signal(signal.SIGINT)
        driver.process.wait(60)


def study(folder, small, number, **search):
    file = folder / f"study_{number}.yaml"
    fields = {
        "experiment": {**small, "dense": {"epochs": 10_000}},
        "search": {"space": {"optim.lr": {"grid": [n / 100 for n in range(1, 9)]}}, **search},
        "storage": str(folder / "storage"),
    }
    file.write_text(yaml.safe_dump(fields))
    return file


def test_what_slots_and_trials_take_of_the_head(nodes, small, tmp_path):
    idle = megabytes(processes_with(MARK, nodes.head.mark))
    one = on_head(nodes, study(tmp_path, small, 1), 1, 2)
    two = on_head(nodes, study(tmp_path, small, 2), 2, 2)
    many = {"scheduler": "asha", "max_concurrent": 6}
    trials = on_head(nodes, study(tmp_path, small, 3, **many), 2, 6)
    print(
        f"\nhead without a study {idle:.0f} MB; with one of 1 slot and 2 trial processes "
        f"{one:.0f} MB, of 2 slots {two:.0f} MB ({two - one:+.0f} a slot), of 2 slots and 6 trial "
        f"processes {trials:.0f} MB ({(trials - two) / 4:+.0f} a trial process)"
    )
