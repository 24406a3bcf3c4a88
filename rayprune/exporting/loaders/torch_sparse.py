"""Reads torch_sparse.safetensors, which lies beside this file. Needs torch and safetensors alone.

from torch_sparse import load
model = load(make_my_network(), "torch_sparse.safetensors")  # of the same architecture
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn


class CsrLinear(nn.Linear):
    """A linear layer whose weight is CSR, on the CPU, for inputs of any number of dimensions.

    nn.Linear itself would run, too, but not in torch.inference_mode, and several times slower where
    the batch has more than one row: it multiplies from the other side.
    """

    def forward(self, input: Tensor) -> Tensor:
        rows = input.reshape(-1, self.in_features)
        weight, bias = self.weight, self.bias
        if len(rows) == 1:
            row = rows[0]
            output = weight.mv(row) if bias is None else torch.addmv(bias, weight, row)
        else:
            columns = rows.t().contiguous()  # inputs x rows
            added = weight @ columns if bias is None else bias[:, None].addmm(weight, columns)
            output = added.t().contiguous()
        return output.reshape(*input.shape[:-1], self.out_features)


def load(model: nn.Module, path: str | Path) -> nn.Module:
    """The model with the file's weights, for inference: its sparse linear layers are CsrLinear.

    Names and shapes must be those of the file. The model is changed in place.
    """
    with safe_open(path, "pt") as file:
        sparse = json.loads(file.metadata()["info"])  # module -> shape of its weight
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for module, shape in sparse.items():
        name = f"{module}.weight" if module else "weight"
        rows, columns, values = (state.pop(f"{name}:{p}") for p in ("rows", "columns", "values"))
        state[name] = torch.sparse_csr_tensor(
            rows, columns, values, size=shape, check_invariants=True
        )
    model.load_state_dict(state, assign=True)  # strict: neither more nor fewer names
    for module in sparse:
        model.get_submodule(module).__class__ = CsrLinear
    for layer in model.modules():  # torch's fused encoder reads weights itself, dense ones
        if isinstance(layer, nn.TransformerEncoder):
            layer.use_nested_tensor = False
        elif isinstance(layer, nn.TransformerEncoderLayer):
            layer.activation_relu_or_gelu = 0
    return model.eval().requires_grad_(False)
