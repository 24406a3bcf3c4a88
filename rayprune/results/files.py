"""Every file name of a study, and where its results lie.

    <storage>/stages/<key>/<sha256>.safetensors   weights and masks after a stage, shared by studies
                           snapshot.json          names that hash; written last: it counts
                           epoch.safetensors      progress inside an unfinished stage
                           running.json           who runs the stage
                           measured-<runtime>-<threads>-<batch>.json
                                                  what its network weighs and takes as a file
    <storage>/<name>/study.yaml                   the study as it was resolved
                     results.parquet              a row for each trial and stage
                     report.html, plots/          for people
                     best/                        the model to ship
                     dense/                       the dense network that it was pruned from
                     export/<trial>/              a network in formats for others, with its card
                     proposed.json                the points that a searcher proposed
                     running.json                 who runs the study
                     tensorboard/<trial>/         events for TensorBoard
                     tracking.json                what a tracker that cannot be asked was told

The storage is a folder or any URI that ``pyarrow.fs`` opens (s3://, gs://).
"""

from __future__ import annotations

import os
from pathlib import Path

from rayprune.config import Measure, Study
from rayprune.config.brought import MASKS, MODEL, PROVENANCE


def snapshot_file(storage: str, key: str, sha256: str) -> str:
    """Named by its own hash: a manifest never points at another content than its own."""
    return f"{storage}/stages/{key}/{sha256}.safetensors"


def snapshot_manifest(storage: str, key: str) -> str:
    return f"{storage}/stages/{key}/snapshot.json"


def epoch_file(storage: str, key: str) -> str:
    return f"{storage}/stages/{key}/epoch.safetensors"


def stage_lease_file(storage: str, key: str) -> str:
    return f"{storage}/stages/{key}/running.json"


def measurement_file(storage: str, key: str, measure: Measure) -> str:
    """One for each way to measure, so that another way leaves what is known."""
    way = f"{measure.runtime}-{measure.threads}-{measure.batch}"
    return f"{storage}/stages/{key}/measured-{way}.json"


def study_folder(storage: str, name: str) -> str:
    return f"{storage}/{name}"


def study_file(folder: str) -> str:
    return f"{folder}/study.yaml"


def study_lease_file(folder: str) -> str:
    return f"{folder}/running.json"


def proposed_file(folder: str) -> str:
    return f"{folder}/proposed.json"


def table_file(folder: str) -> str:
    return f"{folder}/results.parquet"


def report_file(folder: str) -> str:
    return f"{folder}/report.html"


def plots_folder(folder: str) -> str:
    return f"{folder}/plots"


def token_file(folder: str) -> str:
    """What the driver writes for every node to see."""
    return f"{folder}/driver.token"


def tensorboard_file(folder: str, trial: str) -> str:
    """TensorBoard wants "tfevents" in it; the name is fixed, so that a file is replaced."""
    return f"{folder}/tensorboard/{trial}/events.out.tfevents.0.rayprune"


def tracking_file(folder: str) -> str:
    return f"{folder}/tracking.json"


def best_folder(folder: str) -> str:
    return f"{folder}/best"


def dense_folder(folder: str) -> str:
    return f"{folder}/dense"


def export_folder(folder: str, what: str) -> str:
    return f"{folder}/export/{what}"


def model_file(model: str) -> str:
    """Of a folder with a model, best/ or dense/."""
    return f"{model}/{MODEL}"


def masks_file(model: str) -> str:
    return f"{model}/{MASKS}"


def provenance_file(model: str) -> str:
    """Written last, so it says that the model beside it is whole."""
    return f"{model}/{PROVENANCE}"


def location(folder: str | Path) -> str:
    """A folder as the file systems take it: absolute, or a URI, without a slash at its end."""
    if isinstance(folder, str) and "://" in folder:
        return folder.rstrip("/")
    return str(Path(folder).expanduser().resolve())


def storage_of(folder: str) -> str:
    """The storage in which a study's folder lies."""
    return folder.rpartition("/")[0]


def default_storage(study: Study) -> str:
    """Where results go: the study's own word, RAYPRUNE_STORAGE, or ./rayprune_runs; absolute."""
    storage = study.storage or os.environ.get("RAYPRUNE_STORAGE") or "rayprune_runs"
    return location(storage)
