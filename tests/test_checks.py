"""What a study needs that is not installed is told before anything runs."""

import pytest

from rayprune.checks import check_parts
from rayprune.config import Study


def test_coupled_filters_need_an_extra(monkeypatch):
    prune = {"pattern": "filter", "couple_filters": True}
    study = Study.model_validate({"experiment": {"prune": prune}})
    check_parts(study, [])
    monkeypatch.setattr("rayprune.checks.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"couple_filters: true .*install rayprune\[small\]"):
        check_parts(study, [])
