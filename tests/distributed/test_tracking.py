"""Trackers hear of everything once, and break nothing; here what is common, and TensorBoard."""

import importlib.util
import logging
import os
import threading
import time

import pytest
from made_object_store import object_store
from made_results import PLAN, MadeTrial, result, tell
from tensorboardX.proto.event_pb2 import Event

from rayprune.config import ConfigError, Study
from rayprune.distributed.tracking import check_tracking, finish_trackers, make_trackers
from rayprune.distributed.tracking.runs import Runs, end_of
from rayprune.distributed.tracking.tensorboard import TensorBoard
from rayprune.distributed.tracking.tracker import Log, Tracker
from rayprune.distributed.trial import IS_FINAL
from rayprune.results.files import tensorboard_file
from rayprune.results.storage import read_bytes

STUDY = Study(name="s")


class Heard(Log):
    """A logger that remembers, knows what earlier starts logged, and may be broken."""

    def __init__(self, logged=None, broken=()):
        self.calls, self._logged, self._broken = [], logged or {}, broken

    def setup(self):
        self._call("setup")

    def logged(self, run):
        return self._logged

    def log_trial_start(self, trial):
        self._call("start", trial.config["trial"])

    def log_trial_result(self, iteration, trial, result):
        self._call("result", result)

    def end(self, trial, end):
        self._call("end", trial.config["trial"], end.status, end.reason)

    def log_files(self, trial, folder):
        self._call("files", trial.config["trial"], sorted(os.listdir(folder)))

    def _call(self, *what):
        self.calls.append(what)
        if what[0] in self._broken:
            raise OSError(f"{what[0]} is broken\nand more")

    @property
    def points(self):
        """(step, metric) of everything that was logged."""
        told = [call[1] for call in self.calls if call[0] == "result"]
        return [(r["training_iteration"], m) for r in told for m in r if m != "training_iteration"]


@pytest.fixture
def heard():
    return Heard()


@pytest.fixture
def tracker(heard):
    return begun(heard)


def begun(heard, folder="/f"):
    made = Tracker("made", lambda: heard, Runs(STUDY, folder))
    made.setup()
    return made


# ---- what every tracker hears ----


def test_a_trial_is_heard_of_in_order_and_as_numbers_without_tunes_own(tracker, heard, tmp_path):
    tell([tracker], MadeTrial("0", tmp_path, x=1), PLAN)
    tracker.finish(5)
    assert [call[0] for call in heard.calls] == ["setup", "start", *["result"] * 4, "end"]
    assert heard.calls[2][1] == {
        "training_iteration": 1,
        "val_accuracy": 0.51,
        "val_loss": 1.0,
    }
    assert heard.calls[-1] == ("end", "0", "FINISHED", "")


def test_what_a_trial_reports_again_is_heard_once(tracker, heard, tmp_path):
    """As one whose process died, and was started again."""
    trial = MadeTrial("0", tmp_path, x=1)
    tell([tracker], trial, PLAN[:3], end=None)
    tell([tracker], trial, PLAN)
    tracker.finish(5)
    assert len(heard.points) == len(set(heard.points)) == 4 * 2 + 2 * 2
    assert [call[0] for call in heard.calls].count("start") == 1


def test_what_comes_late_for_a_step_is_heard(tracker, heard, tmp_path):
    trial = MadeTrial("0", tmp_path, x=1)
    tell([tracker], trial, [result(1), result(1, ends_stage=True)])
    tracker.finish(5)
    assert heard.calls[3][1] == {"training_iteration": 1, "test_accuracy": 0.4, "num_nonzero": 10}


def test_what_an_earlier_start_has_logged_is_not_heard_again(tmp_path):
    heard = Heard(logged={"val_accuracy": 3, "val_loss": 3})
    tracker = begun(heard)
    tell([tracker], MadeTrial("0", tmp_path, x=1), PLAN[:3])
    tracker.finish(5)
    assert heard.points == [(2, "test_accuracy"), (2, "num_nonzero")]
    tell([tracker], MadeTrial("1", tmp_path, x=2), PLAN)
    tracker.finish(5)
    assert (4, "val_loss") in heard.points and (3, "val_loss") not in heard.points


def test_of_two_trials_with_the_same_values_one_is_heard(tracker, heard, tmp_path):
    tell([tracker], MadeTrial("0", tmp_path, x=1), PLAN)
    tell([tracker], MadeTrial("1", tmp_path, x=1), PLAN)
    tracker.finish(5)
    assert {call[1] for call in heard.calls if call[0] in ("start", "end")} == {"0"}


def test_a_failed_trial_says_why_even_without_a_result(tracker, heard, tmp_path):
    trial = MadeTrial("0", tmp_path, x=1)
    tell([tracker], trial, [{"training_iteration": 1, "failed": "it diverged"}])
    tracker.finish(5)
    assert heard.calls[1:] == [("start", "0"), ("end", "0", "FAILED", "it diverged")]


def test_a_trial_that_tune_gave_up_has_failed(tracker, heard, tmp_path):
    tell([tracker], MadeTrial("0", tmp_path, x=1), PLAN[:1], end="on_trial_error")
    tracker.finish(5)
    assert heard.calls[-1][2] == "FAILED" and "died" in heard.calls[-1][3]


def test_a_trial_that_was_stopped_is_told_from_a_finished_one():
    """A scheduler may stop it wherever a result is, at the end of a stage, too."""
    assert end_of(PLAN[-1]).status == "FINISHED"
    assert {end_of(told | {"done": True}).status for told in PLAN[:-1]} == {"KILLED"}
    replayed = {"val_accuracy": 0.5, IS_FINAL: False}
    assert end_of(replayed).status == "KILLED"
    assert end_of(None).status == "FINISHED"


def test_a_run_of_a_list_is_the_same_whatever_the_trial_is_called(tmp_path):
    runs = Runs(STUDY, "/f")
    seven, changed = MadeTrial("7", tmp_path, x=1, y=2), Study(experiment={"batch_size": 6})
    run = runs.of(seven)
    assert run.id == runs.of(MadeTrial("07", tmp_path, y=2, x=1)).id
    assert run.title == "s 7 x=1 y=2"
    others = [
        runs.of(MadeTrial("7", tmp_path, x=1, y=3)),
        Runs(STUDY, "/g").of(seven),
        Runs(changed, "/f").of(seven),
    ]
    assert run.id not in {other.id for other in others}


def test_a_point_that_a_searcher_proposes_twice_is_two_runs_that_later_starts_find(tmp_path):
    search = {"algorithm": "optuna", "space": {"optim.lr": {"uniform": [0.1, 1.0]}}}
    study = Study.model_validate({"name": "s", "search": {**search, "num_samples": 2}})
    first, second = Runs(study, "/f"), Runs(study, "/f")
    one, other = (MadeTrial(name, tmp_path, **{"optim.lr": 0.5}) for name in ("0", "1"))
    assert first.of(one).id != first.of(other).id
    assert [second.of(trial) for trial in (one, other)] == [first.of(one), first.of(other)]


# ---- a tracker in trouble ----


@pytest.mark.parametrize("call", ["setup", "start", "result", "end", "files"])
def test_a_broken_tracker_is_one_warning_and_then_off(call, tmp_path, caplog):
    heard = Heard(broken=[call])
    tracker = begun(heard)
    (tmp_path / "results.parquet").write_bytes(b"t")
    for name in ("0", "1"):
        tell([tracker], MadeTrial(name, tmp_path, x=name), PLAN)
    finish_trackers([tracker], str(tmp_path), "0", timeout_s=5)
    assert [r.message for r in caplog.records] == [
        f"tracking: made is off, the study goes on: {call} is broken"
    ]
    assert [c[0] for c in heard.calls].count(call) == 1


def test_a_tracker_that_cannot_be_made_is_a_warning(caplog):
    tracker = Tracker("made", lambda: 1 / 0, Runs(STUDY, "/f"))
    tracker.setup()
    tracker.finish(5)
    assert [r.message for r in caplog.records] == [
        "tracking: made is off, the study goes on: division by zero"
    ]


def test_a_slow_tracker_does_not_delay_tune_and_the_end_only_so_long(heard, tmp_path, caplog):
    heard.setup = lambda: time.sleep(1)
    tracker, started = begun(heard), time.monotonic()
    tell([tracker], MadeTrial("0", tmp_path, x=1), PLAN)
    assert time.monotonic() - started < 0.5
    tracker.finish(0.1)
    assert "was not told all within 0 s" in caplog.text
    time.sleep(1.2)
    assert heard.calls == []


def test_no_thread_is_left(tracker, tmp_path):
    tell([tracker], MadeTrial("0", tmp_path, x=1), PLAN)
    tracker.finish(5)
    assert not [t for t in threading.enumerate() if "_work" in t.name]


def test_what_tune_writes_down_holds_no_thread(tracker):
    assert tracker.__getstate__() == {}


def test_the_best_trials_files_are_kept_as_far_as_they_are_there(tracker, heard, tmp_path):
    tell([tracker], MadeTrial("0", tmp_path, x=1), PLAN)
    for file in ("best/model.safetensors", "best/provenance.json", "report.html"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(b"content")
    finish_trackers([tracker], str(tmp_path), "0")
    assert heard.calls[-1] == ("files", "0", ["best", "report.html"])
    finish_trackers([tracker], str(tmp_path), None)
    finish_trackers([tracker], str(tmp_path), "never met")
    assert [call[0] for call in heard.calls].count("files") == 1


# ---- what a study names ----


@pytest.mark.parametrize(
    ("tracking", "message"),
    [
        (
            {"name": "mlflow", "uri": "x"},
            "tracking: mlflow has no argument uri. It takes tracking_uri, registry_uri, "
            "experiment_name, tags, tracking_token",
        ),
        ({"name": "wandb", "id": "x"}, "tracking: wandb's id is each trial's own"),
    ],
    ids=["argument", "id"],
)
def test_what_cannot_be_tracked_is_said(tracking, message):
    study = Study.model_validate({"tracking": [tracking]})
    with pytest.raises(ConfigError) as raised:
        check_tracking(study.tracking)
    assert message in str(raised.value)


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_missing_package_is_said(name, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("rayprune.distributed.tracking.find_spec", lambda name: None)
    study = Study.model_validate({"tracking": [name]})
    with pytest.raises(ConfigError) as raised:
        check_tracking(study.tracking)
    assert str(raised.value) == (
        f"tracking: {name} needs the package {name}: pip install 'rayprune[{name}]'"
    )


def test_what_rays_trackers_take_passes():
    tracking = ["mlflow", {"name": "wandb", "project": "p", "mode": "offline", "notes": "n"}]
    check_tracking(Study.model_validate({"tracking": tracking}).tracking)


# ---- TensorBoard ----


def scalars(content):
    """(step, tag, value) of every scalar in an events file."""
    found = []
    while content:
        length = int.from_bytes(content[:8], "little")
        event = Event.FromString(content[12 : 12 + length])
        content = content[16 + length :]
        found += [
            (event.step, v.tag, v.simple_value) for v in event.summary.value if v.simple_value
        ]
    return found


def events(folder, name):
    return scalars(read_bytes(tensorboard_file(folder, name)) or b"")


def start(folder, scratch):
    """Trackers as a start of a study makes them."""
    trackers = make_trackers(STUDY, folder, str(scratch))
    for tracker in trackers:
        tracker.setup()
    return trackers


def check_tensorboard(folder, tmp_path):
    """Two starts, of which the first is interrupted."""
    first, second = start(folder, tmp_path / "a"), start(folder, tmp_path / "b")
    tell(first, MadeTrial("00", tmp_path, x=1), PLAN)
    tell(first, MadeTrial("01", tmp_path, x=2), PLAN[:2], end=None)
    finish_trackers(first, folder, None)
    before = events(folder, "00")
    assert (4, "ray/tune/val_accuracy", pytest.approx(0.54)) in before
    assert len(before) == len(set(before)) > 10
    for name, x in (("00", 1), ("01", 2)):
        tell(second, MadeTrial(name, tmp_path, x=x), PLAN)
    finish_trackers(second, folder, None)
    assert events(folder, "00") == before
    assert [e[:2] for e in events(folder, "01")] == [e[:2] for e in before]


def test_tensorboards_events_are_replaced_by_the_next_start(tmp_path):
    folder = str(tmp_path / "study")
    check_tensorboard(folder, tmp_path)
    files = [os.listdir(f"{folder}/tensorboard/{name}") for name in ("00", "01")]
    assert files == [["events.out.tfevents.0.rayprune"]] * 2


def test_tensorboards_events_go_to_a_bucket(tmp_path):
    with object_store() as store:
        check_tensorboard(f"{store.uri}/study", tmp_path)


def test_running_trials_are_copied_now_and_then_and_at_the_end(tmp_path, monkeypatch):
    folder = str(tmp_path / "study")
    (tracker,) = start(folder, tmp_path / "a")
    trial = MadeTrial("00", tmp_path, x=1)
    tell([tracker], trial, PLAN[:1], end=None)
    tracker.finish(5)
    assert events(folder, "00") == []
    monkeypatch.setattr("rayprune.distributed.tracking.tensorboard.COPY_EVERY_S", 0)
    tell([tracker], trial, PLAN[:3], end=None)
    tracker.finish(5)
    assert events(folder, "00"), "the last ones may not be flushed yet"
    monkeypatch.undo()
    tell([tracker], trial, PLAN, end=None)
    tracker.on_experiment_end([trial])
    tracker.finish(5)
    assert {step for step, _, _ in events(folder, "00")} == {1, 2, 3, 4}


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path, caplog):
    (tmp_path / "study").write_text("a file")
    (tracker,) = start(str(tmp_path / "study"), tmp_path / "a")
    tell([tracker], MadeTrial("00", tmp_path, x=1), PLAN)
    tracker.finish(20)
    (record,) = (r for r in caplog.records if r.levelno == logging.WARNING)
    assert record.message.startswith("tracking: tensorboard is off, the study goes on: cannot writ")
    assert TensorBoard.__mro__[1].__module__.startswith("ray.")
