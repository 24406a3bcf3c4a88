"""A stage's inputs."""

from rayprune.plan import (
    Inputs,
)


def test_inputs_name_every_key_once_weights_first():
    """Weights, masks, teacher, then the ingredients in their order."""
    inputs = Inputs(weights="w", masks="m", teacher="t", ingredients=("b", "a"))
    assert inputs.keys == ("w", "m", "t", "b", "a")
    soup = Inputs(weights="a", masks="m", teacher="m", ingredients=("c", "a", "b", "c"))
    assert soup.keys == ("a", "m", "c", "b")
    assert Inputs(masks="m", ingredients=("m",)).keys == ("m",)
    assert Inputs().keys == ()
