"""Studies from YAML files and overrides, read into checked values; all mistakes at once."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rayprune.config.messages import ConfigError, validated
from rayprune.config.study import Study
from rayprune.config.yaml_reader import read_yaml

STUDY_FIELDS = tuple(Study.model_fields)
SPACE = "search.space."
WEIGHTS = ("model", "weights")  # a file, a folder, or the name of an entry
A_STUDY = """\
experiment: {prune: {sparsity: 0.95, cycles: 1}}
search: {space: {retrain.epochs: {grid: [1, 3]}}}"""
AN_EXPERIMENT = """\
prune: {sparsity: 0.95, cycles: 1}
retrain: {epochs: 3}"""


def load_study(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Study:
    """Read a study; `path` may name a file or one of the shipped studies, None is the quickstart.

    Raises ``ConfigError`` with a line for every mistake.
    """
    file = find_study(path or "quickstart")
    raw = _read_fields(file, A_STUDY)
    raw.setdefault("name", file.stem)
    _override(raw, overrides)
    make_paths_absolute(raw.get("experiment"))
    return validated(Study, raw)


def load_study_of_one(path: str | Path, overrides: Sequence[str] = ()) -> Study:
    """Read a file that describes one experiment, as a study without a search.

    The file may be a study, whose search is left out, or hold the experiment's fields alone. Raises
    ``ConfigError`` with a line for every mistake.
    """
    file = find_study(path)
    raw = _read_fields(file, AN_EXPERIMENT)
    if not set(raw) & {"experiment", "search"}:
        beside = {name: raw.pop(name) for name in STUDY_FIELDS if name in raw}
        raw = {"experiment": raw, **beside}
    raw.setdefault("name", file.stem)
    _override(raw, overrides)
    make_paths_absolute(raw.get("experiment"))
    search = raw.pop("search", None)
    if isinstance(search, dict):  # what the result is told by, and what may be asked of it
        raw["search"] = {name: search[name] for name in ("metric", "measure") if name in search}
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


def _read_fields(file: Path, example: str) -> dict[str, Any]:
    """The fields of a file; `example` is what to write into an empty one."""
    try:
        raw = read_yaml(file.read_text())
    except ValueError as error:
        raise ConfigError(f"{file} is not YAML: {error}") from None
    if raw is None or raw == {}:
        raise ConfigError(f"{file} is empty. Write fields into it, such as\n{example}")
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
            parsed = read_yaml(value)
        except ValueError:
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
    """Set a nested field of a raw configuration in place, and make the levels that lack.

    Raises a ``ValueError`` where a level is a value, which has no fields.
    """
    for depth, key in enumerate(keys[:-1]):
        inner = raw.get(key)
        if inner is None:
            inner = raw[key] = {}
        if not isinstance(inner, dict):
            raise ValueError(f"{'.'.join(keys[: depth + 1])} is a value, it has no fields")
        raw = inner
    raw[keys[-1]] = value


def make_paths_absolute(experiment: Any) -> None:
    """Make relative paths of a raw experiment absolute, in place.

    A Ray worker's working folder is not the user's. Addresses such as s3:// stay as they are, and
    so do weights that are nothing here but the name of an entry.
    """
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
            and (keys != WEIGHTS or Path(path).expanduser().exists())
        ):
            holder[keys[-1]] = str(Path(path).expanduser().absolute())
