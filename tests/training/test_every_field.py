"""Equal keys, equal results: whatever field is changed, a key changes or no bit of its result does.

Every field of an experiment is named here with other values; a new field fails until it is, too.
"""

from typing import Any, get_args

import pyarrow.parquet as pq
import pytest
import torch
from made_plans import WORKER, without_times
from pydantic import BaseModel

from rayprune.config import Experiment
from rayprune.config.sparsify import Options, Sparsify
from rayprune.plan import make_plan
from rayprune.sparsifiers import METHODS
from rayprune.training import run as running
from rayprune.training.run import run_stage
from rayprune.training.task import TASKS

OTHERS: dict[str, list[Any]] = {
    "model.name": ["lenet_5"],
    "model.target": [f"{__name__}:other_net"],
    "model.kwargs": [{"width": 6}],
    "model.weights_key": ["ema"],
    "model.new_head": [True],
    "model.weights": [],  # a file's name does not count, its bytes are a condition of the plan
    "data.name": ["fashion_mini"],
    "data.root": ["/elsewhere"],
    "data.parquet.train": [],  # as weights
    "data.parquet.test": [],
    "data.parquet.image_column": ["picture"],
    "data.parquet.label_column": ["class"],
    "data.target": [f"{__name__}:some_images"],
    "data.kwargs": [{"number": 3}],
    "data.augment": ["crop", "crop_flip"],
    "data.val_fraction": [0.3],
    "data.resize": [14],
    "data.streaming": ["always", "never"],
    "data.loader_workers": [0, 1],
    "data.on_bad": ["skip"],
    "data.channels": [1],  # 3 would change the network
    "data.normalize": ["none", {"mean": [0.3], "std": [0.3]}],
    "data.eval_crop": [0.5],
    "data.interpolation": ["bicubic"],
    "task": ["segmentation", {"target": f"{__name__}:own_task"}],
    "label_smoothing": [0.1],
    "batch_size": [10],
    "optim.name": ["adam", "adamw"],
    "optim.lr": [0.02],
    "optim.momentum": [0.5, 0.0],
    "optim.weight_decay": [0.0, 0.01],
    "optim.decay": ["weights"],
    "optim.betas": [[0.8, 0.99]],
    "optim.eps": [1e-3],
    "optim.clip_norm": [0.1],
    "optim.ema_decay": [0.5],
    "dense.epochs": [3],
    "dense.schedule": ["linear", "constant"],
    "dense.warmup": [0.5],
    "dense.milestones": [[0.3]],
    "dense.factor": [0.5],
    "dense.trained_epochs": [7],
    "dense.smallest_lr": [0.002],
    "dense.sparsify": [{"method": "gmp"}, {"method": "str"}],
    "prune.sparsity": [0.5],
    "prune.cycles": [0, 1, 2],
    "prune.fraction_per_cycle": [0.6],
    "prune.allocation": ["uniform", "erk"],
    "prune.pattern": ["filter", "2:4"],
    "prune.ignore": [["0.weight"]],
    "prune.include": [["0.weight"]],
    "prune.round_channels": [2],
    "prune.couple_filters": [True],
    "prune.rewind": [{"epoch": 0}, {"epoch": 1}],
    "retrain.epochs": [0, 2],
    "retrain.schedule": ["llr", "slr", "ft"],
    "retrain.lr": [0.01],
    "retrain.warmup": [0.5],
    "allr.adapt": ["last"],
    "budget": [{"epochs": 4, "dense_epochs": 2}, {"epochs": 5, "dense_share": 0.4}],
    "recalibrate_batch_norm": [True],
    "precision": ["bfloat16"],
    "seed": [1],
}
# The fields that each of these reads, and that the others do not, is what the test is about.
BASES: dict[str, dict[str, Any]] = {
    "allr": {},
    "two cycles": {"prune": {"cycles": 2, "sparsity": 0.8}, "allr": {"adapt": "last"}},
    "recalibrated": {"recalibrate_batch_norm": True},
    "dense alone": {"prune": {"cycles": 0}},
    "no retraining": {"retrain": {"epochs": 0}},
    "filters": {"prune": {"pattern": "filter", "sparsity": 0.5, "ignore": ["5.weight"]}},
    "2:4": {"prune": {"pattern": "2:4", "sparsity": 0.5, "ignore": ["0.weight"]}},
    "rewound": {"prune": {"rewind": {"epoch": 1}}, "retrain": {}},
    "budget": {"budget": {"epochs": 4, "dense_epochs": 2}, "dense": {}, "retrain": {}},
    "adamw": {"optim": {"name": "adamw", "lr": 0.01, "ema_decay": 0.8, "clip_norm": 1.0}},
    "linear dense run": {"dense": {"epochs": 2, "schedule": "linear", "warmup": 0.4}},
    **{
        schedule: {"retrain": {"epochs": 1, "schedule": schedule, "lr": 0.03, "warmup": 0.4}}
        for schedule in ("stepped", "linear", "cosine", "constant")
    },
    "stepped after linear": {
        "dense": {"epochs": 2, "schedule": "linear"},
        "retrain": {"epochs": 1, "schedule": "stepped", "lr": 0.03},
    },
    **{name: {"retrain": {"epochs": 1, "schedule": name}} for name in ("ft", "lrw", "slr", "clr")},
    **{
        f"brought, {schedule}": {
            "dense": {"epochs": 0, "schedule": "stepped", "trained_epochs": 6, "smallest_lr": 1e-3},
            "retrain": {"epochs": 1, "schedule": schedule},
        }
        for schedule in ("ft", "slr", "clr", "allr")
    },
    "brought, not retrained": {"dense": {"epochs": 0}, "retrain": {"epochs": 0}},
    "resized": {"data.resize": 28},
}

SECTIONS = {  # whose fields are changed; those of all other bases say how to train and prune
    "allr": ("",),
    "adamw": ("optim.", "label_smoothing", "recalibrate"),
    "resized": ("data.",),
    "brought, allr": ("dense.", "model.", "optim.", "prune.", "retrain.", "label_smoothing"),
    "brought, not retrained": ("dense.", "optim.", "retrain.", "label_smoothing"),
}


def own_task():
    return TASKS["classification"]


def normed_net(num_classes: int, in_channels: int, width: int = 4) -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Conv2d(in_channels, width, 5, stride=4),
        torch.nn.BatchNorm2d(width),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.1),
        torch.nn.Flatten(),
        torch.nn.Linear(36 * width, num_classes),
    )


def other_net(num_classes: int, in_channels: int) -> torch.nn.Module:
    return normed_net(num_classes, in_channels, 5)


@pytest.fixture(scope="module")
def base(few_images, tmp_path_factory):
    """Fields of an experiment of a tenth of a second."""
    files = {}
    for name, file in few_images.items():
        files[name] = str(tmp_path_factory.mktemp("images") / f"{name}.parquet")
        pq.write_table(pq.read_table(file)[:60], files[name])
    return {
        "model": {"target": f"{__name__}:normed_net"},
        "data": {"parquet": files, "loader_workers": 0},
        "batch_size": 20,
        "optim": {"lr": 0.05},
        "dense": {"epochs": 2},
        "prune": {"sparsity": 0.7},
        "retrain": {"epochs": 1},
    }


def leaves(model: type[BaseModel], path: str = "") -> list[str]:
    """Every field's path; one that may be left out as a whole is a leaf."""
    found = []
    for name, field in model.model_fields.items():
        inner = [t for t in (field.annotation, *get_args(field.annotation)) if is_model(t)]
        whole = name in ("budget", "rewind", "sparsify", "task", "normalize") or not inner
        found += [path + name] if whole else leaves(inner[0], f"{path}{name}.")
    return found


def is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def changed(fields: dict[str, Any], path: str, value: Any) -> Experiment | None:
    """The experiment with another value there; None if that contradicts the rest."""
    name, _, rest = path.partition(".")
    section = dict(fields)
    if not rest:
        section[name] = value
    else:
        section[name] = dict(section.get(name) or {})
        inner, *keys = section[name], *rest.split(".")
        for key in keys[:-1]:
            inner[key] = dict(inner.get(key) or {})
            inner = inner[key]
        inner[keys[-1]] = value
    try:
        wanted = Experiment.model_validate(section)
        make_plan(wanted)
    except ValueError:
        return None
    return wanted


def check_law(fields, storage, others):
    """Stages of equal keys have equal results, in the experiment as it is and as it is changed."""
    own = Experiment.model_validate(fields)
    results: dict[str, Any] = {}
    run_into(results, own, set(), storage / "own")
    compared = 0
    for path, values in others.items():
        for number, value in enumerate(values):
            wanted = changed(fields, path, value)
            if wanted is None:
                continue
            again: dict[str, Any] = {}
            place = storage / f"{path}-{number}"
            run_into(again, wanted, results.keys(), place)
            for key, snapshot in again.items():
                for name, weight in results[key].weights.items():
                    assert torch.equal(weight, snapshot.weights[name]), (path, value, name)
                masks = [s.masks for s in (results[key], snapshot)]
                assert all(torch.equal(m, masks[1][n]) for n, m in masks[0].items()), (path, value)
                records = [without_times(s.records[-1]) for s in (results[key], snapshot)]
                assert records[0] == records[1], (path, value)
                compared += 1
    return compared


def run_into(results, wanted, only, storage):
    """Run the stages of a plan that lead to those of `only`, all of them if there are none."""
    plan = make_plan(wanted)
    last = max((n for n, s in enumerate(plan) if not only or s.key in only), default=-1)
    snapshots: dict[str, Any] = {}
    for stage in plan[: last + 1]:
        snapshots[stage.key] = run_stage(wanted, stage, snapshots, WORKER, str(storage))[0]
    results |= {k: v for k, v in snapshots.items() if not only or k in only}


def test_every_field_is_named():
    assert set(leaves(Experiment)) == set(OTHERS)


@pytest.mark.parametrize("name", BASES)
def test_a_field_that_changes_a_result_changes_its_key(name, base, tmp_path):
    sections = SECTIONS.get(name, ("dense.", "prune.", "retrain.", "allr.", "budget"))
    others = {path: values for path, values in OTHERS.items() if path.startswith(sections)}
    fields = {**base, **BASES[name]}
    if "data.resize" in fields:
        fields["data"] = {**base["data"], "resize": fields.pop("data.resize")}
    if name.startswith("brought"):
        file = tmp_path / "trained.pt"
        torch.manual_seed(0)
        trained, averaged = normed_net(10, 1).state_dict(), normed_net(10, 1).state_dict()
        torch.save(
            trained if name != "brought, allr" else {"model": trained, "ema": averaged}, file
        )
        key = {"weights_key": "model"} if name == "brought, allr" else {}
        fields["model"] = {**base["model"], "weights": str(file), **key}
    assert check_law(fields, tmp_path, others) > 1


@pytest.mark.parametrize("method", METHODS)
def test_a_field_that_changes_a_sparsified_run_changes_its_key(method, base, tmp_path):
    """With a cycle after it; the method's own options, and all fields that say how to prune."""
    dense = {"epochs": 2, "sparsify": {"method": method}}
    fields = {**base, "dense": dense, "prune": {"sparsity": 0.7, "cycles": 1}}
    others = {
        path: values for path, values in OTHERS.items() if path.startswith(("prune", "dense"))
    }
    assert check_law(fields, tmp_path, {**others, **options_of(method)}) > 0


def options_of(method: str) -> dict[str, list[Any]]:
    """Every option of a method with another value that it takes."""
    kinds: dict[str, type[Options]] = {k.model_fields["method"].default: k for k in methods()}
    others = {}
    for name, field in kinds[method].model_fields.items():
        tries = [0.5, 0.3, 3, 2, True, False, "erk", "uniform", None]
        if name != "method":
            values = [v for v in tries if type(v) is not type(field.default) or v != field.default]
            others[f"dense.sparsify.{name}"] = values
    return others


def methods() -> list[type[Options]]:
    return list(get_args(get_args(Sparsify)[0]))


def test_the_law_fails_where_a_key_forgets_a_field(base, tmp_path, monkeypatch):
    """So that the tests above can fail: a network that depends on what no key says is found out."""
    real = running.make_model

    def careless(experiment, dataset, **how):
        if experiment.data.streaming == "never":  # a field that is in no key
            torch.manual_seed(99)
            return normed_net(10, 1)
        return real(experiment, dataset, **how)

    monkeypatch.setattr(running, "make_model", careless)
    with pytest.raises(AssertionError, match="never"):
        check_law(base, tmp_path, {"data.streaming": ["never"]})
