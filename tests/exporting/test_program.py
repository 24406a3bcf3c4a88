"""What cannot be exported is named, with what to do instead."""

import logging
import os

import pytest
import torch
from made_exports import made_network
from torch import nn

from rayprune.exporting.program import make_program, write_onnx


def with_an_own_branch(num_classes, in_channels):
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(784, num_classes)

        def forward(self, images):
            out = self.linear(images.flatten(1))
            return out if out.sum() > 0 else -out

    return Branching()


def with_an_unknown_operation(num_classes, in_channels):
    class Singular(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(28, num_classes)

        def forward(self, images):
            return self.linear(torch.linalg.svdvals(images[:, 0]))

    return Singular()


def test_a_branch_on_values_cannot_be_followed(few_images):
    network = made_network(few_images, {"target": f"{__name__}:with_an_own_branch"})
    with pytest.raises(ValueError, match=r"torch\.export does not take .*safetensors"):
        make_program(network)


def test_an_operation_that_onnx_lacks_is_named(few_images, tmp_path):
    network = made_network(few_images, {"target": f"{__name__}:with_an_unknown_operation"})
    program = make_program(network)
    with pytest.raises(ValueError, match=r"operation aten\.\w*svd.*safetensors"):
        write_onnx(program, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_the_callers_process_stays_as_it_was(few_images, tmp_path):
    network = made_network(few_images, "lenet_300_100")
    before = dict(os.environ), logging.root.manager.disable, torch.get_rng_state()
    write_onnx(make_program(network), tmp_path / "model.onnx")
    after = dict(os.environ), logging.root.manager.disable, torch.get_rng_state()
    assert before[:2] == after[:2] and torch.equal(before[2], after[2])
