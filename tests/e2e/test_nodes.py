"""Studies on several nodes: spread, lost, late, too small, and with a folder they do not share."""

import os
import signal
import subprocess
import sys
import time

import pytest
import ray
import torch
import yaml
from ray_nodes import ray_nodes

import rayprune as rp
from rayprune.config import load_study
from rayprune.results.files import epoch_file
from rayprune.results.stages import load_content
from rayprune.snapshot import decode
from rayprune.trials import make_trials

SAID_S = 30  # within which a driver says why it waits
STUDY_S = 240


@pytest.fixture
def nodes(tmp_path):
    (tmp_path / "nodes").mkdir()
    with ray_nodes(tmp_path / "nodes") as started:
        yield started


@pytest.fixture
def study(small, tmp_path):
    """Write a study; return its file."""

    def write(scaling, space=None, **experiment):
        file = tmp_path / "small_study.yaml"
        fields = {
            "experiment": {**small, **experiment},
            "search": {"space": space or {}},
            "scaling": scaling,
            "storage": str(tmp_path / "storage"),
        }
        file.write_text(yaml.safe_dump(fields))
        return file

    return write


class Driver:
    """`python -m rayprune.tune` as a process of its own; its output is a file."""

    def __init__(self, file, environment):
        self._output = file.with_suffix(".log")
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "rayprune.tune", str(file)],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
            )

    @property
    def output(self):
        """All that was printed, as one line: where lines break depends on the terminal."""
        return " ".join(self._output.read_text().split())

    def wait_until(self, condition, seconds=STUDY_S):
        deadline = time.monotonic() + seconds
        while not condition():
            running = self.process.poll() is None and time.monotonic() < deadline
            assert running or condition(), self.output
            time.sleep(0.05)

    def finish(self, *codes):
        self.process.wait(timeout=STUDY_S)
        assert self.process.returncode in codes, self.output
        assert "Traceback" not in self.output, self.output
        return self.output


@pytest.fixture
def start(nodes):
    """Run a study's file on the nodes; what still runs at the end is killed."""
    drivers = []

    def run(file):
        drivers.append(Driver(file, nodes.environment))
        return drivers[-1]

    yield run
    for driver in drivers:
        driver.process.kill()
        driver.process.wait()


def opened(file):
    return rp.open_results(f"{load_study(file).storage}/small_study")


def statuses(file):
    return [trial.status for trial in opened(file).trials]


@pytest.mark.slow
def test_a_request_that_no_node_can_hold_is_named_with_what_there_is(nodes, study, start):
    nodes.add(3)
    driver = start(study({"cpus_per_worker": 64, "slots": 1}))
    driver.wait_until(lambda: "the worker needs 64 CPUs" in driver.output, SAID_S)
    assert "1 node with 3 CPUs" in driver.output
    assert "scaling.cpus_per_worker=3" in driver.output
    driver.process.send_signal(signal.SIGINT)
    driver.finish(130)


@pytest.mark.slow
def test_a_slot_of_two_workers_spreads_over_two_nodes(nodes, study, start):
    nodes.add(1), nodes.add(1)
    file = study({"workers": 2})
    start(file).finish(0)
    assert statuses(file) == ["finished"]
    assert {row["workers"] for row in opened(file).table.to_pylist()} == {2}


@pytest.mark.slow
def test_a_node_lost_in_the_middle_of_a_stage_changes_no_bit(nodes, study, start, tmp_path):
    """Lost after an epoch checkpoint of the dense stage, which goes on on the other node."""
    both = [nodes.add(1), nodes.add(1)]
    schedules = {"retrain.schedule": {"grid": ["llr", "allr"]}}
    file = study({"slots": 1}, space=schedules, dense={"epochs": 60})
    driver = start(file)
    checkpoint = epoch_file(load_study(file).storage, make_trials(load_study(file))[0].plan[0].key)
    driver.wait_until(lambda: os.path.exists(checkpoint))
    (training,) = [node for node in both if node.processes("RayTrainWorker")]
    training.lose()
    driver.finish(0)
    assert statuses(file) == ["finished", "finished"]

    calm = str(tmp_path / "undisturbed")
    command = [sys.executable, "-m", "rayprune.tune", str(file), f"storage={calm}", "--local"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=STUDY_S)
    for trial in make_trials(load_study(file)):
        disturbed, undisturbed = (
            decode(load_content(storage, trial.plan[-1].key)).weights
            for storage in (load_study(file).storage, calm)
        )
        assert disturbed.keys() == undisturbed.keys()
        for name, weight in undisturbed.items():
            assert torch.equal(disturbed[name], weight), name


@pytest.mark.slow
def test_a_study_says_that_it_waits_and_takes_a_node_that_comes_late(nodes, study, start):
    file = study({"slots": 1})
    driver = start(file)
    driver.wait_until(lambda: "waiting for a node that can hold one" in driver.output, SAID_S)
    assert "the worker needs 1 CPU; the cluster has no node with CPUs" in driver.output
    nodes.add(1)
    driver.finish(0)
    assert statuses(file) == ["finished"]


@pytest.mark.slow
def test_two_nodes_hold_a_slot_each_where_a_third_would_fit_on_none(nodes, study, start):
    """Six CPUs are three times two, but a slot in two pieces is none."""
    both = [nodes.add(3), nodes.add(3)]
    lrs = {"optim.lr": {"grid": [0.05, 0.04, 0.03]}}  # three dense runs at a time, if they fitted
    driver = start(study({"cpus_per_worker": 2}, space=lrs, dense={"epochs": 10_000}))
    driver.wait_until(lambda: all(node.processes("RayTrainWorker") for node in both))
    assert [len(node.processes("RayTrainWorker")) for node in both] == [1, 1]
    assert "waiting for" not in driver.output
    driver.process.send_signal(signal.SIGINT)
    driver.finish(130)


@pytest.mark.slow
def test_slots_lie_on_nodes_with_the_labels_that_are_asked_for(nodes, study, start):
    elsewhere, here = nodes.add(2, labels="zone=a"), nodes.add(1, labels="zone=b")
    lrs = {"optim.lr": {"grid": [0.05, 0.04]}}
    scaling = {"labels": {"zone": "b"}}
    driver = start(study(scaling, space=lrs, dense={"epochs": 10_000}))
    driver.wait_until(lambda: here.processes("RayTrainWorker"))
    told = len(driver.output)
    driver.wait_until(lambda: len(driver.output) > told)  # some seconds, for a second slot
    assert here.processes("SlotsOfNode") and not elsewhere.processes("RayTrainWorker")
    driver.process.send_signal(signal.SIGINT)
    driver.finish(130)


CAN_MOUNT = subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not CAN_MOUNT, reason="a mount namespace needs root")
def test_a_folder_that_the_nodes_do_not_share_is_named_before_the_first_epoch(
    nodes, study, start, tmp_path
):
    """In its own mount namespace the node has an empty folder where the driver has the storage."""
    storage = tmp_path / "storage"
    storage.mkdir()
    nodes.add(1, inside=f"mount -t tmpfs none {storage}")
    output = start(study({"slots": 1})).finish(1, 2)
    assert str(storage) in output
    assert ray.util.get_node_ip_address() in output
    assert ", epoch " not in output
