"""Whatever process of a study is killed, it ends with the same bits; ``chaos.py`` runs more."""

import chaos
import pytest

SEED = 1


@pytest.mark.slow
@pytest.mark.timeout(3 * chaos.LIMIT_S)
@pytest.mark.parametrize("number", [1, 2, 5], ids=["two workers", "two slots", "several nodes"])
def test_what_is_killed_changes_no_bit(number):
    chaos.disturbed(chaos.make_plan(SEED, number))
