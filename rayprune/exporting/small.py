"""A network without its removed filters, as plain torch code that needs nothing of ours.

`small.py` builds it, and `load("small.safetensors")` there fills it in. The code is written from
what torch.fx traces: each layer by its constructor, under the name that it had, and what runs
between them. It only counts once it was run and gave what the network gives.
"""

from __future__ import annotations

import ast
import inspect
import json
import keyword
import re
import traceback
import warnings
from collections.abc import Iterator, Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, fx, nn
from torch.fx.experimental import meta_tracer

from rayprune.pruning.structured import evaluate

WEIGHTS, BUILDER = "small.safetensors", "small.py"
_INSTEAD = "Write the format onnx instead: --to onnx"
_PLAIN = ("torch", "math", "operator", "builtins")  # modules that the builder may use
_OF_FX = {"inf": "from math import inf", "nan": "from math import nan"}

_HEADER = f'''"""A network without its pruned filters; written by rayprune.

Its layers are as torch {torch.__version__} writes them; an older torch may not know an option.

    from small import load

    model = load("small.safetensors")
"""
'''
_LOAD = '''

def load(path):
    """The network with its weights, in evaluation mode."""
    model = Model()
    model.load_state_dict(load_file(path))
    return model.eval()
'''


def write_small(smaller: nn.Module, example: Tensor, folder: Path) -> nn.Module:
    """Write small.safetensors and small.py, and return the network that these two make.

    `smaller` is what `remove_filters` made, `example` a batch of its inputs. Raises a
    ValueError where torch.fx or the constructors of its layers do not tell all of it.
    """
    code = builder_code(smaller, example)
    weights = {name: value.clone().contiguous() for name, value in smaller.state_dict().items()}
    content = save(weights)
    again = _made_again(code, content, smaller, example.cpu(), folder)
    (folder / WEIGHTS).write_bytes(content)
    (folder / BUILDER).write_text(code)
    return again


def builder_code(model: nn.Module, example: Tensor) -> str:
    """Source of a module with `Model`, which has the layers of `model`, and `load`.

    `example` is a batch of its inputs, of which only shape and type count. Raises a ValueError that
    names what cannot be written.
    """
    graph = _trace(model, example)
    numbered = {
        _expression(name)
        for name, module in model.named_modules()
        if name and not _is_leaf(module) and _is_numbered(module)
    }
    init = "\n".join(["super().__init__()", *_built(model, "", numbered)])
    names = _short_names_(graph)
    source = graph.python_code("self")
    forward = re.sub(r";  (?:\w+ = )+None", "", source.src)
    forward = re.sub(r"value_\d+_of_graph", lambda match: names[match[0]], forward)
    forward = re.sub(r"(?m)^ *(\w+) = \1$", "", forward)
    forward = _indexed(re.sub(r"\n{2,}", "\n", forward).strip(), numbered)
    imports = ["import torch", "from safetensors.torch import load_file", "from torch import nn"]
    imports += _imports(source.globals, forward)
    methods = "def __init__(self):\n" + _indented(init) + "\n\n" + forward
    model_class = "class Model(nn.Module):\n" + _indented(methods)
    return "\n".join([_HEADER, *imports, "\n", model_class, _LOAD])


def _trace(model: nn.Module, example: Tensor) -> fx.Graph:
    try:
        traced = fx.symbolic_trace(model.eval())
    except Exception as error:  # of the user's network, which meets no tensors here
        known = _traced_with_shapes(model, example)
        if known is None:
            raise ValueError(
                f"torch.fx cannot trace {type(model).__name__}{_place(error)}: {error}. {_INSTEAD}"
            ) from error
        traced = known
    kept = model.state_dict().keys()
    for node in traced.graph.nodes:
        node.type = None
        if node.op == "get_attr" and node.target not in kept:
            raise ValueError(
                f"small.py can only read what the state_dict holds, and {type(model).__name__} "
                f"reads {node.target}, which it does not hold. Register it as a persistent buffer, "
                f"or w{_INSTEAD[1:]}"
            )
        if node.op == "placeholder" and node.target.startswith("*"):
            raise ValueError(
                f"small.py needs named inputs, got {node.target} of {type(model).__name__}. "
                f"{_INSTEAD}"
            )
    return traced.graph


def _traced_with_shapes(model: nn.Module, example: Tensor) -> fx.GraphModule | None:
    """As the network runs on images of this size, where its code asks for shapes; None if not so.

    What depended on the number of samples is found out as the code is tried on two.
    """
    name = next(iter(inspect.signature(model.forward).parameters), "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of operations whose shapes it does not know
        try:
            return meta_tracer.symbolic_trace(model, meta_args={name: example.to("meta")})
        except Exception:  # the plain trace has said why
            return None


def _place(error: Exception) -> str:
    """Where in the network's own code tracing ended."""
    torch_folder = str(Path(torch.__file__).parent)
    frames = traceback.extract_tb(error.__traceback__)[1:]
    own = [frame for frame in frames if not frame.filename.startswith(torch_folder)]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno}: {own[-1].line})" if own else ""


def _is_leaf(module: nn.Module) -> bool:
    """Whether torch.fx takes it as one operation."""
    of_torch = type(module).__module__.startswith("torch.nn") and type(module) is not nn.Module
    return of_torch and not isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict)


def _is_numbered(module: nn.Module) -> bool:
    names = [name for name, _ in module.named_children()]
    return bool(names) and names == [str(number) for number in range(len(names))]


def _expression(name: str) -> str:
    """How torch.fx's code reads a module: `self.blocks`, `getattr(self.blocks, "0")`."""
    found = "self"
    for part in name.split("."):
        plain = part.isidentifier() and not keyword.iskeyword(part)
        found = f"{found}.{part}" if plain else f"getattr({found}, {_quoted(part)})"
    return found


def _indexed(code: str, numbered: set[str]) -> str:
    """The code with `self.blocks[0]` for `getattr(self.blocks, "0")`, outer ones last."""
    for owner in sorted(numbered, key=len, reverse=True):
        code = re.sub(rf'getattr\({re.escape(owner)}, "(\d+)"\)', rf"{owner}[\1]", code)
    return code


def _built(module: nn.Module, name: str, numbered: set[str]) -> Iterator[str]:
    """Lines that make a module's parameters, buffers and children, under their names."""
    owner = _expression(name) if name else "self"
    short = _indexed(owner, numbered)
    if _is_leaf(module):
        return
    kept = module.state_dict().keys()
    for own, parameter in module.named_parameters(recurse=False):
        yield f"{short}.{own} = nn.Parameter({_empty(parameter)})"
    for own, buffer in module.named_buffers(recurse=False):
        if own in kept:
            yield f"{short}.register_buffer({_quoted(own)}, {_empty(buffer)})"
    for own, child in module.named_children():
        path = f"{name}.{own}" if name else own
        made = _constructor(child, path) if _is_leaf(child) else "nn.Module()"
        if not _is_leaf(child) and _expression(path) in numbered:
            made = "nn.ModuleList()"
        if owner in numbered:
            yield f"{short}.append({made})"
        elif own.isidentifier() and not keyword.iskeyword(own):
            yield f"{short}.{own} = {made}"
        else:
            yield f"{short}.add_module({_quoted(own)}, {made})"
        yield from _built(child, path, numbered)


def _quoted(name: str) -> str:
    return json.dumps(name)  # in double quotes, as torch.fx writes names


def _empty(tensor: Tensor) -> str:
    return f"torch.empty({tuple(tensor.shape)}, dtype={tensor.dtype})"


def _constructor(layer: nn.Module, name: str) -> str:
    """The layer's repr, which for most layers of torch.nn is their constructor, or an error."""
    kind, text = type(layer), repr(layer)
    try:
        call = ast.parse(text, mode="eval").body
        assert isinstance(call, ast.Call) and getattr(nn, ast.unparse(call.func)) is kind
        values = [ast.literal_eval(value) for value in call.args]
        again = kind(*values, **{str(k.arg): ast.literal_eval(k.value) for k in call.keywords})
        assert _shapes(again) == _shapes(layer)
    except Exception as error:  # of a text that may be anything, and of what a layer refuses
        raise ValueError(
            f"small.py makes each layer by its repr, and that of {name}, a {kind.__name__}, is not "
            f"its constructor. {_INSTEAD}"
        ) from error
    return f"nn.{text}"


def _shapes(layer: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in layer.state_dict().items()}


def _short_names_(graph: fx.Graph) -> dict[str, str]:
    """Give each value a name of its own, and return what the code is to call it.

    A value takes the name of one that is no longer needed: that reads as a person would write it,
    and frees memory as soon as the network did.
    """
    last = {value: node for node in graph.nodes for value in node.all_input_nodes}
    inputs = [node.target for node in graph.nodes if node.op == "placeholder"]
    names: dict[str, str] = {}
    free: list[str] = []
    for number, node in enumerate(graph.nodes):
        node.name = f"value_{number}_of_graph"
        free = [names[value.name] for value in node.all_input_nodes if last[value] is node] + free
        if node.op == "placeholder":
            names[node.name] = node.target
        elif free and node in last:
            names[node.name] = free.pop(0)
        else:
            names[node.name] = f"x{number}" if f"x{number}" not in inputs else f"x_{number}"
    return names


def _imports(found: Mapping[str, Any], code: str) -> Iterator[str]:
    """Imports of what the code names, which may be of torch and of Python alone."""
    for name, value in found.items():
        if name == "torch" or not re.search(rf"\b{re.escape(name)}\b", code):
            continue
        if name in _OF_FX:
            yield _OF_FX[name]
            continue
        module, own = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
        if module is None and getattr(value, "__name__", None) in _PLAIN:
            yield f"import {value.__name__}" + (f" as {name}" if name != value.__name__ else "")
        elif own is None or (module or "").partition(".")[0].lstrip("_") not in _PLAIN:
            raise ValueError(
                f"small.py may call torch alone, and this network calls {own or name} of {module}. "
                f"{_INSTEAD}"
            )
        else:
            yield f"from {module} import {own} as {name}"


def _indented(code: str) -> str:
    return re.sub(r"(?m)^(?=.)", "    ", code)


def _made_again(
    code: str, weights: bytes, model: nn.Module, example: Tensor, folder: Path
) -> nn.Module:
    """What the code makes; a ValueError unless it is this network, for any number of samples."""
    name = type(model).__name__
    try:
        again: nn.Module = _imported(code, folder).Model()
        again.load_state_dict(load(weights))
        for batch in (example, torch.cat([example, example.flip(-1), example])):
            torch.testing.assert_close(evaluate(again, batch), evaluate(model, batch))
    except Exception as error:  # whatever generated code may do wrong
        message = f"small.py would not make {name} as it is ({error}). {_INSTEAD}"
        raise ValueError(message) from error
    return again.eval()


def _imported(code: str, folder: Path) -> Any:
    """The code as a module. It was written here, a moment ago; no file of others is run."""
    with TemporaryDirectory(dir=folder) as made:
        file = Path(made, BUILDER)
        file.write_text(code)
        spec = spec_from_file_location("rayprune_small", file)
        assert spec is not None and spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
    return module
