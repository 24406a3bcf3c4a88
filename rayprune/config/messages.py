"""What is wrong with a configuration, in words: the field, the rule, the value, the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

# What users of other tools write, and what it is called here.
SYNONYMS = {
    "target_sparsity": "prune.sparsity",
    "final_sparsity": "prune.sparsity",
    "goal_sparsity": "prune.sparsity",
    "n_phases": "prune.cycles",
    "num_cycles": "prune.cycles",
    "phases": "prune.cycles",
    "learning_rate": "optim.lr",
    "lr": "optim.lr",
    "n_epochs_per_phase": "retrain.epochs",
    "num_workers": "scaling.workers",
    "dataset": "data.name",
    "early_stop": "search.scheduler",
    "early_stopping": "search.scheduler",
    "search_alg": "search.algorithm",
    "searcher": "search.algorithm",
}

Value = TypeVar("Value", bound=BaseModel)


class ConfigError(ValueError):
    """A study cannot be run as it is written; each line of the message is one mistake."""


def validated(kind: type[Value], raw: Any, *, at: str = "") -> Value:
    """Return `raw` as a checked value of `kind`; `at` is the dotted path where it stands.

    Raises ``ConfigError`` with a line for every mistake.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        lines = [_explain(kind, e, at) for e in error.errors(include_url=False)]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None


def _explain(kind: type[BaseModel], error: Any, at: str) -> str:
    keys = [str(key) for key in error["loc"]]
    where = ".".join([at, *keys] if at else keys) or "study"
    if error["type"] == "extra_forbidden":
        return no_such_field(kind, keys, at)
    rule = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    rule = rule[0].lower() + rule[1:]
    if error["type"] == "value_error":  # one of our validators, which say all by themselves
        lines = rule.split("\n")  # one that names a field further inside says where it stands
        return "\n".join(x if x.startswith(f"{where}.") else f"{where}: {x}" for x in lines)
    given = error["input"]
    remedy = ""
    if error["type"] in ("less_than", "less_than_equal") and _is_percent(given):
        remedy = f" Write {float(given) / 100:g} for {float(given):g} %."
    return f"{where}: {rule}, got {given!r}.{remedy}"


def no_such_field(kind: type[BaseModel], keys: Sequence[str], at: str = "") -> str:
    """The mistake of naming a field that `kind` does not have; `at` is where `kind` stands."""
    return f"{'.'.join([at, *keys] if at else keys)}: no such field.{nearest(kind, keys)}"


def _is_percent(given: Any) -> bool:
    return isinstance(given, int | float) and 1 <= given < 100


def nearest(kind: type[BaseModel], keys: Sequence[str]) -> str:
    """A hint at the field that was meant: beside the wrong one, elsewhere, or what is beside it."""
    wrong = keys[-1]
    paths = _field_paths(kind)
    if wrong in SYNONYMS:
        right = [path for path in paths if f".{path}".endswith(f".{SYNONYMS[wrong]}")]
        if right:  # a search space cannot reach fields outside of the experiment
            return f" Did you mean {right[0]}?"
    prefix = "".join(f"{key}." for key in keys[:-1])
    beside = [path.removeprefix(prefix) for path in paths if path.startswith(prefix)]
    beside = [path for path in beside if "." not in path]
    near = difflib.get_close_matches(wrong, beside, 1)
    if near:
        return f" Did you mean {near[0]}?"
    elsewhere = {path.rsplit(".", 1)[-1]: path for path in paths}
    near = difflib.get_close_matches(wrong, elsewhere, 1, cutoff=0.75)
    if near:
        return f" Did you mean {elsewhere[near[0]]}?"
    return f" Its neighbours are {', '.join(beside)}." if beside else ""


def _field_paths(kind: type[BaseModel], prefix: str = "") -> list[str]:
    """Dotted paths of all fields below a model, its own first."""
    own, below = [], []
    for name, field in kind.model_fields.items():
        own.append(prefix + name)
        inner = field.annotation
        for option in (inner, *getattr(inner, "__args__", ())):
            if isinstance(option, type) and issubclass(option, BaseModel):
                below += _field_paths(option, f"{prefix}{name}.")
    return own + below
