"""A study as a Ray job: sent to a running head that asks for a token, and done there."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest
from ray_nodes import end_processes, free_ports
from safetensors import safe_open

from rayprune.results.files import best_folder, report_file, study_folder
from rayprune.results.table import read_metadata, read_table

BIN = Path(sys.executable).parent
START_S, JOB_S = 60, 240  # far above what they take: for machines that are busy

JOBS = "/api/jobs/"

STUDY = """\
experiment:
  model: {name: small_cnn}
  data: {name: fashion_mini}
  dense: {epochs: 1}
  prune: {sparsity: 0.8}
  retrain: {epochs: 1}
search:
  space: {retrain.schedule: {grid: [ft, llr]}}
scaling: {slots: 1}
"""


@dataclass(frozen=True)
class Head:
    """A head node with two CPUs, and how to reach it."""

    url: str
    metrics: str
    """Where Prometheus reads."""
    token: str
    environment: dict[str, str]

    def submit(self, folder: Path, *command: str, **variables: str) -> tuple[int, str]:
        """`ray job submit --working-dir .` in `folder`: its exit code, and the job's log."""
        name = f"job-{uuid.uuid4().hex}"
        environment = json.dumps({"env_vars": variables})
        process = subprocess.run(
            [
                *(BIN / "ray", "job", "submit", "--address", self.url, "--submission-id", name),
                *("--working-dir", ".", "--runtime-env-json", environment, "--", *command),
            ],
            cwd=folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=JOB_S,
        )
        status, content = self.ask(f"/api/jobs/{name}/logs", self.token)
        assert status == 200, process.stdout
        return process.returncode, json.loads(content)["logs"]

    def ask(self, path: str, token: str | None) -> tuple[int, bytes]:
        """The HTTP status and the content of an answer."""
        request = urllib.request.Request(self.url + path)
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, b""


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY")} | {
        "HOME": str(home),
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",  # the job's `python` is ours
        "RAY_AUTH_MODE": "token",
        "OMP_NUM_THREADS": "1",
    }
    token = subprocess.run(
        [BIN / "ray", "get-auth-token", "--generate"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    # Ray's sockets lie below it, and a socket's path holds about a hundred characters.
    ray_folder = Path(tempfile.mkdtemp(prefix="ray"))
    gcs, dashboard, agent, agent_grpc, client, metrics = free_ports(6)
    with (home / "head.log").open("w") as log:
        process = subprocess.Popen(
            [
                *(BIN / "ray", "start", "--head", "--block", "--disable-usage-stats"),
                *("--num-cpus=2", "--num-gpus=0", "--object-store-memory=200000000"),
                *(f"--temp-dir={ray_folder}", "--node-ip-address=127.0.0.1", f"--port={gcs}"),
                *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"),
                *(f"--dashboard-agent-listen-port={agent}",),
                *(f"--dashboard-agent-grpc-port={agent_grpc}",),
                *(f"--ray-client-server-port={client}", f"--metrics-export-port={metrics}"),
            ],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    metrics_url = f"http://127.0.0.1:{metrics}/metrics"
    running = Head(f"http://127.0.0.1:{dashboard}", metrics_url, token, environment)
    try:
        wait_for(running, process, home / "head.log")
        yield running
    finally:
        end_processes("HOME", str(home))
        process.wait()
        shutil.rmtree(ray_folder, ignore_errors=True)


def wait_for(head: Head, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if head.ask(JOBS, head.token)[0] == 200:
                return
        except OSError:
            time.sleep(0.2)  # nothing listens yet
    pytest.fail(f"the head did not start:\n{log.read_text()}")


def test_a_job_runs_a_study(head, tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "tiny.yaml").write_text(STUDY)
    storage = tmp_path / "shared"
    code, log = head.submit(
        tmp_path / "code",
        *("python", "-m", "rayprune.tune", "tiny.yaml"),
        RAYPRUNE_STORAGE=str(storage),
    )
    assert code == 0, log

    # A log is read later: whole lines, nothing that only a terminal understands.
    assert "\x1b" not in log
    assert "\r" not in log
    for trial, schedule in (("0", "ft"), ("1", "llr")):
        pattern = rf"^\[ *\d+ s\] trial {trial} \S*{schedule}: val_accuracy 0\.\d+$"
        assert len(re.findall(pattern, log, re.M)) == 1, log

    folder = study_folder(str(storage), "tiny")
    table = read_table(folder)
    summary, _ = read_metadata(table)
    assert set(table["trial"].to_pylist()) == {"0", "1"}
    assert (summary.executed_epochs, summary.naive_epochs) == (3, 4)
    assert "<html" in Path(report_file(folder)).read_text()
    assert report_file(folder) in log
    with safe_open(f"{best_folder(folder)}/model.safetensors", "pt") as weights:
        assert any(name.endswith("weight") for name in weights.keys())  # noqa: SIM118

    runs = json.loads(head.ask("/api/train/v2/runs/v1", head.token)[1])["train_runs"]
    assert [(run["name"], run["status"]) for run in runs] == [("tiny-slot-0", "FINISHED")]
    (worker,) = runs[0]["attempts"][0]["workers"]
    told = Path(worker["log_file_path"]).read_text()
    assert "trial 0: " in told and "trial 1: " in told, "the stages, where the dashboard looks"
    with urllib.request.urlopen(head.metrics, timeout=10) as response:
        numbers = response.read().decode()
    (epochs,) = re.findall(r"^ray_rayprune_epochs_done{.*} (\S+)$", numbers, re.M)
    assert float(epochs) == 3


def test_a_mistake_fails_the_job_and_its_log_says_why(head, tmp_path):
    (tmp_path / "tiny.yaml").write_text(STUDY.replace("0.8", "80"))
    code, log = head.submit(tmp_path, "python", "-m", "rayprune.tune", "tiny.yaml")
    assert code != 0
    assert "error: experiment.prune.sparsity: " in log
    assert "Write 0.8 for 80 %" in log
    assert "Traceback" not in log


def test_nobody_gets_in_without_the_token(head):
    assert head.ask(JOBS, head.token)[0] == 200
    assert head.ask(JOBS, None)[0] == 401
    assert head.ask(JOBS, "guessed")[0] in (401, 403)
