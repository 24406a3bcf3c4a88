"""Reads semi_structured.safetensors, which lies beside this file. Needs torch and safetensors, and
a CUDA GPU of compute capability 8.0 or more.

    from semi_structured import load
    model = load(make_my_network(), "semi_structured.safetensors")  # of the same architecture
    outputs = model(inputs.half().cuda())
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn


def load(model: nn.Module, path: str | Path) -> nn.Module:
    """The model with the file's weights, for inference on the GPU, in half precision.

    Names and shapes must be those of the file. The model is changed in place.
    """
    with safe_open(path, "pt") as file:
        sparse = json.loads(file.metadata()["info"])["modules"]
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    model.half().load_state_dict(state)  # strict: neither more nor fewer names
    model = model.eval().requires_grad_(False).cuda()
    for module in sparse:
        layer = model.get_submodule(module)
        weight = torch.sparse.to_sparse_semi_structured(layer.get_parameter("weight").detach())
        layer.weight = nn.Parameter(weight, requires_grad=False)
    for layer in model.modules():  # torch's fused encoder reads weights itself, dense ones
        if isinstance(layer, nn.TransformerEncoder):
            layer.use_nested_tensor = False
        elif isinstance(layer, nn.TransformerEncoderLayer):
            layer.activation_relu_or_gelu = 0
    return model
