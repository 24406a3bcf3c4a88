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


def searching(**fields):
    return {"space": {"optim.lr": {"uniform": [0.1, 1]}}, "algorithm": "optuna", **fields}


def comparing(reference):
    space = {
        "way": {"cases": {"BIMP": {"seed": 1}, "IMP": {"seed": 2}}},
        "retrain.schedule": {"choice": ["llr", "allr"]},
        "optim.lr": {"uniform": [0.1, 1]},
    }
    return {"space": space, "reference": reference}


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({"algorithm": "optunna"}, ".algorithm: no algorithm 'optunna'. Did you mean optuna?"),
        ({"algorithm": "bohb"}, "There are grid, random, optuna, hyperopt, bayesopt, ax"),
        ({"algorithm": {"name": "random", "points": 1}}, ": algorithm random takes no points"),
        (searching(algorithm={"name": "optuna", "mode": "max"}), "mode follows from search.metric"),
        (searching(algorithm={"name": "ax", "space": {}}), "space follows from search.space"),
        (searching(space={}), "algorithm optuna has no dimension to search"),
        (searching(space={"seed": {"equals": "1"}}), "algorithm optuna has no dimension"),
        (searching(space={}, spaces=[{"seed": {"grid": [1]}}]), "search.space, in which `when`"),
        (searching(space={"a/b": {"cases": {"c": {}}}}), "optuna takes no / in a name"),
        (
            searching(algorithm="bayesopt", space={"optim.lr": {"log_uniform": [0.1, 1]}}),
            "space.optim.lr: bayesopt takes uniform alone",
        ),
        ({"scheduler": "ahsa"}, ".scheduler: no scheduler 'ahsa'. Did you mean asha?"),
        ({"scheduler": "pbt"}, ".scheduler: pbt does not fit: it changes fields of a trial"),
        ({"scheduler": "resource_changing"}, "slots of scaling"),
        ({"scheduler": "hb_bohb"}, "searcher bohb alone"),
        ({"scheduler": {"name": "asha", "metric": "loss"}}, "metric follows from search.metric"),
        (
            {"scheduler": {"name": "asha", "time_attr": "t"}},
            "time_attr follows from search.scheduler.unit",
        ),
        ({"scheduler": {"name": "asha", "unit": "hours"}}, ".scheduler.unit: "),
        (searching(scheduler="hyperband"), "scheduler: {name: hyperband, max_t: …}"),
        (
            {"metric": "val_acuracy"},
            ".metric: val_acuracy is not measured by task classification, which has loss, "
            "accuracy. Write search.metric: val_accuracy",
        ),
        (
            {"metric": ["val_f1", "sparsity"]},
            "has loss, accuracy. Write search.metric: [val_accuracy, sparsity]",
        ),
        ({"metric": "accuracy"}, ".metric: no metric 'accuracy'. Did you mean val_accuracy?"),
        ({"metric": "val_"}, ".metric: no metric 'val_'. "),
        ({"metric": "sparsty"}, ".metric: no metric 'sparsty'. Did you mean sparsity?"),
        ({"metric": "test_loss"}, "the test split chooses nothing, got test_loss. Write val_loss"),
        ({"metric": []}, ".metric: is an empty list"),
        ({"metric": ["val_loss", "val_loss"]}, ".metric: val_loss twice"),
        ({"metric": 3}, ".metric: no metric '3'"),
        ({"metric": "sparsity"}, "Write metric: [val_accuracy, sparsity]"),
        ({"metric": "sparsity", "within_dense": 0.01}, "metric sparsity alone"),
        ({"metric": ["sparsity", "val_loss"]}, "Write [val_accuracy, sparsity, val_loss]"),
        (
            searching(algorithm="hyperopt", metric=["val_loss", "sparsity"]),
            "algorithm hyperopt knows one goal",
        ),
        (
            {"metric": ["val_loss", "sparsity"], "scheduler": "asha"},
            "scheduler asha compares trials by one metric",
        ),
        ({"metric": ["val_loss", "sparsity"], "within_dense": 0.01}, "Leave within_dense out"),
        ({"where": ["retrain.epochs <="]}, ": where: 'retrain.epochs <=' is not an expression"),
        (
            {"where": ["retrain.epoch <= 3"]},
            ": where 'retrain.epoch <= 3': no field or dimension retrain.epoch. "
            "Did you mean epochs?",
        ),
        ({"space": {"optim.lr": {"grid": [1], "when": "1 +"}}}, "space.optim.lr.when: '1 +' is"),
        ({"spaces": [{"optim.lr": {"equals": "lr"}}]}, "spaces.0.optim.lr.equals 'lr': no field"),
        (
            {
                "space": {
                    "optim.lr": {"equals": "optim.momentum"},
                    "optim.momentum": {"grid": [0.5], "when": "optim.lr > 0"},
                }
            },
            "space: optim.lr -> optim.momentum -> optim.lr: each of these follows from the next",
        ),
        (
            {"space": {"way": {"cases": {"a": {"seed": 1}}, "when": "seed == 0"}}},
            "space: way -> way: each of these",
        ),
        ({"space": {"optim.lr": {"when": "seed == 1"}}}, "takes exactly one of grid, cases"),
        (
            comparing({"retrain.schedul": "allr"}),
            ": reference.retrain.schedul: no searched dimension retrain.schedul. "
            "Did you mean retrain.schedule? Searched are way, retrain.schedule, optim.lr",
        ),
        ({"reference": {"way": "a"}}, ": reference.way: no searched dimension way. Nothing is"),
        (comparing({"seed": 1}), "reference.seed: a setting is compared over all its seeds"),
        (comparing({}), "Write such as reference: {retrain.schedule: allr}, or leave out"),
        (
            comparing({"way": "bimp"}),
            ": reference.way must be one of BIMP, IMP, got 'bimp'. Did you mean BIMP?",
        ),
        (comparing({"retrain.schedule": 3}), "must be one of llr, allr, got 3."),
        (comparing({"retrain.schedule": None}), "must be one of llr, allr, got None."),
        (comparing("BIMP"), ".reference: "),
        ({"early_stop": {}}, ".early_stop: no such field. Did you mean search.scheduler?"),
    ],
)
def test_a_search_that_cannot_be_is_told(search, said):
    (line,) = mistakes({"search": search})
    assert line.startswith("search")
    assert said in line


def test_an_unknown_tracker_is_told():
    (line,) = mistakes({"tracking": ["mlflow", "wandbb"]})
    assert line.startswith("tracking.1: no tracker 'wandbb'. Did you mean wandb? There are mlflow,")


def test_all_mistakes_of_a_search_are_told_at_once():
    search = {"metric": ["sparsity", "val_loss"], "scheduler": "asha", "where": ["1 +", "nothing"]}
    lines = mistakes({"search": search})
    assert len(lines) == 4
    assert all(line.startswith("search: ") for line in lines)


def test_what_fits_together_is_taken():
    for search in (
        {"metric": ["val_accuracy"], "scheduler": "asha"},
        {"metric": "val_loss", "within_dense": 0.1, "scheduler": {"name": "asha", "max_t": 9}},
        {"metric": ["val_accuracy", "sparsity"], "algorithm": "random"},
        searching(metric=["val_accuracy", "num_nonzero"]),
        searching(scheduler={"name": "hyperband", "max_t": 9}, within_dense=0.01),
        searching(algorithm="bayesopt"),
        {"scheduler": "hyperband"},
        comparing({"way": "BIMP", "retrain.schedule": "allr"}),
        comparing({"optim.lr": 0.3}),  # of a range every number
        {"spaces": [{"way": {"cases": {"a": {"seed": 1}}}}, {}], "reference": {"way": None}},
    ):
        Study.model_validate({"search": search})


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
