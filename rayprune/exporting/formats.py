"""The formats that a network is exported to: what each writes, and what runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from rayprune.config.brought import MASKS, MODEL, PROVENANCE
from rayprune.exporting.deployed import Deployed, OnGpu
from rayprune.exporting.loaders import packed as packed_loader
from rayprune.exporting.network import fresh_network
from rayprune.exporting.packed import write_packed
from rayprune.exporting.process import missing
from rayprune.exporting.semi_structured import write_semi_structured
from rayprune.exporting.small import write_small
from rayprune.exporting.torch_sparse import write_torch_sparse
from rayprune.exporting.workplace import Workplace
from rayprune.results.labels import counted

ONNX_RUNTIMES = ("onnx", "openvino")
NUM_CALIBRATION = 512  # training images that int8's ranges are taken from


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a format wrote into the workplace's folder."""

    files: tuple[str, ...]
    """The first is the model."""
    module: Callable[[], nn.Module]
    """What runs it, called as the network is."""
    runtime: str
    """Which that is."""
    load: str
    """Lines of code that load it, of no package but the runtime's."""
    timed_in: tuple[str, ...] = ()
    """Runtimes in which the first file is timed."""
    is_exact: bool = True
    """Whether its outputs are to be the network's."""
    note: str = ""


def make_safetensors(place: Workplace) -> Made:
    """As in best/, which the caller has written: plain keys, zeros in place."""
    beside = [name for name in (MASKS, PROVENANCE) if (place.folder / name).exists()]
    return Made(
        files=(MODEL, *beside),
        module=lambda: _filled(place, load_file(place.folder / MODEL)),
        runtime="torch",
        load=(
            "from safetensors.torch import load_file\n"
            'model.load_state_dict(load_file("model.safetensors"))  # model: yours, unpruned\n'
            "outputs = model.eval()(images)"
        ),
    )


def make_packed(place: Workplace) -> Made:
    write_packed(place.network.model.state_dict(), place.network.masks, place.folder)
    return Made(
        files=("packed.safetensors", "packed.py"),
        module=lambda: _filled(place, _loaded(place.folder / "packed.safetensors")),
        runtime="torch",
        load=(
            "from packed import load  # needs numpy and safetensors alone\n"
            'weights = load("packed.safetensors")  # name -> array, zeros in place\n'
            "model.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})"
        ),
        note="for storing and sending: the loader makes the weights whole",
    )


def make_onnx(place: Workplace) -> Made:
    made = _in_runtime(place, "onnx", place.onnx, ONNX_RUNTIMES)
    return replace(made, note=f"{made.note}its zeros are in place, and take part in every product")


def make_mnn(place: Workplace) -> Made:
    made = _in_runtime(place, "mnn", place.mnn)
    words = "layers with many zeros are stored and computed without them"
    return replace(made, note=f"{made.note}{words}")


def make_int8(place: Workplace) -> Made:
    """After pruning: zeros stay zeros, for zero is one of int8's values."""
    path = place.folder / "model.int8.onnx"
    place.process.quantize(place.onnx, path, place.calibration(NUM_CALIBRATION))
    made = _in_runtime(place, "onnx", path, ONNX_RUNTIMES)
    return replace(made, is_exact=False, note=f"{made.note}calibrated on training samples")


def make_small(place: Workplace) -> Made:
    if not place.network.loses_filters:
        raise ValueError(
            "the format small is for networks without whole filters, and no filter of this one is "
            "removed. Prune with prune.pattern: filter, or export another format"
        )
    model = write_small(place.smaller.model, place.network.inputs(2)[0], place.folder)
    return Made(
        files=("small.safetensors", "small.py"),
        module=lambda: model,
        runtime="torch",
        load=(
            "from small import load  # needs torch and safetensors\n"
            'model = load("small.safetensors")\n'
            "outputs = model(images)"
        ),
    )


def make_torch_sparse(place: Workplace) -> Made:
    model = write_torch_sparse(place.network.model, place.network.masks, place.folder)
    return Made(
        files=("torch_sparse.safetensors", "torch_sparse.py"),
        module=lambda: model,
        runtime="torch",
        load=(
            "from torch_sparse import load  # needs torch and safetensors\n"
            'model = load(model, "torch_sparse.safetensors")  # model: yours, unpruned\n'
            "outputs = model(inputs)"
        ),
    )


def make_semi_structured(place: Workplace) -> Made:
    model = write_semi_structured(place.network.model, place.network.masks, place.folder)
    return Made(
        files=("semi_structured.safetensors", "semi_structured.py"),
        module=lambda: OnGpu(model),
        runtime="torch",
        load=(
            "from semi_structured import load  # needs torch, safetensors and a GPU\n"
            'model = load(model, "semi_structured.safetensors")  # model: yours, unpruned\n'
            "outputs = model(inputs.half().cuda())"
        ),
        is_exact=False,  # float16
    )


def _of_samples(place: Workplace) -> str:
    """Of a file that does not take any number of samples."""
    batch = place.program.batch
    return "" if batch is None else f"takes {counted(batch, 'sample')} at a time; "


def _in_runtime(place: Workplace, runtime: str, path: Path, timed_in: tuple[str, ...] = ()) -> Made:
    names = place.smaller.signature.names
    beside = [data.name] if (data := path.with_name(f"{path.name}.data")).exists() else []
    return Made(
        files=(path.name, *beside),  # of more than 2 GB, ONNX holds its weights in a second one
        module=lambda: Deployed.open(place.process, runtime, path, place.smaller, place.program),
        runtime=runtime,
        load=LOAD[runtime].format(file=path.name, inputs=_named(names), arrays=", ".join(names)),
        note=_of_samples(place),
        timed_in=tuple(r for r in (timed_in or (runtime,)) if not missing(r)),
    )


def _named(names: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}": {name}' for name in names)


def _filled(place: Workplace, weights: Mapping[str, torch.Tensor]) -> nn.Module:
    """The network as its own code makes it, with the weights of a file."""
    model = fresh_network(place.network)
    model.load_state_dict(dict(weights))
    return model


def _loaded(path: Path) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in packed_loader.load(path).items()}


LOAD = {
    "onnx": (
        "import onnxruntime\n"
        'session = onnxruntime.InferenceSession("{file}")\n'
        "outputs = session.run(None, {{{inputs}}})  # arrays (n, ...)"
    ),
    "mnn": (
        "import MNN.nn, MNN.expr as F\n"
        'module = MNN.nn.load_module_from_file("{file}", [], [])\n'
        "given = [F.const(array, array.shape, F.NCHW) for array in [{arrays}]]\n"
        "outputs = [F.convert(o, F.NCHW).read() for o in module.onForward(given)]"
    ),
}
FORMATS: Mapping[str, Callable[[Workplace], Made]] = {
    "safetensors": make_safetensors,
    "packed": make_packed,
    "onnx": make_onnx,
    "mnn": make_mnn,
    "small": make_small,
    "torch_sparse": make_torch_sparse,
    "semi_structured": make_semi_structured,
    "int8": make_int8,
}
