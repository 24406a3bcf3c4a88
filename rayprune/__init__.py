"""Iterative magnitude pruning, its retraining and its rivals, searched on Ray.

    import rayprune as rp

    results = rp.run(rp.load_study("quickstart"))
    print(results.answer)
    rp.write_report(results)

The names below are the API. Each is loaded when it is first used: torch and Ray take seconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rayprune.api import (
        BestTrial,
        Results,
        load_snapshot,
        open_results,
        run,
        write_report,
    )
    from rayprune.config import (
        Algorithm,
        Allr,
        Budget,
        ConfigError,
        Data,
        Dense,
        Dimension,
        Experiment,
        Measure,
        Model,
        Normalize,
        Optim,
        OwnTask,
        ParquetFiles,
        Prune,
        Retrain,
        Rewind,
        Scaling,
        Scheduler,
        Search,
        Study,
        Tracker,
        load_study,
    )
    from rayprune.exporting.exported import Exported, ExportedFile, Latency
    from rayprune.results.progress import StageProgress, StudyProgress
    from rayprune.results.storage import StorageError
    from rayprune.snapshot import Snapshot
    from rayprune.sparsifiers import Sparsifier
    from rayprune.training.task import Task

_MODULES = {
    "rayprune.api": (
        "BestTrial",
        "Results",
        "load_snapshot",
        "open_results",
        "run",
        "write_report",
    ),
    "rayprune.config": (
        "Algorithm",
        "Allr",
        "Budget",
        "ConfigError",
        "Data",
        "Dense",
        "Dimension",
        "Experiment",
        "Measure",
        "Model",
        "Normalize",
        "Optim",
        "OwnTask",
        "ParquetFiles",
        "Prune",
        "Retrain",
        "Rewind",
        "Scaling",
        "Scheduler",
        "Search",
        "Study",
        "Tracker",
        "load_study",
    ),
    "rayprune.exporting.exported": ("Exported", "ExportedFile", "Latency"),
    "rayprune.results.progress": ("StageProgress", "StudyProgress"),
    "rayprune.results.storage": ("StorageError",),
    "rayprune.snapshot": ("Snapshot",),
    "rayprune.sparsifiers": ("Sparsifier",),
    "rayprune.training.task": ("Task",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
