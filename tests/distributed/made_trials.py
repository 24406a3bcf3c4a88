"""A trial of a dense run of two epochs and two cycles of three, and a search that compares it."""

from rayprune.config import Experiment, Search, Study
from rayprune.config.goals import goals_of
from rayprune.plan import make_plan
from rayprune.trials import TrialPlan

EXPERIMENT = Experiment.model_validate(
    {"prune": {"cycles": 2}, "retrain": {"epochs": 3}, "dense": {"epochs": 2}}
)
TRIAL = TrialPlan("a", {}, EXPERIMENT, make_plan(EXPERIMENT))
METRIC = "val_accuracy"


def search_of(**fields):
    return Search.model_validate(fields)


def goals_with(**fields):
    return goals_of(Study(search=search_of(**fields)))
