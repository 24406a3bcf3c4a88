import pytest
import torch
from stepping import begin
from torch import nn

from rayprune.config.sparsify import Cs, Dst, Str

every_method = pytest.mark.parametrize(
    "options",
    [Str(theta_init=-3.0), Cs(mask_init=0.1), Dst(penalty=0.01)],
    ids=["str", "cs", "dst"],
)


class Attention(nn.Module):
    """Attention with four separate projections, two of which share a module with the others."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, kdim=6, vdim=6, batch_first=True)
        self.packed = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.attention(x, x[..., :6], x[..., :6], need_weights=False)[0]
        return self.packed(x, x, x, need_weights=False)[0]


@every_method
def test_attention_projections_are_trained_and_given_back_in_order(options):
    model, x = Attention(), torch.randn(4, 5, 8)
    training = begin(options, model, lr=0.1, momentum=0.9)
    assert not any(name.endswith("proj_weight") for name in model.state_dict())
    before = {n: w.detach().clone() for n, w in training.sparsifier.weights.items()}
    for step in range(8):
        training.step(step, lambda: (model(x) - 1).square().mean())
    assert not any(training.sparsifier.weights[name].equal(w) for name, w in before.items())
    with training.sparsifier.shipped(), torch.no_grad():
        shipped = model.eval()(x)

    masks = training.sparsifier.finish()

    assert list(model.state_dict()) == list(Attention().state_dict())
    assert list(masks) == [
        "attention.q_proj_weight",
        "attention.k_proj_weight",
        "attention.v_proj_weight",
        "attention.out_proj.weight",
        "packed.in_proj_weight",
        "packed.out_proj.weight",
    ]
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x), shipped)  # attention has two ways to round


@every_method
def test_layers_that_share_a_weight_are_refused(options):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    with pytest.raises(
        ValueError, match=r"share a weight, got 1\.weight\. Add it to prune\.ignore"
    ):
        begin(options, model)
