"""What an earlier start of a study left in its folder, and whether this is the same study."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from rayprune.config import ConfigError, Study
from rayprune.config.messages import validated
from rayprune.config.yaml_reader import read_yaml
from rayprune.results.files import study_file, table_file
from rayprune.results.outcome import TrialStatus
from rayprune.results.storage import modified, read_bytes
from rayprune.results.table import read_metadata, read_table
from rayprune.trials import TrialPlan, make_trials

MAX_LINES = 12  # of differences between two studies
MAX_LETTERS = 60  # of a value in such a line
# What of a search decides on its trials.
SEARCHED = {"algorithm", "space", "spaces", "where", "num_samples", "seeds", "tune"}
GROWING = {"search.num_samples", "search.seeds"}  # of a searcher: it goes on with what it knows

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Earlier:
    """What an earlier start left; empty if there was none, or nothing that can be read."""

    study: Study | None = None
    table: pa.Table | None = None
    stopped: Mapping[str, TrialStatus] = field(default_factory=dict)
    """Key of the last stage -> status of each trial that a scheduler or a stopper gave up."""

    @property
    def begun_study(self) -> Study | None:
        """The study, if a stage of it is finished: until then another may take its place."""
        return self.study if self.table is not None and self.table.num_rows else None


def read_earlier(folder: str) -> Earlier:
    """What lies in a study's folder; a warning names what is damaged. Raises ``StorageError``."""
    study = read_earlier_study(folder)
    if modified(table_file(folder)) is None:
        return Earlier(study)
    try:
        table = read_table(folder)
        _, statuses = read_metadata(table)
    except ValueError as error:
        log.warning("%s is made anew: %s", table_file(folder), error)
        return Earlier(study)
    return Earlier(study, table, {s.key: s for s in statuses if s.status == "stopped" and s.key})


def read_earlier_study(folder: str) -> Study | None:
    """The study that a folder is of, or None if it does not say. Raises ``StorageError``."""
    content = read_bytes(study_file(folder))
    if content is None:
        return None
    try:
        return validated(Study, read_yaml(content.decode()))
    except ValueError as error:
        log.warning("%s is made anew, it cannot be read: %s", study_file(folder), error)
        return None


def check_same(
    folder: str, earlier: Study | None, study: Study, trials: Sequence[TrialPlan]
) -> None:
    """A study that goes on has every trial that it had, and may have more.

    Raises ``ConfigError`` with the fields that differ.
    """
    if earlier is None or json.dumps(_fields(earlier)) == json.dumps(_fields(study)):
        return  # 1, 1.0 and True differ in a stage's key, and so they do here
    if not (study.search.algorithm.is_listed and earlier.search.algorithm.is_listed):
        _check_same_search(folder, earlier, study)
        return
    try:
        # What its trials are called here: workers and devices are in keys, and may be others now.
        here = earlier.model_copy(update={"scaling": study.scaling})
        before = [trial.key for trial in make_trials(here)]
    except ValueError as error:
        log.warning("%s is made anew, it cannot be run: %s", study_file(folder), error)
        return
    keys = {trial.key for trial in trials}
    lacking = sum(key not in keys for key in before)
    if study.search.tune and (gone := {*earlier.search.seeds} - {*study.search.seeds}):
        why = f"it reports on seed {', '.join(map(str, sorted(gone)))}, which this one does not"
        raise _another(folder, why, study, _differences(_fields(earlier), _fields(study)))
    if lacking:
        why = f"{lacking} of its {len(before)} trials are not in this one"
        raise _another(folder, why, study, _differences(_fields(earlier), _fields(study)))


def _check_same_search(folder: str, earlier: Study, study: Study) -> None:
    """A searcher goes on with the points that it knows where only their number differs."""
    there, here = (
        {path: value for path, value in _fields(each).items() if path not in GROWING}
        for each in (earlier, study)
    )
    if json.dumps(there) != json.dumps(here):
        why = "trials that a searcher proposes go on with the same search alone"
        raise _another(folder, why, study, _differences(there, here))


def _another(folder: str, why: str, study: Study, differences: Sequence[str]) -> ConfigError:
    return ConfigError(
        f"study {study.name} in {folder} is another study: {why}\n"
        + "\n".join(differences)
        + "\nTake another name (name=…), or --force (in Python force=True), which replaces its "
        "table. Finished stages are kept and shared in any case"
    )


def made_otherwise(earlier: Earlier, trials: Sequence[TrialPlan]) -> int:
    """How many finished trials of a study that goes on are not found again.

    They were made by other workers, on other devices, from other files, or by another version. What
    tuning had chosen does not count: `trials` are the tries, and the choice is made anew.
    """
    if earlier.table is None:
        return 0
    keys = {trial.key for trial in trials}
    _, statuses = read_metadata(earlier.table)
    own = [status for status in statuses if status.phase != "report"]
    return sum(status.status == "finished" and status.key not in keys for status in own)


def stops_alike(earlier: Study | None, study: Study) -> bool:
    """Whether both stop trials early by the same rule, so that what one stopped stays stopped."""
    if earlier is None:
        return False
    rules = [(s.search.scheduler, s.search.metrics) for s in (earlier, study)]
    return rules[0] == rules[1]


def _fields(study: Study) -> dict[str, Any]:
    """Dotted path -> value of all fields that decide what a study's trials are."""
    include = {"experiment": True, "search": SEARCHED}
    return _flat(study.model_dump(mode="json", include=include))  # type: ignore[arg-type]


def _flat(raw: Any, path: str = "") -> dict[str, Any]:
    """Dotted path -> value; what is not given is left out."""
    if isinstance(raw, list) and any(isinstance(value, dict) for value in raw):
        raw = {str(number): value for number, value in enumerate(raw)}
    if not isinstance(raw, dict):
        return {} if raw is None else {path: raw}
    inner = (_flat(value, f"{path}.{key}" if path else key) for key, value in raw.items())
    return {path: value for fields in inner for path, value in fields.items()}


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    paths = [path for path in {**there, **here} if repr(there.get(path)) != repr(here.get(path))]
    lines = [f"{p}: {_text(there.get(p))} there, {_text(here.get(p))} here" for p in paths]
    if len(lines) > MAX_LINES:
        lines[MAX_LINES:] = [f"… and {len(lines) - MAX_LINES} more fields"]
    return lines


def _text(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= MAX_LETTERS else f"{text[: MAX_LETTERS - 1]}…"
