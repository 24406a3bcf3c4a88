"""The names of the API, and results that are opened again."""

import ast
import importlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from made_records import record
from rich.console import Console

import rayprune as rp
from rayprune.config import Study
from rayprune.console.progress import ProgressView
from rayprune.models import build_model
from rayprune.results.recorder import Recorder
from rayprune.results.stages import save_stage


@pytest.fixture(scope="module")
def results(small, tmp_path_factory):
    """A study of two good trials and one that diverges, run in this process."""
    space = {"optim.lr": {"grid": [0.05, 0.02, 1e6]}}
    fields = {"name": "s", "experiment": small, "search": {"space": space}}
    study = Study.model_validate({**fields, "storage": str(tmp_path_factory.mktemp("api"))})
    return rp.run(study, ray=False)


def test_every_name_of_the_api_is_there_and_listed():
    assert set(rp.__all__) <= set(dir(rp))
    for name in rp.__all__:
        value = getattr(rp, name)
        module = importlib.import_module(value.__module__)
        assert getattr(module, name) is value and value.__doc__
    with pytest.raises(AttributeError, match="no attribute 'runn'"):
        rp.runn  # noqa: B018


def test_what_a_type_checker_sees_is_what_is_loaded():
    tree = ast.parse(Path(rp.__file__).read_text())
    seen = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    named = {
        alias.name for node in seen if node.module.startswith("rayprune.") for alias in node.names
    }
    assert named == set(rp.__all__)


@pytest.mark.parametrize("use", ["rp.Study()", "rp.load_study()", "rp.open_results", "rp.run"])
def test_what_needs_no_network_is_loaded_without_torch_and_ray(use):
    code = f"import sys, rayprune as rp; {use}; print({{'torch', 'ray'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_failed_trial_has_its_reason_and_the_others_their_results(results):
    assert [trial.status for trial in results.trials] == ["finished", "finished", "failed"]
    assert list(results.errors) == ["2"] and "diverged in epoch 1" in results.errors["2"]
    assert results.best.name in ("0", "1")
    assert "val_accuracy" in results.best.row


def test_results_are_opened_as_they_were_left(results):
    again = rp.open_results(results.folder)
    assert again.table.equals(results.table, check_metadata=True)
    assert again.answer == results.answer and again.trials == results.trials
    with pytest.raises(ValueError, match="no results in"):
        rp.open_results("nowhere")


def test_a_snapshot_is_the_one_that_the_table_names(results):
    best = rp.load_snapshot(results)
    assert best.records[-1].key == results.best.key
    other = rp.load_snapshot(results.folder, "1")
    assert other.records[-1].metrics["val_accuracy"] in results.table["val_accuracy"].to_pylist()
    sizes = [sum(int(mask.sum()) for mask in s.masks.values()) for s in (best, other)]
    assert sizes[0] == sizes[1]
    with pytest.raises(ValueError, match=r"trial '2' has not finished. Finished trials: 0, 1"):
        rp.load_snapshot(results, "2")


def test_a_report_is_written_beside_the_table(results):
    page = rp.write_report(results.folder)
    assert page == f"{results.folder}/report.html"
    with open(page) as file:
        assert "<html" in file.read()


def test_a_second_run_reads_the_table_and_does_nothing(results, small, monkeypatch):
    import rayprune.training.local as local

    storage = results.folder.rpartition("/")[0]
    space = {"optim.lr": {"grid": [0.05, 0.02]}}
    fields = {"name": "s", "experiment": small, "search": {"space": space}}
    study = Study.model_validate({**fields, "storage": storage})
    monkeypatch.setattr(local, "run_local", None)  # it would fail if it were called
    told = []
    first = rp.run(study, ray=False, force=True, on_progress=told.append)
    assert {state.status for state in told[-1].stages.values()} == {"done"}
    written = []
    for module in ("storage", "table", "recorder"):
        monkeypatch.setattr(f"rayprune.results.{module}.write_bytes", lambda *a: written.append(a))
    second = rp.run(study, ray=False)
    assert written == []
    assert second.table.equals(first.table) and len(second.trials) == 2


def test_a_snapshot_that_is_gone_is_told_and_made_again(small, tmp_path):
    study = Study.model_validate({"name": "s", "experiment": small, "storage": str(tmp_path)})
    results = rp.run(study, ray=False)
    weights = results.best.snapshot.weights
    (content,) = (tmp_path / "stages" / results.best.key).glob("*.safetensors")
    content.unlink()
    with pytest.raises(ValueError, match=r"gone from .*Run the study again"):
        rp.load_snapshot(results)
    again = rp.run(study, ray=False).best.snapshot.weights
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_a_study_that_is_wrong_is_told_before_anything_is_written(small, tmp_path):
    wrong = {**small, "model": {"name": "lenet_300_1000"}}
    fields = {"name": "s", "experiment": wrong, "storage": str(tmp_path / "storage")}
    with pytest.raises(ValueError, match="Did you mean lenet_300_100"):
        rp.run(Study.model_validate(fields), ray=False)
    assert not (tmp_path / "storage").exists()


def test_a_broken_view_breaks_no_study(small, tmp_path, caplog):
    def broken(progress):
        raise ZeroDivisionError("no such pixel")

    study = Study.model_validate({"name": "s", "experiment": small, "storage": str(tmp_path)})
    results = rp.run(study, ray=False, on_progress=broken)
    assert [trial.status for trial in results.trials] == ["finished"]
    assert caplog.text.count("on_progress failed") == 1 and "no such pixel" in caplog.text


def test_a_table_that_cannot_be_written_for_a_while_breaks_no_study(small, tmp_path, monkeypatch):
    from rayprune.results import recorder
    from rayprune.results.storage import StorageError

    write, failures = recorder.write_table, []

    def write_at_last(folder, table):
        if len(failures) < 3:
            failures.append(folder)
            raise StorageError("503")
        write(folder, table)

    monkeypatch.setattr(recorder, "write_table", write_at_last)
    study = Study.model_validate({"name": "s", "experiment": small, "storage": str(tmp_path)})
    results = rp.run(study, ray=False)
    assert len(failures) == 3
    assert rp.open_results(results.folder).table.equals(results.table, check_metadata=True)


# ---- a study that is started again, and another one in its place ----

EPOCHS = {"retrain.epochs": {"grid": [1]}}
DRAWN = {"prune.sparsity": {"uniform": [0.5, 0.9]}}  # and 2 epochs of retraining


def made(small, storage, **search):
    fields = {"name": "s", "experiment": small, "search": search, "storage": str(storage)}
    return Study.model_validate(fields)


@pytest.mark.parametrize(
    ("before", "after", "new_epochs"),
    [
        ({"space": EPOCHS, "seeds": [0]}, {"space": EPOCHS, "seeds": [1, 0]}, 3 + 1),
        ({"space": DRAWN, "num_samples": 1}, {"space": DRAWN, "num_samples": 3}, 2 + 2),
        ({"space": EPOCHS}, {"space": {"retrain.epochs": {"grid": [2, 1]}}}, 2),
        ({"space": EPOCHS}, {"spaces": [{"dense.epochs": {"grid": [2]}}, EPOCHS]}, 2 + 2),
    ],
    ids=["seeds", "samples", "values", "spaces"],
)
def test_a_finished_study_that_grows_runs_only_what_is_new(
    before, after, new_epochs, small, tmp_path
):
    first = rp.run(made(small, tmp_path, **before), ray=False)
    second = rp.run(made(small, tmp_path, **after), ray=False)
    assert len(second.trials) > len(first.trials) and second.errors == {}
    assert second.comparison.summary.executed_epochs == new_epochs
    known = {row["key"]: row["seconds"] for row in second.table.to_pylist()}
    assert all(known[row["key"]] == row["seconds"] for row in first.table.to_pylist())


def test_a_searchers_study_that_is_finished_is_opened_without_ray(small, tmp_path, caplog):
    """What it has proposed is known from its folder, and shown as finished."""
    space = {"prune.sparsity": {"uniform": [0.5, 0.9]}}
    study = made(small, tmp_path, space=space, algorithm="optuna", num_samples=2)
    recorder = Recorder(study, ())
    recorder.write_study()
    for sparsity in (0.6, 0.8):
        trial, chain = recorder.propose({"prune.sparsity": sparsity}, None), []
        for stage in trial.plan:
            chain.append(record(key=stage.key, cycle=stage.cycle, metrics={"val_accuracy": 0.5}))
            save_stage(str(tmp_path), stage.key, b"weights", chain)
    console = Console(file=io.StringIO(), width=120)
    view = ProgressView(console, (), "val_accuracy", 2)
    results = rp.run(study, on_progress=view)
    assert [trial.status for trial in results.trials] == ["finished", "finished"]
    said = "every trial was finished before: nothing is left to run\n"
    assert console.file.getvalue() == said and "on_progress failed" not in caplog.text


def test_another_study_of_that_name_is_refused_and_leaves_all_as_it_was(small, tmp_path):
    first = rp.run(made(small, tmp_path, space=EPOCHS), ray=False)
    files = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    other = made({**small, "batch_size": 30}, tmp_path, space=EPOCHS)
    with pytest.raises(rp.ConfigError, match=r"experiment\.batch_size: 60 there, 30 here"):
        rp.run(other, ray=False)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == files
    forced = rp.run(other, ray=False, force=True)
    assert forced.best.key != first.best.key and rp.open_results(forced.folder).best == forced.best
    assert rp.run(other, ray=False).comparison.summary.executed_epochs == 4, "it is the study now"


def test_the_next_study_can_start_from_the_dense_network(small, tmp_path):
    first = rp.run(made(small, tmp_path, space=EPOCHS), ray=False)
    dense = Path(first.folder) / "dense"
    key = json.loads((dense / "provenance.json").read_text())["key"]
    assert key in {row["key"] for row in first.table.to_pylist() if row["cycle"] == 0}
    assert sorted(file.name for file in dense.iterdir()) == ["model.safetensors", "provenance.json"]
    model = build_model("lenet_300_100", weights=str(dense), num_classes=10, in_channels=1)
    assert all((parameter != 0).any() for parameter in model.parameters())
    written = (dense / "provenance.json").stat().st_mtime_ns
    rp.run(made(small, tmp_path, space=EPOCHS), ray=False)
    assert (dense / "provenance.json").stat().st_mtime_ns == written, "it is written once"


def test_a_run_that_sparsifies_leaves_no_dense_network(small, tmp_path):
    dense = {"epochs": 3, "sparsify": {"method": "gmp"}}
    fields = {**small, "dense": dense, "prune": {"sparsity": 0.9, "cycles": 0}}
    results = rp.run(made(fields, tmp_path), ray=False)
    assert (Path(results.folder) / "best" / "provenance.json").is_file()
    assert not (Path(results.folder) / "dense").exists()


def test_weights_that_do_not_fit_end_a_study_before_it_begins(small, tmp_path):
    torch.save(build_model("lenet5", num_classes=10).state_dict(), tmp_path / "weights.pt")
    model = {"name": "lenet5", "weights": str(tmp_path / "weights.pt")}
    with pytest.raises(ValueError, match=r"0\.weight is .*these have 1.*data\.channels: 3"):
        rp.run(made({**small, "model": model}, tmp_path / "runs"), ray=False)
    assert not (tmp_path / "runs").exists()


def test_a_model_to_ship_that_cannot_be_written_fails_no_study(
    small, tmp_path, monkeypatch, caplog
):
    from rayprune.exporting import model_files
    from rayprune.results.storage import StorageError

    def full(*arguments):
        raise StorageError("the disk is full")

    monkeypatch.setattr(model_files, "write_model", full)
    results = rp.run(made(small, tmp_path, space=EPOCHS), ray=False)
    assert results.errors == {}
    assert f"{results.folder}/best was not written: the disk is full" in caplog.text


def test_a_new_local_storage_is_kept_out_of_git_and_uploads(small, tmp_path):
    rp.run(made(small, tmp_path / "new", space=EPOCHS), ray=False)
    assert (tmp_path / "new" / ".gitignore").read_text() == "*\n"
