import pytest
from pydantic import TypeAdapter, ValidationError

from rayprune.config.sparsify import Gmp, RigL, Sparsify
from rayprune.sparsifiers import METHODS

SPARSIFY = TypeAdapter(Sparsify)


def test_every_method_has_options_and_a_name():
    assert [SPARSIFY.validate_python({"method": name}).method for name in METHODS] == list(METHODS)


def test_the_method_says_which_options_there_are():
    assert SPARSIFY.validate_python({"method": "rigl", "interval": 0.02}) == RigL(interval=0.02)
    with pytest.raises(ValidationError, match="theta_init"):
        SPARSIFY.validate_python({"method": "gmp", "theta_init": -3})


@pytest.mark.parametrize("method", ["str", "cs", "dst"])
def test_methods_that_find_their_sparsity_cannot_be_told_one(method):
    with pytest.raises(ValidationError, match="sparsity"):
        SPARSIFY.validate_python({"method": method, "sparsity": 0.9})


def test_a_goal_is_a_fraction():
    with pytest.raises(ValidationError, match="less than 1"):
        SPARSIFY.validate_python({"method": "gsm", "sparsity": 90})


def test_options_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Gmp().sparsity = 0.5
