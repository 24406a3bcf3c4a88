"""A mistake says its field, the rule, the value and what to write; all are told at once."""

import pytest

from rayprune.config import ConfigError, Experiment, Study
from rayprune.config.messages import SYNONYMS, validated


def mistakes(raw, kind=Study, **where):
    with pytest.raises(ConfigError) as caught:
        validated(kind, raw, **where)
    return str(caught.value).split("\n")


def nested(path, value):
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def test_what_is_right_is_returned():
    assert validated(Experiment, {"seed": 3}) == Experiment(seed=3)


def test_all_mistakes_are_told_at_once():
    lines = mistakes(
        {
            "experiment": {
                "prune": {"sparsity": 95, "cycles": "many"},
                "optim": {"momentun": 0.9},
                "retrain": {"schedule": "alr"},
                "target_sparsity": 0.9,
            },
            "scaling": {"workers": 0},
        }
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
    ("path", "value", "said"),
    [
        (
            "experiment.budget",
            {"epochs": 10, "dense_epochs": 11},
            "dense_epochs must be <= epochs=10",
        ),
        (
            "experiment",
            {"budget": {"epochs": 9, "dense_share": 0.5}, "retrain": {"epochs": 1}},
            "both say",
        ),
        ("experiment.prune.pattern", "2:4", "Write sparsity: 0.5"),
        ("experiment.prune.pattern", "4:2", "0 < n < m"),
        ("experiment.retrain.schedule", "linear", "needs an initial learning rate"),
        ("experiment.model", {"name": "a", "target": "b"}, "exactly one of name and target"),
        ("scaling.workers", 3, "multiple of scaling.workers=3"),
        ("search.metric", "val_mean_iou", "Write search.metric: val_accuracy"),
        ("search.space", {"prune.sparsity": {"grid": []}}, "grid is empty"),
        ("search.space", {"optim.lr": {"log_uniform": [0, 1]}}, "log_uniform must be > 0"),
        ("search.space", [{"optim.lr": {"grid": [1]}}], "Write several as search.spaces"),
        ("experiment.dense.sparsify", {"method": "gmpp"}, "gmpp"),
        ("experiment.prune.rewind", {"epoch": -1}, "experiment.prune.rewind.epoch: "),
    ],
)
def test_a_mistake_says_what_and_what_instead(path, value, said):
    (line,) = mistakes(nested(path, value))
    assert said in line
    assert line.startswith(path.split(".")[0]) or line.startswith("study: ")


@pytest.mark.parametrize("number", [0, 1])
def test_a_mistake_in_one_of_several_spaces_names_its_place_as_it_is_written(number):
    spaces = [{"prune.sparsity": {"grid": [0.9]}} for _ in range(2)]
    spaces[number] = {"prune.sparsity": {"gridd": [1]}}
    lines = mistakes(nested("search.spaces", spaces))
    place = f"search.spaces.{number}.prune.sparsity"
    assert f"{place}.gridd: no such field." in "\n".join(lines)
    assert all(line.startswith(place) for line in lines)


def test_space_and_spaces_are_one_question():
    space = {"optim.lr": {"grid": [1]}}
    (line,) = mistakes({"search": {"space": space, "spaces": [space]}})
    assert line.startswith("search: takes one of space and spaces, got both")


@pytest.mark.parametrize("word", SYNONYMS)
def test_words_of_other_tools_lead_to_ours(word):
    (line,) = mistakes({"experiment": {word: 1}})
    right = line.removeprefix(f"experiment.{word}: no such field. Did you mean ").removesuffix("?")
    assert right.endswith(SYNONYMS[word])
    raw = nested(right, [])  # of no such field's type
    assert all("no such field" not in line for line in mistakes(raw))


def test_an_experiment_alone_says_no_field_that_it_does_not_have():
    (line,) = mistakes({"num_workers": 2}, Experiment, at="experiment")
    assert line.startswith("experiment.num_workers: no such field.")
    assert "scaling" not in line
