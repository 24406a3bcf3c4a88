"""What the formats are made from, each made once, as the ONNX file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from rayprune.exporting.network import CPU, Network, spread_rows
from rayprune.exporting.process import RuntimeProcess, require
from rayprune.exporting.program import Program, make_program, write_onnx, write_program
from rayprune.pruning.structured import remove_filters

ONNX = "model.onnx"
CALIBRATION_BATCH = 64


@dataclass(frozen=True, eq=False)
class Workplace:
    """A network that is being exported, in a folder that is only for that."""

    network: Network
    folder: Path
    process: RuntimeProcess
    batch: int = 1
    """Samples that a file takes at a time where it cannot take any number."""

    @cached_property
    def smaller(self) -> Network:
        """The network, without its zero filters if it has some: its outputs are the same."""
        if not self.network.loses_filters:
            return self.network
        require("small")
        example = self.network.inputs(2)
        if len(example) != 1:
            raise ValueError(
                f"filters are only removed from a network of one input tensor, got {len(example)}"
            )
        model = remove_filters(self.network.model, self.network.masks, example[0])
        return replace(self.network, model=model)

    @cached_property
    def program(self) -> Program:
        """Its program, and so that of all files that run."""
        return make_program(self.smaller, batch=self.batch)

    def calibration(self, count: int) -> list[list[np.ndarray]]:
        """Batches of inputs from all over the training split, without augmentation."""
        network, batch = self.smaller, self.program.batch or CALIBRATION_BATCH
        rows = spread_rows(len(network.dataset.train), count // batch * batch or batch)
        batches = network.dataset.train.batches(rows.split(batch), device=CPU)
        return [[tensor.numpy() for tensor in network.tensors_of(*each)] for each in batches]

    @cached_property
    def onnx(self) -> Path:
        """Its ONNX file, whose zeros are in place."""
        require("onnx file")
        write_onnx(self.program, self.folder / ONNX)
        return self.folder / ONNX

    @cached_property
    def mnn(self) -> Path:
        """Its MNN file, with sparse kernels where a layer has zeros enough for them."""
        require("mnn")
        path = self.folder / "model.mnn"
        self.process.convert_to_mnn(self.onnx, path, is_sparse=True)
        return path

    def file_for(self, runtime: str) -> Path:
        """What a runtime runs."""
        if runtime == "mnn":
            return self.mnn
        if runtime == "torch":
            write_program(self.program, self.folder / "model.pt2")
            return self.folder / "model.pt2"
        require(runtime)
        return self.onnx
