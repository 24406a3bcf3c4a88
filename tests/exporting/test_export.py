"""An export is the trained network, for whoever has nothing of ours: as its card says."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from made_exports import made_network, made_snapshot

import rayprune as rp
from rayprune.data import load_data
from rayprune.export import main as export_command
from rayprune.exporting import export as module
from rayprune.exporting.deployed import metrics_on_test
from rayprune.exporting.export import export
from rayprune.exporting.exported import FORMAT_NAMES

RUN_HERE = [name for name in FORMAT_NAMES if name not in ("small", "semi_structured")]

NET = """
import torch
from torch import nn

def net():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1),
        nn.ReLU(), nn.Flatten(), nn.Linear(784, 160), nn.ReLU(), nn.Linear(160, 10),
    )
"""
# What a user has: the network's code, inputs as the card says, and no rayprune. Each format's lines
# run with names of their own.
SCRIPT = """
import json, sys
sys.modules["rayprune"] = None
import numpy as np, torch
from net import net

labels, array = np.load("../labels.npy"), np.load("../images.npy")
for format, lines in json.load(open("../lines.json")).items():
    images = torch.from_numpy(array)
    names = {"torch": torch, "model": net(), "input": array, "images": images, "inputs": images}
    exec(lines, names)
    if "outputs" not in names:  # these lines end with weights in the model
        names["outputs"] = names["model"].eval()(images)
    outputs = names["outputs"]
    outputs = outputs[0] if isinstance(outputs, list) else outputs.detach()
    print(json.dumps([format, float((np.array(outputs).argmax(1) == labels).mean())]))
"""


@pytest.fixture(scope="module")
def results(few_images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    (folder / "net.py").write_text(NET)
    sys.path.insert(0, str(folder))
    study = rp.Study(
        name="exported",
        storage=str(folder),
        experiment={
            "model": {"target": "net:net"},
            "data": {"parquet": few_images},
            "batch_size": 60,
            "dense": {"epochs": 3},
            "prune": {"sparsity": 0.9, "allocation": "uniform"},
            "retrain": {"epochs": 2},
        },
    )
    yield rp.run(study, ray=False)
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def exported(results):
    done = results.export(RUN_HERE, measure=True)
    study = Path(results.folder)
    test = load_data(rp.load_study(study / "study.yaml").experiment.data, seed=0).test
    images, labels = test.first(len(test), torch.device("cpu"))
    np.save(study / "export" / "images.npy", images.numpy())
    np.save(study / "export" / "labels.npy", labels.numpy())
    (Path(done.folder) / "net.py").write_text(NET)
    return done


def test_every_format_is_there_and_is_named_by_the_card(exported):
    folder = Path(exported.folder)
    card = (folder / "README.md").read_text()
    for file in exported.files:
        assert all((folder / name).exists() and name in card for name in file.files)
    assert [file.format for file in exported.files] == RUN_HERE


def test_each_has_the_metric_that_the_study_reported(exported, results):
    reported = results.best.row["test_accuracy"]
    assert exported.reported["test_accuracy"] == reported
    for file in exported.files:
        tolerance = 0.02 if file.format == "int8" else 1e-9
        assert file.metrics["test_accuracy"] == pytest.approx(reported, abs=tolerance)


def test_the_lines_of_the_card_load_it_where_rayprune_is_not(exported):
    folder = Path(exported.folder)
    card = (folder / "README.md").read_text()
    lines = dict(re.findall(r"^(\w+):\n\n```python\n(.*?)```", card, re.S | re.M))
    assert [*lines] == RUN_HERE
    (folder.parent / "lines.json").write_text(json.dumps(lines))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
    measured = {file.format: file.metrics["test_accuracy"] for file in exported.files}
    assert found == pytest.approx(measured, abs=1e-6)


def test_a_sparser_form_is_smaller(exported):
    sizes = {file.format: file.num_bytes for file in exported.files}
    assert sizes["packed"] < 0.2 * sizes["onnx"]
    assert sizes["mnn"] < 0.3 * sizes["onnx"]
    assert sizes["int8"] < 0.4 * sizes["onnx"]


def test_latencies_are_ratios_to_one_dense_runtime(exported):
    times = exported.latencies
    assert {time.file for time in times} == {"model.onnx", "model.mnn", "model.int8.onnx"}
    assert {time.batch for time in times} == {1, 8}
    assert len({(time.batch, time.dense_runtime) for time in times}) == 2
    for time in times:
        # The ratio is of what belongs together, and so not that of the medians, but near it.
        assert time.speedup == pytest.approx(time.dense_ms / time.median_ms, rel=0.5)


def test_a_later_export_leaves_nothing_of_an_earlier_one(results, exported, tmp_path):
    results.export(["packed", "onnx"], folder=tmp_path / "there")
    results.export(["packed"], folder=tmp_path / "there")
    names = {file.name for file in (tmp_path / "there").iterdir()}
    assert names == {"packed.safetensors", "packed.py", "README.md"}


def test_a_dense_stage_is_exported_by_the_beginning_of_its_key(results, tmp_path):
    dense = next(row["key"] for row in results.table.to_pylist() if row["cycle"] == 0)
    done = results.export(["packed"], stage=dense[:8], folder=tmp_path)
    assert done.files[0].num_bytes > 4 * 128_000


def test_what_cannot_be_exported_leaves_what_was_there(results, tmp_path, monkeypatch):
    results.export(["packed"], folder=tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    monkeypatch.setattr(module, "TOLERANCE", -1.0)
    with pytest.raises(ValueError, match="another network than torch's"):
        results.export(["packed", "onnx"], folder=tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"formats": ["onx"]}, "no format 'onx'. Did you mean onnx?"),
        ({"formats": []}, "no format is named"),
        ({"formats": ["small"]}, "prune.pattern: filter"),
        ({"formats": ["packed"], "trial": "7"}, "got '7'. There are 0"),
        ({"formats": ["packed"], "stage": "abc"}, "6 letters and more"),
        ({"formats": ["semi_structured"]}, 'prune.pattern: "2:4"'),
    ],
)
def test_mistakes_are_named(results, arguments, message, tmp_path):
    with pytest.raises(ValueError, match=re.escape(message)):
        results.export(**arguments, folder=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_network_without_filters_is_exported_without_them(few_images, tmp_path):
    network = made_network(few_images, "small_cnn", sparsity=0.1, pattern="filter")
    snapshot = made_snapshot(network.experiment)
    about = {"study": "made", "trial": "0", "key": "k"}
    done = export(snapshot, network.experiment, str(tmp_path), ["small", "onnx"], about=about)
    small, onnx = done.files
    dense_bytes = 4 * sum(weight.numel() for weight in snapshot.weights.values())
    assert small.num_bytes < 0.8 * dense_bytes and onnx.num_bytes < 0.8 * dense_bytes
    assert small.metrics == pytest.approx(onnx.metrics)
    assert small.metrics == pytest.approx(metrics_on_test(network, network.model))


def test_a_full_disk_is_one_line_and_leaves_nothing(results, tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(rp.StorageError, match="the disk is full"):
        results.export(["packed"], folder=tmp_path / "new")
    assert not (tmp_path / "new").exists()


class TestCommand:
    def test_it_prints_a_line_for_each_file_and_where_the_card_is(self, results, tmp_path, capsys):
        folder = str(tmp_path / "there")
        code = export_command([results.folder, "--to", "packed", "packed", "--folder", folder])
        output = capsys.readouterr().out
        assert code == 0 and output.count("packed.safetensors") == 2  # running it, and the table
        assert f"{100 * results.best.row['test_accuracy']:.2f}" in output
        assert output.rstrip().endswith(f"{folder}/README.md")

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--to", "onx"], "no format 'onx'. Did you mean onnx?"),
            (["--to", "packed", "--trial", "9"], "got '9'. There are 0"),
            (["--to", "onnx", "--measure", "--threads", "0"], "threads must be 1 or more, got 0"),
        ],
    )
    def test_mistakes_are_a_line_and_code_2(self, results, words, message, capsys):
        assert export_command([results.folder, *words]) == 2
        captured = capsys.readouterr()
        assert message in captured.err and "Traceback" not in captured.err and not captured.out

    def test_a_folder_without_results_is_one(self, tmp_path, capsys):
        assert export_command([str(tmp_path), "--to", "onnx"]) == 2
        assert "no results in" in capsys.readouterr().err
