"""The door of a study: what is wrong is told before Ray starts, and what would be run is shown."""

import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from rayprune.tune import main


@pytest.fixture
def parquet_without_labels(tmp_path):
    file = tmp_path / "bare.parquet"
    pq.write_table(pa.table({"image": [{"bytes": b"", "path": "a"}]}), file)
    return str(file)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["experiment.prune.sparsty=0.9"], "prune.sparsty: no such field. Did you mean sparsity?"),
        (["experiment.retrain.epochs=some"], "experiment.retrain.epochs"),
        (["experiment.prune.sparsity=95"], "Write 0.95 for 95 %"),
        (["search.space.retrain.epochs={grid: [13]}"], "replays the dense run's last epochs"),
        (["nowhere.yaml"], "no study file nowhere.yaml"),
        (["experiment.data={parquet: {train: no.parquet, test: no.parquet}}"], "no.parquet"),
        (["scaling.gpus_per_worker=3"], "need 3 GPUs"),
        (["scaling.workers=64"], "need 64 CPUs"),
        (["experiment.model.name=smallcnn"], "Did you mean small_cnn?"),
        (["experiment.model={target: 'nowhere:build'}"], "cannot import nowhere:build"),
        (["search.metric=val_mean_iou"], "measured for task segmentation"),
    ],
)
def test_a_mistake_ends_with_a_message_and_code_two(arguments, said, capsys, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.err.startswith("error: ")
    assert printed.out == ""


def test_parquet_without_labels_is_told(parquet_without_labels, capsys):
    files = f"{{train: {parquet_without_labels}, test: {parquet_without_labels}}}"
    assert main([f"experiment.data={{parquet: {files}}}"]) == 2
    assert "label" in capsys.readouterr().err


def test_a_mistake_as_a_process_prints_no_traceback(tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text("experiment: [1, 2]")
    done = subprocess.run(
        [sys.executable, "-m", "rayprune.tune", str(file)], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: experiment")


def test_dry_run_shows_what_is_shared_and_starts_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RAYPRUNE_STORAGE", str(tmp_path / "storage"))
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "12 trials, 24 stages, 13 of them unique" in printed
    assert "36 epochs to run of 36 unique ones; separate runs would take 168" in printed
    assert printed.count("(dense 12)") == 11
    assert not (tmp_path / "storage").exists()


def test_dry_run_knows_what_was_finished_before(small, tmp_path, capsys):
    from rayprune.config import Experiment
    from rayprune.training.run import run_plan
    from rayprune.training.worker import Worker

    storage = str(tmp_path / "storage")
    run_plan(Experiment.model_validate(small), Worker(), storage)
    file = tmp_path / "known.yaml"
    space = {"retrain.epochs": {"grid": [2, 3]}}
    file.write_text(
        yaml.safe_dump({"experiment": small, "search": {"space": space}, "storage": storage})
    )
    assert main([str(file), "--dry-run"]) == 0
    assert "3 epochs to run of 8 unique ones" in capsys.readouterr().out
