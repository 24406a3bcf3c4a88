"""Files, names of studies and overrides: what is right is read, what is wrong is told."""

import json
import subprocess
import sys

import jsonschema
import pytest
import yaml

from rayprune.config import ConfigError, Experiment, load_study, load_study_of_one
from rayprune.config.load import shipped_studies


@pytest.fixture
def study_file(tmp_path):
    def write(**fields):
        file = tmp_path / "mine.yaml"
        file.write_text(yaml.safe_dump(fields))
        return file

    return write


def mistakes(file, *overrides):
    with pytest.raises(ConfigError) as caught:
        load_study(file, overrides)
    return str(caught.value).split("\n")


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


def test_a_name_alone_is_the_defaults(study_file):
    study = load_study(study_file(name="plain"))
    assert (study.name, study.experiment) == ("plain", Experiment())


@pytest.mark.parametrize("content", ["", "\n\n", "# name: x\n# model:\n", "{}", "---\n", "null"])
@pytest.mark.parametrize(
    ("load", "fields"),
    [(load_study, {"experiment", "search"}), (load_study_of_one, {"prune", "retrain"})],
)
def test_an_empty_file_is_an_error_that_says_what_to_write(tmp_path, content, load, fields):
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=r"mine\.yaml is empty\. Write ") as caught:
        load(file, ["name=x"])
    _, *example = str(caught.value).split("\n")
    assert len(example) == 2
    file.write_text("\n".join(example))
    assert yaml.safe_load(file.read_text()).keys() == fields
    assert load(file).name == "mine"


@pytest.mark.parametrize("content", ["- 1\n", "text", "3", "[]"])
def test_a_file_without_fields_is_an_error(tmp_path, content):
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    (line,) = mistakes(file)
    assert "must hold fields such as `experiment:`, got " in line


@pytest.mark.parametrize("content", [b"a: [", b"\xff\xfe\x00"])
def test_a_file_that_is_not_yaml_is_an_error(tmp_path, content):
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    assert "mine.yaml is not YAML: " in mistakes(file)[0]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["experiment.seed=1", "experiment.seed.more=1"], "experiment.seed is a value"),
        (["experiment.seed"], "is not field.path=value"),
        (["=3"], "is not field.path=value"),
        (["experiment.seed=[1"], "experiment.seed: '[1' is not a YAML value"),
        (["search.spaces.0.optim.lr={grid: [1]}", "search.spaces=3"], "search.spaces: "),
    ],
)
def test_an_override_that_cannot_be_is_told(study_file, overrides, said):
    assert said in "\n".join(mistakes(study_file(name="mine"), *overrides))


def test_a_union_of_spaces_may_be_an_override(study_file):
    file = study_file(name="mine")
    text = "search.spaces=[{optim.lr: {grid: [1]}}, {prune.sparsity: {grid: [0.5]}}]"
    search = load_study(file, [text]).search
    assert [list(space) for space in search.all_spaces] == [["optim.lr"], ["prune.sparsity"]]
    (line,) = mistakes(file, text, "search.space.optim.lr={grid: [2]}")
    assert line.startswith("search: takes one of space and spaces, got both: space with optim.lr")


def test_a_missing_study_names_the_nearest_one():
    with pytest.raises(ConfigError, match="Did you mean quickstart"):
        load_study("quikstart")


def test_an_experiment_file_may_leave_out_the_study(study_file):
    bare = load_study_of_one(study_file(prune={"sparsity": 0.8}, scaling={"workers": 2}))
    assert bare.experiment.prune.sparsity == 0.8 and bare.scaling.workers == 2
    full = load_study_of_one("quickstart", ["experiment.seed=4"])
    assert full.experiment.seed == 4 and full.search.all_spaces == ({},)
    assert load_study("quickstart").search.space


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
    (tmp_path / "runs" / "dense").mkdir(parents=True)
    folder = load_study(study_file(experiment={"model": {"name": "m", "weights": "runs/dense"}}))
    assert folder.experiment.model.weights == str(tmp_path / "runs" / "dense")
    named = load_study(study_file(experiment={"model": {"name": "m", "weights": "DEFAULT"}}))
    assert named.experiment.model.weights == "DEFAULT"
