"""YAML files and overrides, read into checked values; all mistakes at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from rayprune.config.study import ONE_SPACE, SEVERAL_SPACES, Study

ROOT_FIELDS = tuple(Study.model_fields)
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
}
SPACE = "search.space."
WEIGHTS = ("model", "weights")  # a file, or the name of a torchvision entry


class _Yaml(yaml.SafeLoader):
    """YAML with 1.2's numbers: in 1.1, `2:4` is the number 124 (in base 60) and `5e-4` is text."""


_Yaml.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in kinds if not tag.endswith((":int", ":float"))]
    for first, kinds in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?((\d+\.\d*|\.\d+)([eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.inf|\.nan)$"),
    list("-+.0123456789"),
)
_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?\d+$"), list("-+0123456789")
)


class ConfigError(ValueError):
    """A study cannot be run as it is written; each line of the message is one mistake."""


def load_study(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Study:
    """Read a study; `path` may name a file or one of the shipped studies, None is the quickstart.

    Raises ``ConfigError`` with a line for every mistake.
    """
    file = find_study(path or "quickstart")
    raw = _read_yaml(file)
    raw.setdefault("name", file.stem)
    _override(raw, overrides)
    make_paths_absolute(raw.get("experiment"))
    return validated(Study, raw)


def load_experiment(path: str | Path, overrides: Sequence[str] = ()) -> Study:
    """Read a file that describes one experiment, as a study of one: its search is left out.

    The file may be a study, or hold the experiment's fields alone. Raises ``ConfigError``.
    """
    file = find_study(path)
    raw = _read_yaml(file)
    if not set(raw) & {"experiment", "search"}:
        raw = {"experiment": {k: v for k, v in raw.items() if k not in ROOT_FIELDS}} | {
            k: v for k, v in raw.items() if k in ROOT_FIELDS
        }
    raw.setdefault("name", file.stem)
    _override(raw, overrides)
    make_paths_absolute(raw.get("experiment"))
    raw.pop("search", None)
    return validated(Study, raw)


def find_study(name: str | Path) -> Path:
    """The file of that path, or the shipped study of that name. Raises ``ConfigError``."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_studies()
    if path.stem in shipped and len(path.parts) == 1:
        return shipped[path.stem]
    near = difflib.get_close_matches(path.stem, shipped, 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ConfigError(f"no study file {name}.{hint} Shipped studies: {', '.join(sorted(shipped))}")


def shipped_studies() -> dict[str, Path]:
    """Name -> file of the studies that come with the package."""
    here = Path(__file__).parents[1]
    # In a checkout they lie beside the package; the wheel carries them inside.
    folder = next(f for f in (here / "tune_configs", here.parent / "tune_configs") if f.is_dir())
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        raw = yaml.load(file.read_text(), _Yaml)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not YAML: {error}") from None
    raw = {} if raw is None else raw
    if not isinstance(raw, dict):
        raise ConfigError(f"{file} must hold fields such as `experiment:`, got {raw!r}")
    return raw


def _override(raw: dict[str, Any], overrides: Sequence[str]) -> None:
    mistakes = []
    for text in overrides:
        path, equals, value = text.partition("=")
        if not equals or not path:
            mistakes.append(f"{text!r} is not field.path=value. Write experiment.seed=1")
            continue
        try:
            parsed = yaml.load(value, _Yaml)
        except yaml.YAMLError:
            mistakes.append(f"{path}: {value!r} is not a YAML value")
            continue
        # The keys of a search space are themselves paths.
        keys = (
            ["search", "space", path.removeprefix(SPACE)]
            if path.startswith(SPACE)
            else path.split(".")
        )
        try:
            set_field(raw, keys, parsed)
        except ValueError as error:
            mistakes.append(f"{path}: {error}")
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def set_field(raw: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    for depth, key in enumerate(keys[:-1]):
        inner = raw.get(key)
        if inner is None:
            inner = raw[key] = {}
        if not isinstance(inner, dict):
            raise ValueError(f"{'.'.join(keys[: depth + 1])} is a value, it has no fields")
        raw = inner
    raw[keys[-1]] = value


def make_paths_absolute(experiment: Any) -> None:
    """Paths of files that are here; a Ray worker's working folder is not the user's."""
    for keys in (
        ("data", "root"),
        ("data", "parquet", "train"),
        ("data", "parquet", "test"),
        WEIGHTS,
    ):
        holder = experiment
        for key in keys[:-1]:
            holder = holder.get(key) if isinstance(holder, dict) else None
        path = holder.get(keys[-1]) if isinstance(holder, dict) else None
        if (
            isinstance(path, str)
            and "://" not in path
            and (keys != WEIGHTS or Path(path).is_file())
        ):
            holder[keys[-1]] = str(Path(path).expanduser().absolute())


Value = TypeVar("Value", bound=BaseModel)


def validated(kind: type[Value], raw: dict[str, Any], *, at: str = "") -> Value:
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        lines = [_explain(kind, e, at) for e in error.errors(include_url=False)]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None


def _explain(kind: type[BaseModel], error: Any, at: str) -> str:
    """One mistake as: dotted field, rule, value given, what to write instead."""
    # Locations of a union carry the tag of the member that was tried; users never wrote it.
    keys = [str(k) for k in error["loc"] if k not in (ONE_SPACE, SEVERAL_SPACES)]
    where = ".".join([at, *keys] if at else keys) or "study"
    given = error["input"]
    if error["type"] == "extra_forbidden":
        return f"{where}: no such field.{_nearest(kind, keys)}"
    rule = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    rule = rule[0].lower() + rule[1:]
    if error["type"] == "value_error":
        return f"{where}: {rule}"
    remedy = ""
    if error["type"] in ("less_than", "less_than_equal") and _is_percent(given):
        remedy = f" Write {float(given) / 100:g} for {float(given):g} %."
    return f"{where}: {rule}, got {given!r}.{remedy}"


def _is_percent(given: Any) -> bool:
    return isinstance(given, int | float) and 1 <= given < 100


def _nearest(kind: type[BaseModel], keys: Sequence[str]) -> str:
    wrong = keys[-1]
    paths = _field_paths(kind)
    if wrong in SYNONYMS:
        right = SYNONYMS[wrong]
        right = right if right in paths else next(p for p in paths if p.endswith(right))
        return f" Did you mean {right}?"
    prefix = "".join(f"{k}." for k in keys[:-1])
    beside = [p.removeprefix(prefix) for p in paths if p.startswith(prefix)]
    beside = [p for p in beside if "." not in p]
    near = difflib.get_close_matches(wrong, beside, 1)
    if near:
        return f" Did you mean {near[0]}?"
    elsewhere = {p.rsplit(".", 1)[-1]: p for p in paths}
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
        options = [inner, *getattr(inner, "__args__", ())]
        for option in options:
            if isinstance(option, type) and issubclass(option, BaseModel):
                below += _field_paths(option, f"{prefix}{name}.")
    return own + below
