"""A study goes on from its folder if it has all trials that it had; else it says what differs."""

import pytest

from rayprune.config import ConfigError, Study
from rayprune.results.earlier import Earlier, check_same, read_earlier, stops_alike
from rayprune.results.progress import StudyProgress
from rayprune.results.recorder import Recorder
from rayprune.trials import make_trials

SPACE = {"retrain.epochs": {"grid": [1, 2]}, "optim.lr": {"log_uniform": [0.01, 0.1]}}


def study(*, experiment=None, **search):
    fields = {"experiment": experiment or {}, "search": {"space": SPACE, **search}}
    return Study.model_validate({"name": "s", **fields})


def refused(there, here):
    with pytest.raises(ConfigError) as caught:
        check_same("folder", there, here, make_trials(here))
    return str(caught.value).split("\n")


@pytest.mark.parametrize(
    "grown",
    [
        study(num_samples=3),
        study(seeds=[0, 1]),
        study(metric="val_loss", scheduler={"name": "asha"}, max_concurrent=2),
        study(space={**SPACE, "retrain.epochs": {"grid": [3, 2, 1]}}),
        study(space={}, spaces=[{"dense.epochs": {"grid": [5]}}, SPACE]),
        study().model_copy(update={"name": "t", "storage": "/elsewhere"}),
    ],
    ids=["samples", "seeds", "ways", "values", "spaces", "places"],
)
def test_a_study_may_grow_and_be_run_in_another_way(grown):
    check_same("folder", study(), grown, make_trials(grown))


def test_another_study_is_refused_with_the_fields_that_differ():
    said = refused(study(), study(experiment={"batch_size": 32, "prune": {"rewind": {"epoch": 3}}}))
    assert said == [
        "study s in folder is another study: 2 of its 2 trials are not in this one",
        "experiment.batch_size: 128 there, 32 here",
        "experiment.prune.rewind.epoch: nothing there, 3 here",
        said[-1],
    ]
    assert "name=…" in said[-1] and "--force" in said[-1] and "kept" in said[-1]


def test_a_study_that_lost_a_value_is_another_one():
    here = study(space={**SPACE, "retrain.epochs": {"grid": [1]}})
    first, *fields, _ = refused(study(), here)
    assert "1 of its 2 trials" in first
    assert fields == ["search.space.retrain.epochs.grid: [1, 2] there, [1] here"]


def test_a_great_difference_is_told_in_few_lines():
    cases = {f"way {n}": {"prune.sparsity": n / 100, "seed": n} for n in range(1, 90)}
    lines = refused(study(), study(space={"way": {"cases": cases}}))
    assert len(lines) < 20 and max(map(len, lines)) < 200
    assert any(line.startswith("… and ") for line in lines)


def test_an_empty_folder_is_of_no_study(tmp_path, caplog):
    assert read_earlier(str(tmp_path)) == Earlier() and caplog.text == ""
    check_same("folder", None, study(), make_trials(study()))
    assert not stops_alike(None, study())


@pytest.mark.parametrize("file", ["study.yaml", "results.parquet"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"nonsense", None])
def test_what_is_damaged_is_named_and_made_anew(file, content, tmp_path, caplog):
    here = study().model_copy(update={"storage": str(tmp_path)})
    table = left_behind(here)
    damaged = tmp_path / "s" / file
    damaged.write_bytes(damaged.read_bytes().rpartition(b":")[0] if content is None else content)
    earlier = read_earlier(f"{tmp_path}/s")
    assert str(damaged) in caplog.text and len(caplog.records) == 1
    assert (earlier.study is None) == (file == "study.yaml")
    assert (earlier.table is None) == (file == "results.parquet")
    assert earlier.table is None or earlier.table.equals(table)
    Recorder(here, make_trials(here)).write_study()
    assert read_earlier(f"{tmp_path}/s").study == here


def left_behind(study):
    recorder = Recorder(study, make_trials(study))
    recorder.write_study()
    return recorder.write(StudyProgress({}))


def test_a_study_of_which_nothing_is_done_may_be_replaced(tmp_path):
    here = study().model_copy(update={"storage": str(tmp_path)})
    recorder = Recorder(here, make_trials(here))
    recorder.write_study()
    recorder.write(StudyProgress({}))  # as after Ctrl-C before the first stage was done
    assert read_earlier(f"{tmp_path}/s").study == here
    other = study(space={"retrain.epochs": {"grid": [7]}}).model_copy(
        update={"storage": str(tmp_path)}
    )
    Recorder(other, make_trials(other)).write_study()
    assert read_earlier(f"{tmp_path}/s").study == other


def proposing(*, experiment=None, **search):
    space = {"retrain.epochs": {"integers": [1, 4]}, "optim.lr": {"log_uniform": [0.01, 0.1]}}
    return study(
        experiment=experiment, algorithm="optuna", num_samples=2, **{"space": space, **search}
    )


@pytest.mark.parametrize(
    "grown",
    [
        proposing(),
        proposing().model_copy(update={"name": "t", "storage": "/elsewhere"}),
        proposing(seeds=[0, 1], metric="val_loss", scheduler="asha", max_concurrent=2),
    ],
    ids=["same", "places", "ways"],
)
def test_a_searchers_study_may_grow_and_be_run_in_another_way(grown):
    check_same("folder", proposing(), grown, ())


def test_a_searchers_study_may_propose_more():
    more = proposing().search.model_copy(update={"num_samples": 9})
    check_same("folder", proposing(), proposing().model_copy(update={"search": more}), ())


@pytest.mark.parametrize(
    ("there", "here", "differs"),
    [
        (
            proposing(),
            proposing(experiment={"batch_size": 32}),
            "experiment.batch_size: 128 there, 32 here",
        ),
        (
            proposing(),
            proposing(where=["retrain.epochs < 4"]),
            "search.where: [] there, ['retrain.epochs < 4'] here",
        ),
        (proposing(), study(), "search.algorithm.name: optuna there, grid here"),
        (study(), proposing(), "search.algorithm.name: grid there, optuna here"),
    ],
    ids=["experiment", "condition", "grid for it", "it for a grid"],
)
def test_other_points_are_another_search(there, here, differs):
    first, *fields, last = refused(there, here)
    assert first.startswith("study s in folder is another study: ") and "searcher" in first
    assert differs in fields and "--force" in last


def test_what_another_search_proposed_before_anything_was_done_is_not_gone_on_with(tmp_path):
    place = {"storage": str(tmp_path)}
    here = proposing().model_copy(update=place)
    recorder = Recorder(here, ())
    recorder.write_study()
    recorder.propose({"retrain.epochs": 1, "optim.lr": 0.02}, None)
    assert len(Recorder(here, ()).trials) == 1
    other = proposing(space={"optim.lr": {"uniform": [0.5, 1.0]}}).model_copy(update=place)
    anew = Recorder(other, ())
    assert anew.trials == [] and anew.has_work


TUNED = {"tries": 2, "space": {"optim.lr": {"log_uniform": [0.01, 0.1]}}}


def tuning(tries, seeds):
    space = {"retrain.epochs": {"grid": [1, 2]}}
    return study(space=space, tune={**TUNED, "tries": tries}, seeds=seeds)


def test_a_study_that_tunes_may_grow_by_tries_and_seeds_and_loses_none():
    there = tuning(2, [0, 1])
    for grown in (tuning(3, [0, 1]), tuning(2, [0, 1, 2])):
        check_same("folder", there, grown, make_trials(grown))
    assert "it reports on seed 1, which this one does not" in refused(there, tuning(2, [0]))[0]
    assert "2 of its 4 trials are not in this one" in refused(there, tuning(1, [0, 1]))[0]
