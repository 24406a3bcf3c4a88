"""What a searcher has proposed is written down before it is run, and found by the next start."""

from dataclasses import replace

import numpy as np
import pytest
from made_records import record

from rayprune.config import Study
from rayprune.results.files import proposed_file
from rayprune.results.outcome import TrialStatus
from rayprune.results.progress import StageProgress, StudyProgress
from rayprune.results.proposed import Proposal, read_proposals, write_proposals
from rayprune.results.recorder import Recorder
from rayprune.results.stages import save_stage
from rayprune.results.storage import StorageError, write_bytes
from rayprune.results.table import read_metadata, read_table

LR = "optim.lr"
PROPOSALS = (
    Proposal("0", {LR: 0.0123456789012345, "way": None, "dense.milestones": [0.5]}, None),
    Proposal("1", {LR: 0.1, "way": "two", "dense.milestones": [0.3]}, 5),
)


def study_in(folder, **search):
    fields = {"algorithm": "optuna", "space": {LR: {"uniform": [0.01, 1.0]}}, "num_samples": 4}
    search = {**fields, **search}
    return Study.model_validate({"name": "s", "search": search, "storage": str(folder)})


@pytest.fixture
def study(tmp_path):
    return study_in(tmp_path)


def begun(study):
    """A recorder whose study is written, as by a start."""
    recorder = Recorder(study, ())
    recorder.write_study()
    return recorder


def finish(study, trial):
    """Make all stages of a trial durable; return how they stand."""
    chain = []
    for stage in trial.plan:
        chain.append(record(key=stage.key, cycle=stage.cycle))
        save_stage(study.storage, stage.key, b"weights", chain)
    return {stage.key: StageProgress("done", stage.epochs) for stage in trial.plan}


# ---- the file ----


def test_what_is_written_is_read_to_the_last_bit(tmp_path):
    write_proposals(str(tmp_path), PROPOSALS)
    assert read_proposals(str(tmp_path)) == PROPOSALS
    assert read_proposals(str(tmp_path / "nowhere")) == ()


def test_numbers_of_a_library_are_numbers(tmp_path):
    point = {LR: np.float64(0.1), "retrain.epochs": np.int64(3), "way": np.str_("two")}
    write_proposals(str(tmp_path), [Proposal("0", point, 1)])
    (read,) = read_proposals(str(tmp_path))
    assert read.point == {LR: 0.1, "retrain.epochs": 3, "way": "two"}
    assert [type(value) for value in read.point.values()] == [float, int, str]


@pytest.mark.parametrize("content", [b"", b"[{", b"{}", b'[{"name": "0"}]', b"\xff"])
def test_a_damaged_file_is_a_warning_and_the_search_begins_anew(tmp_path, content, caplog):
    write_bytes(proposed_file(str(tmp_path)), content)
    assert read_proposals(str(tmp_path)) == ()
    assert "the search begins anew" in caplog.text


# ---- the recorder ----


def test_a_proposal_is_written_before_its_trial_is_returned(study, monkeypatch):
    recorder = begun(study)
    trial = recorder.propose({LR: 0.3}, None)
    assert (trial.name, trial.values, trial.experiment.optim.lr) == ("0", {LR: 0.3}, 0.3)
    assert read_proposals(recorder.folder) == (Proposal("0", {LR: 0.3}, None),)

    def full(*arguments):
        raise StorageError("the disk is full")

    monkeypatch.setattr("rayprune.results.recorder.write_proposals", full)
    with pytest.raises(StorageError):
        recorder.propose({LR: 0.4}, None)
    assert recorder.trials == [trial], "what is not written is not run"
    assert [proposal.name for proposal in recorder.proposals] == ["0"]


def test_names_are_numbers_as_wide_as_all_that_will_come(tmp_path):
    recorder = begun(study_in(tmp_path, num_samples=6, seeds=[7, 8]))
    trials = [recorder.propose({LR: 0.3}, seed) for seed in (7, 8)]
    assert [trial.name for trial in trials] == ["00", "01"]
    assert [trial.values for trial in trials] == [{LR: 0.3, "seed": 7}, {LR: 0.3, "seed": 8}]


def test_the_next_start_finds_the_trials_and_what_became_of_them(study):
    first = begun(study)
    trials = [first.propose({LR: lr}, None) for lr in (0.1, 0.2, -1.0)]
    finish(study, trials[0])
    assert trials[2].mistake
    second = Recorder(study, ())
    assert second.trials == trials and second.proposals == first.proposals
    assert [trial.name for trial in second.pending] == ["1"]
    assert second.found.keys() == {stage.key for stage in trials[0].plan}
    assert second.propose({LR: 0.4}, None).name == "3"


def test_there_is_work_until_all_are_proposed_and_over(study):
    recorder = begun(study)
    assert recorder.has_work, "nothing was proposed so far"
    for lr in (0.1, 0.2, 0.3):
        finish(study, recorder.propose({LR: lr}, None))
    assert Recorder(study, ()).has_work, "one is to be proposed"
    last = recorder.propose({LR: 0.4}, None)
    assert Recorder(study, ()).has_work, "one is to be run"
    finish(study, last)
    assert not Recorder(study, ()).has_work


def test_a_search_may_grow_by_samples_and_by_seeds(study, tmp_path):
    recorder = begun(study)
    for lr in (0.1, 0.2, 0.3, 0.4):
        finish(study, recorder.propose({LR: lr}, None))
    grown = Recorder(study_in(tmp_path, num_samples=5), ())
    assert grown.has_work and grown.trials == recorder.trials and grown.pending == ()
    with_seeds = study_in(tmp_path, seeds=[0, 1])
    grown = Recorder(with_seeds, ())
    for point in [proposal.point for proposal in recorder.proposals]:
        assert grown.has_work, "what was run without these seeds does not count"
        for seed in (0, 1):
            finish(with_seeds, grown.propose(point, seed))
    assert not grown.has_work


def test_the_table_has_what_is_proposed_while_it_runs(study, monkeypatch):
    monkeypatch.setattr("rayprune.results.recorder.REST", 0.0)
    recorder = begun(study)
    recorder.update(StudyProgress({}))
    wrong, good = (recorder.propose({LR: lr}, None) for lr in (-1.0, 0.1))
    recorder.update(StudyProgress({}, changed=()))
    recorder.update(StudyProgress(finish(study, good)))
    table = read_table(recorder.folder)
    assert [(s.status, s.reason) for s in read_metadata(table)[1]] == [
        ("infeasible", wrong.mistake),
        ("finished", ""),
    ]
    assert {row["trial"] for row in table.to_pylist()} == {"1"}, "no stage of the other was run"


def test_what_a_scheduler_stopped_stays_stopped(tmp_path):
    study = study_in(tmp_path, scheduler="asha")
    first = begun(study)
    trials = [first.propose({LR: lr}, None) for lr in (0.1, 0.2)]
    gone = TrialStatus(name="0", status="stopped", reason="worse", reported=({"goal": 1.0},))
    first.write(StudyProgress({}, given_up={"0": gone}))
    second = Recorder(study, ())
    assert second.stopped == {"0": replace(gone, key=trials[0].key)}
    assert [trial.name for trial in second.pending] == ["1"]
