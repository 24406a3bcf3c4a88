"""What to compute, as frozen values: read, checked in full, and never changed afterwards."""

from rayprune.config.experiment import (
    Allr,
    Budget,
    Data,
    Dense,
    Experiment,
    Model,
    Optim,
    ParquetFiles,
    Prune,
    Retrain,
    Rewind,
)
from rayprune.config.load import load_study, load_study_of_one
from rayprune.config.messages import ConfigError
from rayprune.config.study import Dimension, EarlyStop, Scaling, Search, Space, Study

__all__ = [
    "Allr",
    "Budget",
    "ConfigError",
    "Data",
    "Dense",
    "Dimension",
    "EarlyStop",
    "Experiment",
    "Model",
    "Optim",
    "ParquetFiles",
    "Prune",
    "Retrain",
    "Rewind",
    "Scaling",
    "Search",
    "Space",
    "Study",
    "load_study",
    "load_study_of_one",
]
