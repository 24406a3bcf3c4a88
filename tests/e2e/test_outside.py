"""A network and images that are no part of the package, named in two lines of YAML."""

import importlib
import io
import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

NETS = """
from torch import nn

def tiny(num_classes, in_channels):
    return nn.Sequential(
        nn.Conv2d(in_channels, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 36, num_classes),
    )
"""
CLASSES = ["disc", "square", "stripes"]
STUDY = """
model: {target: "mine.nets:tiny"}
data: {parquet: {train: shapes/data/train-*.parquet, test: shapes/data/test-*.parquet}}
"""


def picture(label, draw):
    """A 12x12 shape in a random colour on a random dark ground, as the bytes of a PNG."""
    y, x = np.mgrid[:12, :12] - draw.integers(4, 8, (2, 1, 1))
    inside = [x**2 + y**2 < 12, np.maximum(abs(x), abs(y)) < 3, y % 3 == 0][label]
    image = np.where(inside[..., None], draw.integers(128, 256, 3), draw.integers(0, 100, 3))
    file = io.BytesIO()
    Image.fromarray(image.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def write_shapes(folder):
    """As on the Hugging Face hub: a split's rows in numbered files, class names in the schema."""
    draw = np.random.default_rng(0)
    features = {
        "image": {"_type": "Image"},
        "label": {"names": CLASSES, "_type": "ClassLabel"},
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for split, number, parts in (("train", 450, 2), ("test", 90, 1)):
        for part in range(parts):
            labels = [row % 3 for row in range(number)]
            images = [{"bytes": picture(label, draw), "path": None} for label in labels]
            columns = {"image": pa.array(images, image), "label": pa.array(labels, pa.int64())}
            file = folder / f"{split}-{part:05d}-of-{parts:05d}.parquet"
            pq.write_table(pa.table(columns).replace_schema_metadata(metadata), file)


@pytest.fixture
def place(tmp_path):
    """A folder with a study of two lines and the images; the user's package is in lib/."""
    (tmp_path / "lib" / "mine").mkdir(parents=True)
    (tmp_path / "lib" / "mine" / "nets.py").write_text(NETS)
    (tmp_path / "shapes" / "data").mkdir(parents=True)
    write_shapes(tmp_path / "shapes" / "data")
    (tmp_path / "outside.yaml").write_text(STUDY.lstrip())
    return tmp_path


def run(place, **environment):
    command = [sys.executable, "-m", "rayprune.train", "outside.yaml", "--local"]
    return subprocess.run(
        [*command, f"storage={place / 'runs'}"],
        cwd=place,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_two_lines_of_yaml_prune_a_network_of_the_users_on_the_users_images(place, monkeypatch):
    done = run(place, PYTHONPATH=str(place / "lib"))
    assert done.returncode == 0, done.stdout + done.stderr
    folder = place / "runs" / "outside"
    dense, last = pq.read_table(folder / "results.parquet").to_pylist()
    assert (dense["sparsity"], last["goal_sparsity"]) == (0, 0.95)
    total = 3 * 8 * 9 + 8 * 36 * 3
    assert last["sparsity"] == round(0.95 * total) / total
    assert dense["test_accuracy"] > 0.7, "the shapes are learnt"

    monkeypatch.syspath_prepend(str(place / "lib"))
    model = importlib.import_module("mine.nets").tiny(len(CLASSES), 3)
    model.load_state_dict(load_file(folder / "best" / "model.safetensors"))
    weights = [
        layer.weight for layer in model if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)
    ]
    assert sum(int((weight == 0).sum()) for weight in weights) == round(0.95 * total)
    provenance = json.loads((folder / "best" / "provenance.json").read_text())
    assert provenance["experiment"]["model"]["target"] == "mine.nets:tiny"


def test_a_module_that_is_not_found_is_told_before_anything_starts(place):
    done = run(place, PYTHONPATH="")
    assert done.returncode == 2
    assert "experiment.model.target: cannot import mine.nets: No module named" in done.stderr
    assert "PYTHONPATH" in done.stderr and "Traceback" not in done.stderr
    assert not (place / "runs").exists()
