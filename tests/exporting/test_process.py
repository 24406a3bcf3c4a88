"""What converters and runtimes do stays in their process; what goes wrong there is a sentence."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from no_network import UNSUPPORTED

from rayprune.exporting import process as module
from rayprune.exporting.messages import read_message, write_message
from rayprune.exporting.process import ProcessError, RuntimeProcess, missing, require

WATCHED = Path(__file__).with_name("no_network.py")


@pytest.fixture
def process(tmp_path):
    with RuntimeProcess(tmp_path) as process:
        yield process


def test_messages_are_read_as_they_were_written(tmp_path):
    arrays = [np.arange(6, dtype=np.int64).reshape(2, 3).T, np.zeros((0, 4), np.float32)]
    with open(tmp_path / "pipe", "wb") as stream:
        write_message(stream, {"some": [1, None, "words"]}, arrays)
        write_message(stream, "more")
    with open(tmp_path / "pipe", "rb") as stream:
        words, read = read_message(stream)
        assert words == {"some": [1, None, "words"]}
        assert all((a == b).all() and a.dtype == b.dtype for a, b in zip(arrays, read, strict=True))
        assert read_message(stream) == ("more", [])
        with pytest.raises(EOFError):
            read_message(stream)


@pytest.mark.parametrize("runtime", ["onnx", "openvino", "mnn", "torch"])
@pytest.mark.parametrize("content", [b"", b"no network at all" * 50])
def test_a_broken_file_is_one_error_and_the_process_goes_on(process, tmp_path, runtime, content):
    (tmp_path / "broken.onnx").write_bytes(content)
    with pytest.raises(ProcessError):
        process.open(runtime, tmp_path / "broken.onnx", 1)
    assert process.version_of("onnx").startswith("ONNX Runtime 1.")


def test_a_broken_file_is_not_converted(process, tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    with pytest.raises(ProcessError, match="wrote no file"):
        process.convert_to_mnn(tmp_path / "broken.onnx", tmp_path / "model.mnn", is_sparse=True)


def test_a_process_that_dies_is_told_of(process):
    os.kill(process._child.pid, 9)
    with pytest.raises(ProcessError, match=r"its process died \(SIGKILL\)"):
        process.version_of("onnx")


def test_the_process_ends_with_its_parent(tmp_path):
    code = (
        "import os, pathlib, sys\n"
        "from rayprune.exporting.process import RuntimeProcess\n"
        "process = RuntimeProcess(pathlib.Path(sys.argv[1]))\n"
        "process.version_of('torch')\n"
        "print(process._child.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True)
    child = int(done.stdout)
    for _ in range(100):
        if not Path(f"/proc/{child}").exists() or "Z" in _state(child):
            return
        subprocess.run(["sleep", "0.1"])
    raise AssertionError(f"process {child} lives")


def _state(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


def test_what_is_missing_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "MNN" else object())
    assert missing("onnx") == "" == missing("torch")
    assert missing("mnn") == "needs MNN. Run: pip install 'rayprune[mnn]'"
    with pytest.raises(ValueError, match=r"mnn needs MNN"):
        require("mnn")


def watched(code, cwd):
    done = subprocess.run(
        [sys.executable, str(WATCHED), code], cwd=cwd, capture_output=True, text=True
    )
    if done.returncode == UNSUPPORTED:
        pytest.skip("this kernel does not tell of system calls")
    return done


def test_who_watches_sees_a_socket_of_a_child(tmp_path):
    code = (
        "import subprocess, sys\n"
        "subprocess.run([sys.executable, '-c', 'import socket; socket.socket()'])"
    )
    done = watched(code, tmp_path)
    assert done.returncode == 1 and "asked for a network socket" in done.stdout


EXPORT = """
import os, pathlib, sys, time
sys.path[:0] = {paths!r}
os.environ["HOME"] = {home!r}
from made_exports import made_network
from rayprune.exporting.formats import FORMATS
from rayprune.exporting.process import RuntimeProcess
from rayprune.exporting.workplace import Workplace

folder = pathlib.Path({folder!r})
with RuntimeProcess(folder) as process:
    place = Workplace(made_network({data!r}, "lenet_300_100"), folder, process)
    for name in ("onnx", "mnn", "int8"):
        made = FORMATS[name](place)
        for runtime in made.timed_in:
            process.open(runtime, folder / made.files[0], 1)
    time.sleep(2)  # what is sent is sent in the background
"""


def test_no_export_opens_a_connection_or_writes_elsewhere(few_images, tmp_path):
    """Their commands do: MNN's sends and installs, OpenVINO sends as it is imported."""
    folder, home = tmp_path / "export", tmp_path / "home"
    folder.mkdir(), home.mkdir()
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    code = EXPORT.format(paths=paths, home=str(home), folder=str(folder), data=few_images)
    done = watched(code, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list(home.iterdir())
    assert {file.name for file in folder.iterdir()} >= {"model.onnx", "model.mnn"}
    assert {file.name for file in tmp_path.iterdir()} == {"export", "home"}
