"""What to compute, as frozen values: read, checked in full, and never changed afterwards."""

from rayprune.config.data import Data, Normalize, ParquetFiles
from rayprune.config.experiment import (
    Allr,
    Budget,
    Dense,
    Experiment,
    Prune,
    Retrain,
    Rewind,
)
from rayprune.config.load import load_study, load_study_of_one
from rayprune.config.measure import Measure
from rayprune.config.messages import ConfigError
from rayprune.config.model import Model
from rayprune.config.optim import Optim
from rayprune.config.study import (
    Algorithm,
    Dimension,
    Scaling,
    Scheduler,
    Search,
    Space,
    Study,
    Tracker,
)
from rayprune.config.task import OwnTask

__all__ = [
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
    "Space",
    "Study",
    "Tracker",
    "load_study",
    "load_study_of_one",
]
