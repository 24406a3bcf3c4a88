"""The card of an export folder says what was measured, and no name breaks its tables."""

import re
import subprocess
import sys
from dataclasses import replace

import pytest
import yaml
from made_records import record

from rayprune.config import Data, Experiment, Model, Prune
from rayprune.exporting.card import Card, make_card
from rayprune.exporting.exported import ExportedFile, Latency

PREPROCESSING = {
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    **{"resize": 224, "eval_crop": 0.875, "interpolation": "bicubic", "channels": 3},
}
RECORD = record(
    cycle=3,
    sparsity=0.95,
    goal_sparsity=0.95,
    num_parameters=11_191_262,
    num_nonzero=577_832,
    flops=556_000_000,
    flops_nonzero=40_000_000,
    theoretical_speedup=13.9,
    metrics={"val_accuracy": 0.8862, "val_loss": 0.3412, "test_accuracy": 0.8791},
    preprocessing=PREPROCESSING,
)
PACKED = ExportedFile(
    format="packed",
    files=("packed.safetensors", "packed.py"),
    num_bytes=2_725_000,
    zlib_bytes=2_500_123,
    runtime="numpy 2.4",
    difference=None,
    tolerance=None,
    metrics={},
    load="from packed import load\nweights = load('packed.safetensors')",
)
ONNX = replace(
    PACKED,
    format="onnx",
    files=("model.onnx",),
    runtime="onnxruntime 1.27",
    difference=2.4e-6,
    tolerance=1e-4,
    metrics={"test_accuracy": 0.879},
    load="import onnxruntime",
    note="dense kernels",
)
LATENCY = Latency(
    file="model.onnx",
    runtime="onnxruntime 1.27",
    threads=1,
    batch=32,
    median_ms=12.3456,
    spread_ms=0.21,
    dense_runtime="torch 2.14",
    dense_ms=24.5,
    speedup=1.98,
    load_average=0.7,
    machine="EPYC, 2 cores",
)
CARD = Card(
    study="quickstart",
    trial="3",
    experiment=Experiment(prune=Prune(sparsity=0.95, cycles=3), seed=7),
    record=RECORD,
    files=(PACKED, ONNX),
    latencies=(LATENCY,),
    input_shape=(3, 224, 224),
    num_classes=10,
    versions={"rayprune": "0.1.0", "torch": "2.14.1", "ray": "2.60"},
)


def cells(row):
    """Its number of cells: borders that no backslash escapes."""
    return len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) - 1


def tables(card):
    """Blocks of lines that are tables."""
    blocks = [block.splitlines() for block in card.split("\n\n")]
    return [block for block in blocks if block[0].startswith("| ")]


@pytest.mark.parametrize(
    "fact",
    [
        "# quickstart, trial 3",
        "small_cnn, 11,191,262 parameters",
        "3 x 224 x 224, 10 classes",
        "- Data: fashion_mini",
        "- Task: classification",
        "dense training for 12 epochs, then magnitude pruning in 3 cycles of 2 epochs, "
        "learning rates by allr; seed 7",
        "95 % of the prunable weights are zero (goal: 95 %); allocation global, pattern "
        "unstructured; 577,832 parameters are left",
        "13.9x in theory, which is no measured time",
        "| metric | validation | test | test, onnx |",
        "| accuracy | 88.6 % | 87.9 % | 87.9 % |",
        "| loss | 0.3412 | – | – |",
        "| packed | packed.safetensors, packed.py | 2,725,000 | 2,500,123 | numpy 2.4 | – | – |",
        "| onnx | model.onnx | 2,725,000 | 2,500,123 | onnxruntime 1.27 | 2.4e-06 | 0.0001 | dense",
        "| model.onnx | onnxruntime 1.27 | 32 | 1 | 12.346 | 0.210 | torch 2.14 | 24.500 | 1.98 |",
        "1. bring the image to 3 channels\n2. resize it to 224 x 224 pixels (bicubic), keeping the "
        "centre, 0.875 of the shorter side\n3. divide levels by 255",
        "mean [0.485, 0.456, 0.406], std [0.229, 0.224, 0.225]",
        "```python\nfrom packed import load\nweights = load('packed.safetensors')\n```",
        "rayprune 0.1.0, torch 2.14.1, ray 2.60",
        "The weights are yours",
        "rayprune is Apache-2.0, and so are the loaders (.py) beside the files",
        "MIT licence",
    ],
)
def test_it_says(fact):
    assert fact in make_card(CARD)


def test_the_experiment_is_there_to_read():
    (block,) = re.findall(r"```yaml\n(.*?)\n```", make_card(CARD), re.DOTALL)
    assert Experiment.model_validate(yaml.safe_load(block)) == CARD.experiment


def test_tables_have_a_cell_for_each_column():
    found = tables(make_card(CARD))
    assert len(found) == 3
    for rows in found:
        assert {cells(row) for row in rows} == {cells(rows[0])}


@pytest.mark.parametrize("name", ["a|b", "a\n| b |\n\n# c", "\\|", "```", "<b>", "a\r\nb"])
def test_no_name_breaks_it(name):
    file = replace(
        ONNX, format=name, files=(name,), runtime=name, note=name, load=name, metrics={name: 0.5}
    )
    card = replace(
        CARD,
        study=name,
        trial=name,
        files=(file,),
        latencies=(replace(LATENCY, machine=name, file=name),),
        experiment=Experiment(model=Model(target=name), data=Data(target=name)),
        record=replace(RECORD, metrics={f"val_{name}": 0.5, f"test_{name}": 0.5}),
    )
    plain = make_card(replace(card, files=(replace(file, load="x = 1"),)))
    headings = [row for row in plain.splitlines() if row.startswith("#")]
    assert len(headings) == 8
    assert len(tables(plain)) == 3
    for rows in tables(plain):
        assert {cells(row) for row in rows} == {cells(rows[0])}
    assert "<b>" not in plain.partition("```")[0]
    assert make_card(card).count("## Licence") == 1


def test_what_is_missing_is_no_none():
    bare = replace(
        CARD,
        files=(),
        latencies=(),
        input_shape=None,
        num_classes=None,
        record=record(lr_peak=None, goal_sparsity=None, metrics={}, preprocessing=None),
        experiment=Experiment(
            data=Data(target="my:data"), prune=Prune(pattern="2:4", sparsity=0.5)
        ),
        versions={},
    )
    text = make_card(bare)
    prose = text.partition("```yaml")[0] + text.rpartition("```")[2]
    assert "None" not in prose.replace("None was", "") and "null" not in prose
    assert "MIT" not in prose
    assert "Not measured." in prose and "Inputs are taken as they are" in prose


def test_a_loss_in_unit_range_is_no_percentage():
    lower = replace(CARD, lower_is_better=("loss", "accuracy"))
    assert "| accuracy | 0.8862 | 0.8791 | 0.879 |" in make_card(lower)


def test_nearly_all_is_not_all():
    sparse = replace(CARD, record=replace(RECORD, sparsity=0.99996, goal_sparsity=0.9995))
    assert "99.996 % of the prunable weights are zero (goal: 99.95 %)" in make_card(sparse)


def test_a_card_needs_no_torch():
    code = "import sys, rayprune.exporting.card; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
