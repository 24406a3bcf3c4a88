"""What is on disk is true at any time: finished, failed, stopped or unfinished, and why."""

from dataclasses import replace

import pytest
import yaml
from made_records import record

from rayprune.config import ConfigError, Scaling, Study, load_study
from rayprune.results.outcome import TrialStatus
from rayprune.results.progress import StageProgress, StudyProgress
from rayprune.results.recorder import Recorder
from rayprune.results.stages import save_stage
from rayprune.results.statuses import NOT_YET
from rayprune.results.storage import StorageError
from rayprune.results.table import read_metadata, read_table
from rayprune.trials import make_trials


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch):
    monkeypatch.setattr("rayprune.results.recorder.REST", 0.0)


DONE = StageProgress("done", 2, {"val_accuracy": 0.5})


@pytest.fixture
def study(tmp_path):
    """Four trials that share a dense run: two budgets, each in one cycle and in two."""
    space = {"retrain.epochs": {"grid": [1, 2]}, "prune.cycles": {"grid": [1, 2]}}
    fields = {"name": "s", "search": {"space": space}, "storage": str(tmp_path)}
    return Study.model_validate(fields)


def keep(study, stage, chain=()):
    """Make a stage durable, as a worker does."""
    records = [*chain, record(key=stage.key, cycle=stage.cycle)]
    save_stage(study.storage, stage.key, b"weights", records)
    return records


def keep_all(study, trials):
    for trial in trials:
        chain = []
        for stage in trial.plan:
            chain = keep(study, stage, chain)


def statuses(study):
    return {s.name: s.status for s in read_metadata(read_table(f"{study.storage}/s"))[1]}


def test_a_table_that_is_read_while_a_study_runs_says_unfinished(study):
    trials = make_trials(study)
    recorder = Recorder(study, trials)
    keep(study, trials[0].plan[1], keep(study, trials[0].plan[0]))
    stages = {stage.key: DONE for stage in trials[0].plan}
    recorder.update(StudyProgress(stages))
    assert statuses(study) == {"0": "finished"} | dict.fromkeys("123", "unfinished")
    rows = read_table(recorder.folder).to_pylist()
    assert {row["trial"] for row in rows if row["is_final"]} == {"0"}
    assert {row["trial"] for row in rows} == {"0", "1", "2", "3"}, "the dense run is there for all"
    reasons = {s.reason for s in read_metadata(read_table(recorder.folder))[1] if s.reason}
    assert reasons == {NOT_YET}


def test_every_end_has_its_status_and_reason(study):
    trials = make_trials(study)
    recorder = Recorder(study, trials)
    recorder.write(StudyProgress({}))
    keep_all(study, trials[:1])
    gone = TrialStatus(name="2", status="stopped", reason="worse than others")
    stages = {stage.key: DONE for stage in trials[0].plan}
    stages[trials[1].plan[1].key] = StageProgress("failed", error="it diverged")
    recorder.update(StudyProgress(stages, given_up={"2": gone}))
    _, found = read_metadata(read_table(recorder.folder))
    keys = [trial.plan[-1].key for trial in trials]
    assert found == (
        TrialStatus(name="0", status="finished", key=keys[0]),
        TrialStatus(name="1", status="failed", reason="it diverged", key=keys[1]),
        replace(gone, key=keys[2]),
        TrialStatus(name="3", status="unfinished", reason=NOT_YET, key=keys[3]),
    )


def test_nothing_is_written_while_nothing_ends(study, monkeypatch):
    recorder = Recorder(study, make_trials(study))
    recorder.write(StudyProgress({}))
    written = []
    monkeypatch.setattr("rayprune.results.recorder.write_table", lambda *a: written.append(a))
    dense = recorder.trials[0].plan[0].key
    for epochs in range(3):
        recorder.update(StudyProgress({dense: StageProgress("running", epochs)}))
    assert written == []


def test_what_was_finished_before_is_not_pending(study):
    trials = make_trials(study)
    keep_all(study, trials[:2])
    recorder = Recorder(study, trials)
    assert [trial.name for trial in recorder.pending] == ["2", "3"]
    assert recorder.found.keys() == {stage.key for trial in trials[:2] for stage in trial.plan}


def test_a_finished_study_is_up_to_date_until_it_changes(study):
    trials = make_trials(study)
    keep_all(study, trials)
    recorder = Recorder(study, trials)
    assert recorder.pending == () and recorder.up_to_date() is None
    table = recorder.write(StudyProgress({}))
    assert Recorder(study, trials).up_to_date().equals(table)
    fewer = study.model_copy(update={"search": study.search.model_copy(update={"seeds": (0,)})})
    assert Recorder(fewer, make_trials(fewer)).up_to_date() is None, "it has another column"


def test_an_unfinished_table_is_not_up_to_date(study):
    trials = make_trials(study)
    Recorder(study, trials).write(StudyProgress({}))
    keep_all(study, trials)
    assert Recorder(study, trials).up_to_date() is None


def test_the_study_is_written_as_it_was_resolved(study):
    recorder = Recorder(study, make_trials(study))
    recorder.write_study()
    with open(f"{recorder.folder}/study.yaml") as file:
        assert yaml.safe_load(file)["storage"] == study.storage
    assert load_study(f"{recorder.folder}/study.yaml") == study


def test_a_failing_write_is_a_warning_and_tried_again_each_time(study, monkeypatch, caplog):
    tried = []

    def failing(folder, table):
        tried.append(folder)
        raise OSError("503")

    recorder = Recorder(study, make_trials(study))
    with monkeypatch.context() as patched:
        patched.setattr("rayprune.results.recorder.write_table", failing)
        for _ in range(3):
            recorder.update(StudyProgress({}, changed=()))
    assert len(tried) == 3 and len(caplog.records) == 1 and "503" in caplog.text
    recorder.update(StudyProgress({}, changed=()))
    assert set(statuses(study).values()) == {"unfinished"}


def test_after_a_write_the_table_rests_and_then_says_all(study, monkeypatch):
    now = 100.0
    monkeypatch.setattr("rayprune.results.recorder.REST", 20.0)
    monkeypatch.setattr("rayprune.results.recorder.time.monotonic", lambda: now)
    trials = make_trials(study)
    recorder = Recorder(study, trials)
    written = []

    def take_a_second(folder, table):
        nonlocal now
        now += 1
        written.append([s.status for s in read_metadata(table)[1]].count("finished"))

    monkeypatch.setattr("rayprune.results.recorder.write_table", take_a_second)
    states = {}
    for trial in trials:
        states[trial.plan[-1].key] = DONE
        recorder.update(StudyProgress(states, changed=[trial.plan[-1].key]))
        now += 0.5
    assert written == [1]
    now += 20
    recorder.update(StudyProgress(states, changed=()))
    assert written == [1, 4]
    recorder.write(StudyProgress(states))
    assert written == [1, 4, 4], "the last word waits for nothing"


# ---- trials that early stopping gave up ----

STOPPING = {"scheduler": {"name": "asha", "grace_period": 1}}
GONE = TrialStatus(name="2", status="stopped", reason="worse than others")


def with_search(study, **search):
    fields = study.model_dump(mode="json")
    fields["search"].update(search)
    return Study.model_validate(fields)


def stop_one(study):
    """A start that finishes trials 0 and 1, and in which trial 2 is stopped after its dense run."""
    trials = make_trials(study)
    recorder = Recorder(study, trials)
    recorder.write_study()
    keep_all(study, trials[:2])
    stages = {stage.key: DONE for trial in trials[:2] for stage in trial.plan}
    recorder.write(StudyProgress(stages, given_up={"2": GONE}))
    return recorder


def test_what_early_stopping_gave_up_stays_so_and_its_rows_too(study):
    study = with_search(study, **STOPPING)
    first = stop_one(study)
    recorder = Recorder(study, make_trials(study))
    assert recorder.stopped == {"2": replace(GONE, key=first.trials[2].plan[-1].key)}
    assert [trial.name for trial in recorder.pending] == ["3"]
    keep_all(study, first.trials[3:])
    recorder.write(StudyProgress({stage.key: DONE for stage in first.trials[3].plan}))
    assert statuses(study) == dict.fromkeys("013", "finished") | {"2": "stopped"}
    table = read_table(recorder.folder)
    assert [row["cycle"] for row in table.to_pylist() if row["trial"] == "2"] == [0]
    last = Recorder(study, make_trials(study))
    assert last.pending == () and last.up_to_date().equals(table)


def test_it_stays_so_under_the_name_that_a_grown_study_gives_it(study):
    study = with_search(study, **STOPPING)
    stop_one(study)
    space = {"retrain.epochs": {"grid": [3, 1, 2]}, "prune.cycles": {"grid": [1, 2]}}
    grown = with_search(study, space=space)
    recorder = Recorder(grown, make_trials(grown))
    (name,) = recorder.stopped
    assert name == recorder.stopped[name].name == "4"
    assert [trial.name for trial in recorder.pending] == ["0", "1", "5"]


@pytest.mark.parametrize(
    "search",
    [
        {"scheduler": {"name": "asha", "grace_period": 2}},
        {"scheduler": None},
        {"metric": "val_loss"},
    ],
)
def test_under_another_rule_it_is_run_after_all(search, study, monkeypatch):
    study = with_search(study, **STOPPING)
    stop_one(study)
    changed = with_search(study, **search)
    recorder = Recorder(changed, make_trials(changed))
    assert recorder.stopped == {} and [t.name for t in recorder.pending] == ["2", "3"]
    # Killed as soon as study.yaml says the new rule: the table does not say that it stopped.
    recorder.write_study()
    again = Recorder(changed, make_trials(changed))
    assert again.stopped == {} and [t.name for t in again.pending] == ["2", "3"]


def test_what_another_trial_has_finished_is_finished(study):
    study = with_search(study, **STOPPING)
    trials = stop_one(study).trials
    keep_all(study, trials[2:3])
    recorder = Recorder(study, trials)
    assert recorder.stopped == {} and [t.name for t in recorder.pending] == ["3"]


# ---- another study under the same name ----


def test_another_study_replaces_the_table_only_by_force(study):
    keep_all(study, make_trials(study))
    first = Recorder(study, make_trials(study))
    first.write_study()
    table = first.write(StudyProgress({}))
    other = with_search(study, space={"retrain.epochs": {"grid": [2, 3]}})
    with pytest.raises(ConfigError, match=r"s in .*/s is another study: 3 of its 4 trials"):
        Recorder(other, make_trials(other))
    assert read_table(first.folder).equals(table, check_metadata=True)
    recorder = Recorder(other, make_trials(other), force=True)
    assert recorder.up_to_date() is None
    assert [trial.name for trial in recorder.pending] == ["1"], "what was finished is shared"
    recorder.write_study()
    assert Recorder(other, make_trials(other)).folder == first.folder


def test_a_forced_study_of_the_same_trials_goes_on(study):
    study = with_search(study, **STOPPING)
    stop_one(study)
    assert list(Recorder(study, make_trials(study), force=True).stopped) == ["2"]


# ---- the same study under other conditions ----


def test_what_other_workers_made_is_not_handed_out_and_that_is_said(study, caplog):
    keep_all(study, make_trials(study))
    first = Recorder(study, make_trials(study))
    first.write_study()
    first.write(StudyProgress({}))
    wider = study.model_copy(update={"scaling": Scaling(workers=2)})
    recorder = Recorder(wider, make_trials(wider))
    assert len(recorder.pending) == 4 and recorder.found == {}
    assert "4 finished trials of this study came from other workers" in caplog.text
    # Also where the study has grown meanwhile: it is the same one still.
    space = {"retrain.epochs": {"grid": [1, 2, 3]}, "prune.cycles": {"grid": [1, 2]}}
    grown = with_search(wider, space=space)
    assert len(Recorder(grown, make_trials(grown)).pending) == 6
    caplog.clear()
    assert Recorder(study, make_trials(study)).pending == () and caplog.text == ""


# ---- a study that tunes ----


@pytest.fixture
def tuned(tmp_path):
    """Two settings with two tries each, and two seeds to report on: four tries, four reports."""
    search = {
        "space": {"retrain.epochs": {"grid": [1, 2]}},
        "tune": {"tries": 2, "seeds": [9], "space": {"optim.lr": {"log_uniform": [0.01, 1]}}},
        "seeds": [0, 1],
    }
    return Study.model_validate({"name": "s", "search": search, "storage": str(tmp_path)})


def finish(study, trial, accuracy=0.5):
    """Make a trial durable with that result; its stages as progress."""
    chain = []
    for stage in trial.plan:
        metrics = {"val_accuracy": accuracy}
        fields = {"key": stage.key, "cycle": stage.cycle, "metrics": metrics}
        chain.append(record(**fields, sparsity=stage.sparsity))
        save_stage(study.storage, stage.key, b"weights", chain)
    return {stage.key: DONE for stage in trial.plan}


def names(trials):
    return [trial.name for trial in trials]


def test_a_setting_is_reported_once_all_its_tries_are_over(tuned):
    tries = make_trials(tuned)
    recorder = Recorder(tuned, tries)
    assert names(recorder.pending) == list("0123") and not recorder.is_whole
    stages = finish(tuned, tries[1], 0.9)
    recorder.update(StudyProgress(stages))
    assert recorder.grow() == []
    stages |= finish(tuned, tries[0], 0.8)
    recorder.update(StudyProgress(stages))
    assert names(recorder.grow()) == ["4", "5"] == names(recorder.trials[4:])
    assert {t.values["optim.lr"] for t in recorder.trials[4:]} == {tries[1].values["optim.lr"]}
    assert recorder.grow() == [] and recorder.has_work
    # A try that failed, and the other one: what is left is chosen.
    failed = {tries[2].plan[0].key: StageProgress("failed", error="no")}
    recorder.update(StudyProgress(stages | finish(tuned, tries[3]) | failed))
    assert names(recorder.grow()) == ["6", "7"] and recorder.is_whole


def test_a_second_start_makes_the_same_choice_and_runs_what_is_missing(tuned, caplog):
    tries = make_trials(tuned)
    for number, trial in enumerate(tries):
        finish(tuned, trial, 0.5 + number / 10)
    recorder = Recorder(tuned, tries)
    assert names(recorder.pending) == list("4567") and recorder.is_whole
    finish(tuned, recorder.trials[5])
    again = Recorder(tuned, tries)
    assert names(again.pending) == list("467")
    assert again.trials == recorder.trials
    for trial in recorder.pending:
        finish(tuned, trial)
    last = Recorder(tuned, tries)
    assert not last.has_work
    rows = last.write(StudyProgress({})).to_pylist()
    finals = [row for row in rows if row["is_final"]]
    assert [row["phase"] for row in finals] == ["tune"] * 4 + ["report"] * 4
    last.write_study()
    assert not Recorder(tuned, tries).has_work
    assert caplog.text == "", "what was chosen was not made otherwise"
    wider = tuned.model_copy(update={"scaling": Scaling(workers=2)})
    assert len(Recorder(wider, make_trials(wider)).pending) == 4
    assert "4 finished trials of this study came from other workers" in caplog.text


def test_a_setting_without_a_try_that_ended_well_is_not_reported(tuned, caplog):
    tries = make_trials(tuned)
    recorder = Recorder(tuned, tries)
    failed = {t.key: StageProgress("failed", error="no") for t in tries[:2]}
    stages = failed | finish(tuned, tries[2]) | finish(tuned, tries[3])
    recorder.update(StudyProgress(stages))
    assert names(recorder.grow()) == ["6", "7"] and recorder.is_whole
    assert "no try of epochs=1 ended with a result" in caplog.text


class Watched(list):
    """A list that calls somebody just before it gets longer."""

    def __init__(self, values, call):
        super().__init__(values)
        self.call = call

    def __iadd__(self, values):
        if values:
            self.call()
        self.extend(values)
        return self


def test_a_study_is_whole_only_once_its_last_trials_are_there(tuned):
    """Tune asks from a thread of its own, and ends for good where a study is whole."""
    tries = make_trials(tuned)
    recorder, seen = Recorder(tuned, tries), []
    recorder.trials = Watched(tries, lambda: seen.append(recorder.is_whole))
    recorder.update(StudyProgress({k: v for t in tries for k, v in finish(tuned, t).items()}))
    assert len(recorder.grow()) == 4 and seen == [False, False] and recorder.is_whole


def test_what_was_chosen_outlasts_trouble_of_the_storage(tuned, monkeypatch):
    tries = make_trials(tuned)
    recorder, find = Recorder(tuned, tries), Recorder._find
    recorder.update(StudyProgress({k: v for t in tries for k, v in finish(tuned, t).items()}))

    def cut_off(self, key):
        if key == tries[2].key:
            raise StorageError("the server does not answer")
        return find(self, key)

    monkeypatch.setattr(Recorder, "_find", cut_off)
    assert names(recorder.grow()) == ["4", "5"]
    with pytest.raises(StorageError):
        recorder.grow()
    monkeypatch.setattr(Recorder, "_find", find)
    assert names(recorder.grow()) == ["6", "7"] and names(recorder.pending) == list("01234567")


def test_a_try_that_was_given_up_is_not_waited_for(tuned):
    """Its Ray Tune process died again and again: the study would never end."""
    tries = make_trials(tuned)
    recorder = Recorder(tuned, tries)
    stages = {k: v for trial in tries[:3] for k, v in finish(tuned, trial).items()}
    recorder.update(StudyProgress(stages))
    assert names(recorder.grow()) == ["4", "5"] and not recorder.is_whole
    lost = TrialStatus(name="3", status="unfinished", reason="its process died")
    recorder.update(StudyProgress(stages, given_up={"3": lost}))
    assert names(recorder.grow()) == ["6", "7"] and recorder.is_whole
