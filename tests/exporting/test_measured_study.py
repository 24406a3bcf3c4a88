"""A study measures each trained network once, keeps it with its stage, and says what it cannot."""

import os

import pytest
from made_studies import measurement
from torch import nn

import rayprune as rp
from rayprune.exporting import process as process_module
from rayprune.exporting import study as module

FIELDS = ("file_mb", "zlib_mb", "latency_ms", "dense_latency_ms", "measured_speedup")


@pytest.fixture(autouse=True)
def _fewer_runtimes(monkeypatch):
    """Of the dense network's: every one costs a file and a conversion."""
    absent = {"openvino", "MNN"}
    find = process_module.find_spec
    monkeypatch.setattr(
        process_module, "find_spec", lambda name: None if name in absent else find(name)
    )


@pytest.fixture
def study(small, tmp_path):
    def make(model=None, **search):
        fields = {**small, "dense": {"epochs": 1}, "retrain": {"epochs": 1}}
        fields["model"] = model or {"name": "lenet_300_100"}
        space = {"prune.sparsity": {"grid": [0.5, 0.9]}}
        return rp.Study(
            name="measured",
            storage=str(tmp_path),
            experiment=fields,
            search={"space": space, "measure": "onnx", **search},
        )

    return make


@pytest.fixture
def keys(monkeypatch):
    """Keys of the stages whose networks are measured, in that order."""
    found, measured = [], module._measured

    def note(key, *arguments):
        found.append(key)
        return measured(key, *arguments)

    monkeypatch.setattr(module, "_measured", note)
    return found


@pytest.fixture
def at_once(monkeypatch):
    """Without a file and a process."""
    monkeypatch.setattr(module, "_in_a_process", lambda *arguments: measurement())


def measured_rows(results):
    return [row for row in results.table.to_pylist() if row.get("latency_ms")]


def test_final_and_dense_rows_are_measured_once(study, keys):
    notes = []
    results = rp.run(study(), ray=False, on_progress=lambda p: notes.extend(p.notes))
    rows = measured_rows(results)
    assert {(row["cycle"], row["is_final"]) for row in rows} == {(0, False), (1, True)}
    assert {row["key"] for row in rows} == {*keys} and len(keys) == 3
    assert all(row[name] > 0 for row in rows for name in FIELDS)
    assert all(row["measured_with"].startswith("ONNX Runtime 1.") for row in rows)
    assert rows[0]["zlib_mb"] > rows[-1]["zlib_mb"], "zeros pack"
    assert [note for note in notes if "measured" in note] and "measured" in results.answer

    again = rp.run(study(), ray=False)
    assert len(keys) == 3
    assert again.table.equals(results.table, check_metadata=True)


def test_a_study_that_was_not_measured_is_when_it_goes_on(study, keys, at_once):
    before = rp.run(study(measure=None), ray=False)
    assert not measured_rows(before)
    after = rp.run(study(), ray=False)
    assert len(measured_rows(after)) == 4 and len(keys) == 3
    assert after.comparison.summary.executed_epochs == 0


def test_what_was_interrupted_goes_on_with_the_rest(study, keys, at_once):
    def stop(progress):
        if any("2 of 3" in note for note in progress.notes):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rp.run(study(), ray=False, on_progress=stop)
    assert len(keys) == 2
    results = rp.run(study(), ray=False)
    assert len(keys) == len({*keys}) == 3
    assert len(measured_rows(results)) == 4


def branching(num_classes, in_channels):
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(784, num_classes)

        def forward(self, images):
            out = self.linear(images.flatten(1))
            return out if self.training or out.sum() > 0 else -out

    return Branching()


def test_what_cannot_be_measured_is_said_and_fails_nothing(study, caplog):
    results = rp.run(study({"target": f"{__name__}:branching"}), ray=False)
    assert not results.errors and not measured_rows(results)
    assert [r.message for r in caplog.records if "could not be measured" in r.message] == [
        m for m in caplog.messages if m.startswith("the dense network of 0 and 2 more could not")
    ]
    assert "not measured" in results.answer


@pytest.mark.slow
def test_a_process_that_is_killed_is_started_again(study, monkeypatch):
    opened = []
    opening = process_module.RuntimeProcess.open

    def open_and_die(self, *arguments):
        opened.append(arguments)
        if len(opened) == 2:
            os.kill(self._child.pid, 9)
        return opening(self, *arguments)

    monkeypatch.setattr(process_module.RuntimeProcess, "open", open_and_die)
    space = {"prune.sparsity": {"grid": [0.9]}}
    assert len(measured_rows(rp.run(study(space=space), ray=False))) == 2


def test_a_limit_chooses_among_what_was_measured(study, at_once):
    results = rp.run(study(within={"file_mb": 1e-3}), ray=False)
    assert "within 0.001 MB" in results.answer
    assert not any(map(results.comparison.is_within_limits, results.settings))


def test_a_runtime_that_is_not_here_is_told_before_anything_runs(study):
    with pytest.raises(ValueError, match=r"search\.measure\.runtime mnn needs MNN\. Run: pip"):
        rp.run(study(measure="mnn"), ray=False)
