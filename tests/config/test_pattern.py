"""One rule for n:m, whoever asks."""

import pytest
import torch

from rayprune.config import Prune
from rayprune.config.pattern import check_sparsity, n_of_m
from rayprune.pruning.allocation import prune_weights

NOT_PATTERNS = ["4:4", "4:2", "0:4", "02:4", "2:04", "-1:4", "2:4:8", "2:", ":4", "a:b", " 2:4",
                "2:4\n", "filters", "", "２:４"]  # fmt: skip


@pytest.mark.parametrize(("pattern", "numbers"), [("1:2", (1, 2)), ("4:16", (4, 16))])
def test_n_of_m_is_read(pattern, numbers):
    assert n_of_m(pattern) == numbers


@pytest.mark.parametrize("pattern", ["unstructured", "filter"])
def test_other_patterns_have_no_numbers_and_take_any_sparsity(pattern):
    assert n_of_m(pattern) is None
    check_sparsity(pattern, 0.123)


@pytest.mark.parametrize("pattern", NOT_PATTERNS)
def test_what_is_no_pattern_is_refused(pattern):
    with pytest.raises(ValueError, match="0 < n < m such as 2:4, got"):
        n_of_m(pattern)


@pytest.mark.parametrize("pattern", ["1:2", "2:4", "2:3", "3:7"])
@pytest.mark.parametrize("error", [-2e-6, -5e-7, 0, 5e-7, 2e-6])
def test_the_configuration_and_the_prune_step_agree_on_the_sparsity(pattern, error):
    n, m = n_of_m(pattern)
    sparsity = 1 - n / m + error
    weights = {"w": torch.rand(3, 2 * m) + 1}
    masks = {"w": torch.ones(3, 2 * m, dtype=torch.bool)}

    def configure():
        Prune(pattern=pattern, sparsity=sparsity)

    def prune():
        prune_weights(weights, masks, sparsity=sparsity, allocation="global", pattern=pattern)

    for check in (lambda: check_sparsity(pattern, sparsity), configure, prune):
        if abs(error) < 1e-6:
            check()
        else:
            with pytest.raises(ValueError, match=f"{pattern} removes exactly .* Write sparsity: "):
                check()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"round_channels": 8}, "round_channels is of pattern filter, got round_channels 8"),
        (
            {"couple_filters": True, "pattern": "2:4", "sparsity": 0.5},
            "couple_filters is of .* and pattern 2:4. Write pattern: filter",
        ),
        (
            {"couple_filters": True, "pattern": "filter", "allocation": "uniform_plus"},
            "Write allocation: uniform, or couple_filters: false",
        ),
        ({"round_channels": 0, "pattern": "filter"}, "greater than or equal to 1"),
        ({"round_channels": True, "pattern": "filter"}, "filters, got True. Write round_channels"),
        (
            {"allocation": "lamp", "pattern": "filter"},
            "Write allocation: global, or pattern: unstructured",
        ),
    ],
)
def test_what_is_of_filters_alone_is_refused_elsewhere(fields, message):
    with pytest.raises(ValueError, match=message):
        Prune(**fields)
    Prune(round_channels=8, couple_filters=True, pattern="filter", allocation="uniform")
