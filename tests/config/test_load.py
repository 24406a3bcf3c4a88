"""Files, overrides and search spaces: what is right is read, what is wrong is all told at once."""

import json
import re
import subprocess
import sys

import jsonschema
import pytest
import yaml

from rayprune.config import Study
from rayprune.config.load import ConfigError, load_experiment, load_study, shipped_studies
from rayprune.plan import count_epochs
from rayprune.trials import make_trials


@pytest.fixture
def study_file(tmp_path):
    def write(**fields):
        file = tmp_path / "mine.yaml"
        file.write_text(yaml.safe_dump(fields))
        return file

    return write


def mistakes(file, *overrides):
    with pytest.raises(ConfigError) as caught:
        make_trials(load_study(file, overrides))
    return str(caught.value).split("\n")


@pytest.mark.parametrize("name", shipped_studies())
def test_every_shipped_study_loads_and_opens_with_its_command_and_cost(name):
    trials = make_trials(load_study(name))
    heading = shipped_studies()[name].read_text().split("experiment:\n")[0].replace(",", "")
    assert f"python -m rayprune.tune {name}" in heading or name == "quickstart"
    assert int(re.search(r"Expected: (\d+) trials", heading)[1]) == len(trials)
    epochs = count_epochs([trial.plan for trial in trials])
    said = re.search(r"(\d+) epochs instead of (\d+)", heading.split("Expected:")[1])
    assert [int(number) for number in said.groups()] == [*epochs.values()]
    assert "Cost:" in heading


def test_quickstart_is_what_runs_without_a_name():
    assert load_study() == load_study("quickstart")
    assert load_study().name == "quickstart"


def test_a_file_takes_its_name_and_overrides_reach_every_level(study_file):
    study = load_study(
        study_file(experiment={"seed": 3}),
        [
            "experiment.retrain.epochs=7",
            "scaling.workers=2",
            "search.space.optim.lr={grid: [1, 2]}",
        ],
    )
    assert (study.name, study.experiment.seed, study.experiment.retrain.epochs) == ("mine", 3, 7)
    assert study.scaling.workers == 2
    assert study.search.space["optim.lr"].grid == (1, 2)


def test_an_empty_file_is_the_defaults(study_file):
    assert load_study(study_file()).experiment == Study().experiment


def test_all_mistakes_are_told_at_once(study_file):
    lines = mistakes(
        study_file(
            experiment={
                "prune": {"sparsity": 95, "cycles": "many"},
                "optim": {"momentun": 0.9},
                "retrain": {"schedule": "alr"},
                "target_sparsity": 0.9,
            },
            scaling={"workers": 0},
        )
    )
    text = "\n".join(lines)
    assert len(lines) == 6
    assert "experiment.prune.sparsity" in text and "got 95. Write 0.95 for 95 %." in text
    assert "experiment.prune.cycles" in text and "'many'" in text
    assert "experiment.optim.momentun: no such field. Did you mean momentum?" in text
    assert "experiment.retrain.schedule" in text and "'alr'" in text
    assert "Did you mean experiment.prune.sparsity?" in text
    assert "scaling.workers" in text


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["experiment.retrain.schedule=lrw", "experiment.retrain.epochs=13"],
            "dense.epochs=12, got 13",
        ),
        (["experiment.budget={epochs: 10, dense_epochs: 11}"], "dense_epochs must be <= epochs=10"),
        (
            ["experiment.budget={epochs: 9, dense_share: 0.5}", "experiment.retrain.epochs=1"],
            "both say",
        ),
        (["experiment.prune.pattern=2:4"], "Write sparsity: 0.5"),
        (["experiment.prune.pattern=4:2"], "0 < n < m"),
        (["experiment.retrain.schedule=linear"], "needs an initial learning rate"),
        (["experiment.retrain.lr=0.1"], "takes its learning rates from the dense run"),
        (["experiment.model={name: a, target: b}"], "exactly one of name and target"),
        (["scaling.workers=3"], "multiple of scaling.workers=3"),
        (["experiment.seed.more=1", "experiment.seed=1"], "experiment.seed"),
        (["experiment.seed"], "is not field.path=value"),
        (["search.space.prune.sparsity={grid: [0.9, 90]}"], "at prune.sparsity=90"),
        (["search.space.prune.sparsity={grid: []}"], "grid is empty"),
        (["search.space.optim.lr={log_uniform: [0, 1]}"], "log_uniform must be > 0"),
        (["search.space.prune.sparsitty={grid: [0.9]}"], "Did you mean sparsity"),
        (["experiment.dense.sparsify={method: gmpp}"], "gmpp"),
    ],
)
def test_a_mistake_says_what_and_what_instead(study_file, overrides, said):
    if overrides[0] == "experiment.seed.more=1":
        overrides = overrides[::-1]
    assert said in "\n".join(mistakes(study_file(), *overrides))


def test_a_missing_study_names_the_nearest_one():
    with pytest.raises(ConfigError, match="Did you mean quickstart"):
        load_study("quikstart")


def test_a_grid_is_every_combination_in_a_fixed_order(study_file):
    file = study_file(
        search={
            "space": {
                "retrain.schedule": {"grid": ["llr", "allr"]},
                "way": {"cases": {"one": {"prune.cycles": 1}, "three": {"prune.cycles": 3}}},
            },
            "seeds": [0, 1],
        }
    )
    trials = make_trials(load_study(file))
    assert len(trials) == 8 and [t.name for t in trials] == [str(i) for i in range(8)]
    assert trials[0].values == {"retrain.schedule": "llr", "way": "one", "seed": 0}
    assert trials[-1].experiment.prune.cycles == 3 and trials[-1].experiment.seed == 1
    assert make_trials(load_study(file)) == trials


def test_random_dimensions_are_drawn_alike_every_time_and_inside_their_range(study_file):
    file = study_file(
        search={
            "space": {
                "optim.lr": {"log_uniform": [0.001, 0.1]},
                "prune.sparsity": {"uniform": [0.5, 0.9]},
                "dense.epochs": {"integers": [3, 4]},
                "prune.allocation": {"choice": ["global", "erk"]},
                "retrain.epochs": {"grid": [1, 2]},
            },
            "num_samples": 20,
        }
    )
    trials = make_trials(load_study(file))
    assert len(trials) == 40 and make_trials(load_study(file)) == trials
    assert all(0.001 <= t.experiment.optim.lr <= 0.1 for t in trials)
    assert {t.experiment.dense.epochs for t in trials} == {3, 4}
    assert {t.experiment.prune.allocation for t in trials} == {"global", "erk"}


def test_an_experiment_file_may_leave_out_the_study(study_file):
    bare = load_experiment(study_file(prune={"sparsity": 0.8}, scaling={"workers": 2}))
    assert bare.experiment.prune.sparsity == 0.8 and bare.scaling.workers == 2
    full = load_experiment("quickstart", ["experiment.seed=4"])
    assert full.experiment.seed == 4 and full.search.space == {}


def test_the_schema_takes_every_shipped_study():
    text = subprocess.run(
        [sys.executable, "-m", "rayprune.config", "schema"], capture_output=True, check=True
    ).stdout
    schema = json.loads(text)
    assert schema["$defs"]["Prune"]["properties"]["sparsity"]["description"].startswith("Goal")
    for file in shipped_studies().values():
        jsonschema.validate(yaml.safe_load(file.read_text()), schema)


def test_relative_paths_mean_the_users_folder(study_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "start.safetensors").touch()
    data = {"parquet": {"train": "a/*.parquet", "test": "s3://bucket/b"}}
    study = load_study(
        study_file(
            experiment={"data": data, "model": {"name": "m", "weights": "start.safetensors"}}
        )
    )
    parquet = study.experiment.data.parquet
    assert parquet.train == str(tmp_path / "a/*.parquet") and parquet.test == "s3://bucket/b"
    assert study.experiment.model.weights == str(tmp_path / "start.safetensors")
    named = load_study(study_file(experiment={"model": {"name": "m", "weights": "DEFAULT"}}))
    assert named.experiment.model.weights == "DEFAULT"


def test_drawn_values_are_the_same_for_every_seed(study_file):
    file = study_file(
        search={"space": {"optim.lr": {"uniform": [0.01, 1]}}, "num_samples": 3, "seeds": [0, 1]}
    )
    rates = {}
    for trial in make_trials(load_study(file)):
        rates.setdefault(trial.experiment.seed, []).append(trial.experiment.optim.lr)
    assert rates[0] == rates[1] and len(set(rates[0])) == 3


def test_several_spaces_are_their_union(study_file):
    spaces = [
        {"way": {"cases": {"imp": {"prune.cycles": 1}}}, "prune.sparsity": {"grid": [0.8, 0.9]}},
        {"way": {"cases": {"long": {"prune.cycles": 1, "dense.epochs": 20}}}},
    ]
    trials = make_trials(load_study(study_file(search={"space": spaces, "seeds": [0, 1]})))
    assert len(trials) == 6
    assert [t.values["way"] for t in trials] == ["imp"] * 4 + ["long"] * 2
    assert trials[-1].values["prune.sparsity"] is None
    spaces[1]["prune.sparsity"] = {"gridd": [1]}
    (line,) = mistakes(study_file(search={"space": spaces}))
    assert line.startswith("search.space.1.prune.sparsity.gridd: no such field.")
