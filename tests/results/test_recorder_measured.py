"""What a recorder says is to be measured, and how what was measured gets into the table."""

from dataclasses import asdict, replace

import made_studies as made
import pytest
from made_records import record

from rayprune.config import Study
from rayprune.results.measurement import write_measurement
from rayprune.results.progress import StageProgress, StudyProgress
from rayprune.results.recorder import Recorder
from rayprune.results.stages import save_stage
from rayprune.results.table import measurements_in, read_metadata, read_table
from rayprune.trials import make_trials

MADE = made.measurement()
DONE = StageProgress("done", 2, {"val_accuracy": 0.5})


@pytest.fixture
def study(tmp_path):
    """Four trials that share a dense run."""
    space = {"retrain.epochs": {"grid": [1, 2]}, "prune.cycles": {"grid": [1, 2]}}
    fields = {"name": "s", "search": {"space": space, "measure": "mnn"}, "storage": str(tmp_path)}
    return Study.model_validate(fields)


def with_search(study, **search):
    fields = study.model_dump(mode="json")
    fields["search"].update(search)
    return Study.model_validate(fields)


def keep(study, trials):
    """Make trials durable; their stages as progress."""
    for trial in trials:
        chain = []
        for stage in trial.plan:
            metrics = {"val_accuracy": 0.5}
            chain.append(record(key=stage.key, cycle=stage.cycle, metrics=metrics))
            save_stage(study.storage, stage.key, b"weights", chain)
    return {stage.key: DONE for trial in trials for stage in trial.plan}


def keys(recorder):
    return [key for key, _ in recorder.unmeasured]


def measured(study, recorder):
    """What the study does at its end, with numbers that differ."""
    for number, key in enumerate(keys(recorder)):
        found = replace(MADE, latency_ms=1.0 + number)
        write_measurement(study.storage, key, study.search.measure, found)
        recorder.add_measured(key, found)


def test_finished_trials_and_their_dense_runs_are_measured_each_once(study):
    trials = make_trials(study)
    recorder = Recorder(study, trials)
    assert recorder.unmeasured == (), "nothing is trained"
    recorder.update(StudyProgress(keep(study, trials[2:3])))
    assert keys(recorder) == [trials[2].plan[0].key, trials[2].key]
    recorder.update(StudyProgress(keep(study, trials)))
    assert keys(recorder) == [trials[0].plan[0].key, *(trial.key for trial in trials)]
    first, *others = recorder.unmeasured
    assert first[1] is trials[0] and [trial for _, trial in others] == list(trials)


def test_a_study_that_does_not_measure_asks_for_nothing(study, monkeypatch):
    plain = with_search(study, measure=None)
    trials = make_trials(plain)
    keep(plain, trials)

    def never(*args):
        raise AssertionError("the storage was asked")

    monkeypatch.setattr("rayprune.results.measurement.read_measurements", never)
    recorder = Recorder(plain, trials)
    assert recorder.unmeasured == () and not recorder.has_work
    table = recorder.write(StudyProgress({}))
    assert "latency_ms" not in table.column_names
    assert Recorder(plain, trials).up_to_date().equals(table)


def test_what_is_left_to_measure_is_work_for_the_next_start(study):
    trials = make_trials(study)
    keep(study, trials)
    recorder = Recorder(study, trials)
    assert recorder.pending == () and recorder.has_work and len(recorder.unmeasured) == 5
    recorder.write_study()
    recorder.write(StudyProgress({}))
    measured(study, recorder)
    assert recorder.unmeasured == () and not recorder.has_work
    # Killed before the table was written: the next start knows, and does not take the old table.
    again = Recorder(study, trials)
    assert not again.has_work and again.up_to_date() is None
    table = again.write(StudyProgress({}))
    last = Recorder(study, trials)
    assert not last.has_work and last.up_to_date().equals(table, check_metadata=True)


def test_the_table_has_them_in_final_and_dense_rows(study):
    trials = make_trials(study)
    recorder = Recorder(study, trials)
    stages = keep(study, trials[:3])
    recorder.update(StudyProgress(stages))
    measured(study, recorder)
    rows = recorder.write(StudyProgress(stages)).to_pylist()
    for row in rows:
        has_one = row["is_final"] or row["cycle"] == 0
        assert (row["latency_ms"] is not None) == has_one
        if has_one:
            assert {name: row[name] for name in asdict(MADE)}.keys() == asdict(MADE).keys()
    final = {row["trial"]: row["latency_ms"] for row in rows if row["is_final"]}
    assert final == {"0": 2.0, "1": 3.0, "2": 4.0}
    assert {row["latency_ms"] for row in rows if row["cycle"] == 0} == {1.0}
    assert any(row["cycle"] == 1 and not row["is_final"] for row in rows)
    found = measurements_in(read_table(recorder.folder))
    assert found.keys() == {trials[0].plan[0].key, *(trial.key for trial in trials[:3])}
    assert found[trials[2].key] == replace(MADE, latency_ms=4.0)


def test_what_is_told_while_nothing_ends_is_written_too(study, monkeypatch):
    monkeypatch.setattr("rayprune.results.recorder.REST", 0.0)
    trials = make_trials(study)
    recorder = Recorder(study, trials)
    stages = keep(study, trials)
    recorder.update(StudyProgress(stages))
    assert measurements_in(read_table(recorder.folder)) == {}
    recorder.add_measured(trials[1].key, MADE)
    recorder.update(StudyProgress(stages, changed=()))
    assert measurements_in(read_table(recorder.folder)) == {trials[1].key: MADE}


def test_what_a_damaged_file_said_is_measured_again(study, tmp_path):
    trials = make_trials(study)
    keep(study, trials)
    recorder = Recorder(study, trials)
    measured(study, recorder)
    recorder.write(StudyProgress({}))
    (tmp_path / "stages" / trials[1].key / "measured-mnn-1-1.json").write_text("{")
    again = Recorder(study, trials)
    assert keys(again) == [trials[1].key] and again.up_to_date() is None


def test_a_study_that_measures_later_or_otherwise_goes_on(study):
    """What decides on its trials is the same: nothing is trained again."""
    plain = with_search(study, measure=None)
    trials = make_trials(plain)
    keep(plain, trials)
    before = Recorder(plain, trials)
    before.write_study()
    old = before.write(StudyProgress({}))
    recorder = Recorder(study, make_trials(study))
    assert recorder.pending == () and len(recorder.unmeasured) == 5
    assert recorder.up_to_date() is None
    measured(study, recorder)
    recorder.write_study()
    recorder.write(StudyProgress({}))
    limited = with_search(study, within={"latency_ms": 2})
    after = Recorder(limited, trials)
    assert not after.has_work and after.up_to_date() is None
    summary, _ = read_metadata(after.write(StudyProgress({})))
    assert (summary.measure, summary.within) == ("mnn, 1 thread, batch 1", {"latency_ms": 2.0})
    after.write_study()
    wider = Recorder(with_search(study, measure={"runtime": "mnn", "threads": 2}), trials)
    assert len(wider.unmeasured) == 5 and wider.up_to_date() is None
    again = Recorder(plain, trials)
    assert not again.has_work and again.write(StudyProgress({})).equals(old)


def test_a_searcher_goes_on_too(tmp_path):
    search = {
        "algorithm": "optuna",
        "num_samples": 2,
        "space": {"optim.lr": {"log_uniform": [0.01, 1]}},
    }
    study = Study.model_validate({"name": "s", "search": search, "storage": str(tmp_path)})
    recorder = Recorder(study, [])
    recorder.write_study()
    for lr in (0.1, 0.2):
        recorder.propose({"optim.lr": lr}, None)
    recorder.write(StudyProgress(keep(study, recorder.trials)))
    asking = with_search(study, measure="mnn", within={"file_mb": 1})
    assert len(Recorder(asking, []).unmeasured) == 4


def test_tries_are_not_measured(tmp_path):
    search = {
        "space": {"retrain.epochs": {"grid": [1, 2]}},
        "tune": {"tries": 2, "seeds": [9], "space": {"optim.lr": {"log_uniform": [0.01, 1]}}},
        "seeds": [0, 1],
        "measure": "mnn",
    }
    study = Study.model_validate({"name": "s", "search": search, "storage": str(tmp_path)})
    tries = make_trials(study)
    keep(study, tries)
    recorder = Recorder(study, tries)
    assert recorder.unmeasured == ()
    keep(study, recorder.trials[4:])
    whole = Recorder(study, tries)
    assert {trial.phase for _, trial in whole.unmeasured} == {"report"}
    assert {trial.key for trial in whole.trials[4:]} <= {*keys(whole)}


def test_a_dense_run_that_was_cut_is_measured_whole(study):
    cut = with_search(study, space={"prune.rewind.epoch": {"grid": [1]}})
    trials = make_trials(cut)
    keep(cut, trials)
    (trial,) = trials
    dense = [stage.key for stage in trial.plan if stage.is_dense and stage.part_of is None]
    assert keys(Recorder(cut, trials)) == [*dense, trial.key] and len(trial.plan) == 3
