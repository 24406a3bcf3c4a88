"""Slots follow the work, and nodes the slots: an autoscaler brings and ends them during a study."""

import time

import pytest
import yaml
from disturbed import Driver, opened
from ray._raylet import GcsClient
from ray.core.generated.gcs_pb2 import GcsNodeInfo
from ray.util import get_node_ip_address
from ray_nodes import Nodes, ray_nodes

IDLE_MINUTES = 0.1
COMMANDS = (  # what Ray's launcher would fill in
    *("cluster_synced_files", "initialization_commands", "setup_commands"),
    *("head_setup_commands", "worker_setup_commands"),
    *("head_start_ray_commands", "worker_start_ray_commands"),
)
ALIVE = GcsNodeInfo.GcsNodeState.ALIVE
LATE_S = 120  # within which the autoscaler ends what is idle: for machines that are busy


class Autoscaled(Nodes):
    """A head without CPUs, whose autoscaler starts up to two nodes of one CPU each."""

    def _head_options(self, port: int) -> list[str]:
        address = f"{get_node_ip_address()}:{port}"
        worker = {"CPU": 1, "object_store_memory": 100_000_000}
        config = {
            "cluster_name": "fake",
            "max_workers": 2,
            **{field: {} for field in ("auth", "file_mounts", "docker")},
            **{field: [] for field in COMMANDS},
            "file_mounts_sync_continuously": False,
            "upscaling_speed": 1.0,
            "idle_timeout_minutes": IDLE_MINUTES,
            "provider": {
                "type": "external",
                "module": "ray.autoscaler._private.fake_multi_node.node_provider."
                "FakeMultiNodeProvider",
                "gcs_address": address,
                "use_node_id_as_ip": True,
                "disable_node_updaters": True,
                "disable_launch_config_check": True,
            },
            "available_node_types": {
                "ray.head.default": {"resources": {}, "max_workers": 0, "node_config": {}},
                "worker": {
                    "resources": worker,
                    "min_workers": 0,
                    "max_workers": 2,
                    "node_config": {},
                },
            },
            "head_node_type": "ray.head.default",
        }
        file = self._folder / "autoscaling.yaml"
        file.write_text(yaml.safe_dump(config))
        return [f"--autoscaling-config={file}"]

    def _head_environment(self) -> dict[str, str]:
        from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

        return {"RAY_FAKE_CLUSTER": "1", "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID}


@pytest.fixture
def cluster(tmp_path):
    (tmp_path / "nodes").mkdir()
    with ray_nodes(tmp_path / "nodes", Autoscaled) as started:
        yield started


@pytest.fixture
def num_nodes(cluster):
    """How many nodes with CPUs there are now, as Ray's own directory says."""
    directory = GcsClient(address=cluster.address)

    def count():
        nodes = directory.get_all_node_info().values()
        return sum(node.state == ALIVE and "CPU" in node.resources_total for node in nodes)

    return count


@pytest.mark.slow
def test_nodes_come_and_go_with_the_work(cluster, num_nodes, small, tmp_path):
    """From none to two for two dense runs, to one while a long chain runs alone, and to none."""
    file = tmp_path / "small_study.yaml"
    short, long = {"optim.lr": 0.05}, {"optim.lr": 0.04, "dense.epochs": 400}
    fields = {
        "experiment": {**small, "dense": {"epochs": 3}},
        "search": {"space": {"way": {"cases": {"short": short, "long": long}}}},
        "scaling": {"idle_timeout_s": 2},
        "storage": str(tmp_path / "storage"),
    }
    file.write_text(yaml.safe_dump(fields))
    assert num_nodes() == 0
    driver = Driver(file, **cluster.environment)
    counts = []

    def see(number):
        counts.append(num_nodes())
        return counts[-1] == number

    try:
        driver.wait_until(lambda: see(2))
        driver.wait_until(lambda: see(1), LATE_S)
        driver.finish(0)
    finally:
        driver.process.kill()
        driver.process.wait()
    assert [trial.status for trial in opened(file).trials] == ["finished"] * 2
    deadline = time.monotonic() + LATE_S
    while not see(0):
        assert time.monotonic() < deadline, counts[-1]
        time.sleep(0.5)
    changes = [n for n, before in zip(counts, [0, *counts], strict=False) if n != before]
    assert max(counts) == 2 and changes[-1] == 0, changes
