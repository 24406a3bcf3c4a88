"""Each recipe's study can be read, and what it names is there."""

import pytest

from rayprune.config import load_study
from rayprune.config.load import shipped_studies
from rayprune.config.target import find_attribute
from rayprune.config.task import OwnTask

RECIPES = sorted(name for name in shipped_studies() if name.startswith("recipe_"))


@pytest.mark.parametrize("name", RECIPES)
def test_targets_exist(name):
    experiment = load_study(name).experiment
    owners = [experiment.model, experiment.data, experiment.task]
    targets = [o.target for o in owners if not isinstance(o, str) and o.target is not None]
    assert all(
        callable(find_attribute(t, name)) or isinstance(experiment.task, OwnTask) for t in targets
    )
    assert targets or name == "recipe_timm"


@pytest.mark.parametrize("name", RECIPES)
def test_the_file_opens_with_its_command_and_its_cost(name):
    header = shipped_studies()[name].read_text().split("experiment:")[0]
    for words in (f"rayprune.tune {name}", "# Yours: ", "# Expected: ", "# Cost: "):
        assert words in header
