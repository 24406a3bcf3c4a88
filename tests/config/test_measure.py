"""What a study measures its networks in, and what it may ask of what is measured."""

import json

import jsonschema
import pytest

import rayprune as rp
from rayprune.config import ConfigError, Study, load_study, load_study_of_one
from rayprune.config.goals import DEPLOYED, goals_of
from rayprune.config.measure import RUNTIMES, Measure
from rayprune.config.messages import validated
from rayprune.trials import make_trials

OPTUNA = {"algorithm": "optuna", "space": {"optim.lr": {"uniform": [0.1, 1]}}}
LATENCY = ["val_accuracy", "latency_ms"]


def study_of(**search):
    return validated(Study, {"search": search})


def mistakes(**search):
    with pytest.raises(ConfigError) as caught:
        study_of(**search)
    return str(caught.value).split("\n")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_runtime_alone_is_one_thread_and_one_sample(runtime):
    measure = study_of(measure=runtime).search.measure
    assert measure == Measure(runtime=runtime, threads=1, batch=1)
    assert measure == study_of(measure={"runtime": runtime}).search.measure
    assert measure.words == f"{runtime}, 1 thread, batch 1"


def test_threads_and_batch_are_told():
    assert Measure(runtime="mnn", threads=4, batch=8).words == "mnn, 4 threads, batch 8"
    assert rp.Measure is Measure


def test_nothing_is_measured_or_limited_unless_it_is_asked_for():
    assert study_of().search.measure is None and study_of().search.within == {}


def test_the_schema_takes_what_the_study_takes():
    schema = Study.model_json_schema()
    for measure in (*RUNTIMES, {"runtime": "mnn", "threads": 2}, None):
        jsonschema.validate({"search": {"measure": measure, "within": {"file_mb": 1}}}, schema)
    for wrong in ("mmn", {"threads": 2}, {"runtime": "mnn", "thread": 2}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"search": {"measure": wrong}}, schema)
    assert json.dumps(schema)


@pytest.mark.parametrize("goal", DEPLOYED)
def test_of_what_is_measured_less_is_better(goal):
    goals = goals_of(study_of(metric=["val_accuracy", goal], measure="mnn"))
    assert goals.modes == ("max", "min")


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({"measure": "mmn"}, "search.measure.runtime: "),
        ({"measure": {"runtime": "mnn", "threads": 0}}, "search.measure.threads: "),
        ({"measure": {"runtime": "mnn", "batches": 2}}, ".batches: no such field. Did you mean"),
        (
            {"metric": LATENCY},
            "search: metric latency_ms: is measured in a runtime, and measure names none. Write "
            "measure: mnn, or one of onnx, openvino and torch",
        ),
        ({"within": {"file_mb": 1}}, "search: within.file_mb: is measured in a runtime"),
        (
            {"measure": "mnn", "within": {"latency": 5}},
            "search: within.latency: nothing of that name is measured. Did you mean latency_ms? "
            "There are latency_ms and file_mb",
        ),
        *(
            (
                {"measure": "mnn", "within": {"latency_ms": limit}},
                f"search.within.latency_ms: must be a finite number > 0, got {limit!r}",
            )
            for limit in (0, -1.5, True, float("inf"), float("nan"), "inf")
        ),
        ({"measure": "mnn", "within": {"file_mb": [2]}}, "search.within.file_mb: "),
        (
            {"measure": "mnn", "metric": "file_mb"},
            "Write metric: [val_accuracy, file_mb] for both, or within: {file_mb: …} for the best",
        ),
        ({"measure": "mnn", "metric": ["latency_ms", "val_loss"]}, "metric must begin with one"),
        ({"metric": ["val_accuracy", "latency"]}, "no metric 'latency'. Did you mean latency_ms?"),
        (
            {**OPTUNA, "measure": "mnn", "metric": LATENCY},
            "search: algorithm optuna learns from each trial as it ends, and latency_ms is "
            "measured after all are trained, when nothing else of ours runs. Write algorithm: "
            "random, or metric: val_accuracy and within: {latency_ms: …}",
        ),
        (
            {**OPTUNA, "algorithm": "hyperopt", "measure": "mnn", "metric": LATENCY},
            "Write algorithm: random",
        ),
        (
            {"measure": "mnn", "metric": LATENCY, "within_dense": 0.01},
            "Leave within_dense out, or write one metric",
        ),
    ],
)
def test_what_cannot_be_is_told_with_what_to_write(search, said):
    (line,) = mistakes(**search)
    assert said in line


def test_what_fits_together_is_taken():
    limit = {"measure": "mnn", "within": {"latency_ms": 5, "file_mb": 0.5}}
    for search in (
        {"measure": "mnn", "metric": [*LATENCY, "file_mb"]},
        {**OPTUNA, "algorithm": "random", "measure": "mnn", "metric": LATENCY},
        {**limit, "within_dense": 0.01},
        {**OPTUNA, **limit},
        {**limit, "scheduler": "asha"},
    ):
        study_of(**search)


def test_what_is_measured_is_in_no_key():
    space = {"retrain.epochs": {"grid": [1, 2]}}
    plain = make_trials(study_of(space=space))
    asked = study_of(space=space, measure="mnn", within={"file_mb": 1})
    assert [trial.plan for trial in make_trials(asked)] == [trial.plan for trial in plain]


def test_from_a_file_and_the_command_line(tmp_path):
    file = tmp_path / "f.yaml"
    file.write_text("search: {measure: {runtime: onnx, threads: 2}, metric: [val_loss, file_mb]}")
    assert load_study(file).search.measure == Measure(runtime="onnx", threads=2)
    other = load_study(file, ["search.measure=mnn", "search.within={latency_ms: 5}"]).search
    assert other.measure == Measure(runtime="mnn") and other.within == {"latency_ms": 5.0}
    # Of one experiment the search is left out, but not what its result is told by.
    alone = load_study_of_one(file).search
    assert alone.measure == Measure(runtime="onnx", threads=2)
    assert alone.metrics == ("val_loss", "file_mb")
