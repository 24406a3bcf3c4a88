"""What is on disk is true at any time: finished, failed, stopped or unfinished, and why."""

from dataclasses import replace

import pytest
import yaml
from made_records import record

from rayprune.config import Study, load_study
from rayprune.results.outcome import TrialStatus
from rayprune.results.progress import StageProgress, StudyProgress
from rayprune.results.recorder import Recorder
from rayprune.results.stages import save_stage
from rayprune.results.statuses import NOT_YET
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
