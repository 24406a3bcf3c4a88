"""Several Ray nodes on this machine: started, lost and ended, each by its own processes."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

BIN = Path(sys.executable).parent
STARTS, START_S = 3, 60  # far above what it takes: for machines that are busy
MARK = "RAYPRUNE_TEST_NODE"  # in the environment of all that a node starts
# A lost node is noticed within three seconds; by default it takes half a minute.
QUICK_CHECKS = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "5",
}


@dataclass(frozen=True)
class Node:
    """A node that runs, or ran."""

    mark: str
    log: Path
    process: subprocess.Popen

    def processes(self, name: str) -> list[int]:
        """Its processes with `name` in their command line."""
        pids = processes_with(MARK, self.mark)
        return [pid for pid in pids if name in command_line(pid)]

    def lose(self) -> None:
        """All its processes at once, as when the power goes."""
        end_processes(MARK, self.mark)
        self.process.wait()


class Nodes:
    """A head without CPUs, and the nodes that are added to it."""

    def __init__(self, folder: Path, ray_folder: Path) -> None:
        self._folder, self.ray_folder = folder, ray_folder
        self._nodes: list[Node] = []
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY")}
        self._environment |= QUICK_CHECKS | {"HOME": str(folder), "OMP_NUM_THREADS": "1"}
        self._environment |= {"RAY_worker_niceness": "0"}  # or they starve beside other processes
        self._environment |= {"RAY_AUTH_MODE": "disabled"}  # no token of this machine is used
        port, client = free_ports(2)
        self.address = f"127.0.0.1:{port}"
        head = ["--head", "--include-dashboard=false", f"--temp-dir={ray_folder}"]
        head += [f"--port={port}", f"--ray-client-server-port={client}", "--num-cpus=0"]
        self.head = self._start([*head, *self._head_options(port)], **self._head_environment())

    @property
    def workers(self) -> list[Node]:
        """All nodes but the head, the lost ones too."""
        return self._nodes[1:]

    @property
    def environment(self) -> dict[str, str]:
        """For a driver that joins."""
        return self._environment | {"RAY_ADDRESS": self.address}

    def add(self, cpus: int, *, inside: str = "", labels: str = "") -> Node:
        """Start a node and wait until it has joined.

        `inside` is a shell command that its process runs first, in a mount namespace of its own.
        """
        options = [f"--address={self.address}", f"--num-cpus={cpus}"]
        return self._start([*options, *([f"--labels={labels}"] if labels else [])], inside)

    def end(self) -> None:
        for node in self._nodes:
            node.lose()

    def _head_options(self, port: int) -> list[str]:
        return []

    def _head_environment(self) -> dict[str, str]:
        return {}

    def _start(self, options: list[str], inside: str = "", **environment: str) -> Node:
        for _ in range(STARTS):
            node = self._try_to_start(options, inside, environment)
            if node is not None:
                return node
        log = self._folder / f"node-{len(self._nodes)}.log"
        raise AssertionError(f"the node did not start:\n{log.read_text()}")

    def _try_to_start(
        self, options: list[str], inside: str, environment: dict[str, str]
    ) -> Node | None:
        """None where Ray gave up: it gives its processes 30 s, and a busy machine needs more."""
        mark = f"{self._folder}/node-{len(self._nodes)}"
        command = [
            *(str(BIN / "ray"), "start", *options, "--block", "--disable-usage-stats"),
            *("--num-gpus=0", "--object-store-memory=100000000"),
            *("--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"),
        ]
        if inside:
            command = ["unshare", "--mount", "sh", "-ec", f'{inside}; exec "$@"', "sh", *command]
        environment = self._environment | environment | {MARK: mark}
        log = Path(f"{mark}.log")
        with log.open("w") as file:
            process = subprocess.Popen(
                command, env=environment, stdout=file, stderr=subprocess.STDOUT
            )
        node = Node(mark, log, process)
        self._nodes.append(node)
        deadline = time.monotonic() + START_S
        while "Ray runtime started" not in log.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                node.lose()
                self._nodes.remove(node)
                return None
            time.sleep(0.1)
        return node


@contextmanager
def ray_nodes(folder: Path, kind: type[Nodes] = Nodes):
    """A cluster whose logs are in `folder`; ends with the context."""
    # Ray's sockets lie below it, and a socket's path holds about a hundred characters.
    ray_folder = Path(tempfile.mkdtemp(prefix="ray"))
    nodes = None
    try:
        nodes = kind(folder, ray_folder)
        yield nodes
    finally:
        if nodes is not None:
            nodes.end()
        shutil.rmtree(ray_folder, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def processes_with(variable: str, value: str) -> list[int]:
    """Processes that were started with this environment variable."""
    mark, found = f"{variable}={value}\0".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile, or is not ours
            if mark in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


def end_processes(variable: str, value: str) -> None:
    """End what was started with this environment variable, and all that it has started.

    Asked kindly, a head waits half a minute for an actor that Ray Train leaves behind.
    """
    for pid in processes_with(variable, value):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def command_line(pid: int) -> str:
    with suppress(psutil.Error):
        return " ".join(psutil.Process(pid).cmdline())
    return ""
