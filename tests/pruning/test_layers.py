"""The classes of layers, and what the package assumes of their weights."""

import pytest

from rayprune.pruning.layers import BATCH_NORMS, CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS
from rayprune.pruning.masks import prunable


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_convolutions_weight_begins_with_its_outputs(kind):
    assert kind(2, 6, 3).weight.shape[:2] == (6, 2)
    assert prunable(kind(2, 6, 3)) == ("weight",)


@pytest.mark.parametrize("kind", TRANSPOSED_CONVOLUTIONS)
def test_a_transposed_convolutions_weight_begins_with_its_inputs(kind):
    assert kind(2, 6, 3).weight.shape[:2] == (2, 6)
    assert prunable(kind(2, 6, 3)) == ("weight",)
    assert not issubclass(kind, CONVOLUTIONS)


@pytest.mark.parametrize("kind", BATCH_NORMS)
def test_a_batch_norm_is_not_prunable(kind):
    assert kind(3).running_mean.shape == (3,)
    assert prunable(kind(3)) == ()
