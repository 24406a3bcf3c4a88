"""Masks: which weights a model keeps, as a plain dictionary beside the model.

A mask is a bool tensor of its weight's shape, True = kept. Models are never wrapped, parameters
never renamed: `apply_` multiplies the weights in place, after each optimiser step.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

import numpy as np
import torch
from torch import Tensor, nn

from rayprune.pruning.layers import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS

Masks = dict[str, Tensor]
Weights = Mapping[str, Tensor]

_PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")

# The upper 16 bits of a float32, shifted so that those of +0.0 are in the middle of 0 .. 65535.
_ZERO = 0x8000
_MINUS_ONE = _ZERO - 0x4080
_INFINITY = _ZERO + 0x7F80


def prunable(model: nn.Module, include: Sequence[str] = ()) -> tuple[str, ...]:
    """The names of the weights of convolution and linear layers, in model order.

    Attention projections are linear layers. Biases, normalisation layers and embeddings are never
    prunable, nor is a linear weight that is tied to an embedding. A shared weight is named once.
    `include` has patterns of other weights that are prunable too, as `prune.include`. Raises a
    ``ValueError`` for a pattern that matches no weight, or one of fewer than two dimensions.
    """
    weights: list[Tensor | None] = []
    embeddings: list[Tensor] = []
    for module in model.modules():
        if isinstance(module, (*CONVOLUTIONS, *TRANSPOSED_CONVOLUTIONS, nn.Linear)):
            weights.append(module._parameters.get("weight"))  # None where it is parametrized
        elif isinstance(module, nn.MultiheadAttention):
            weights.extend(getattr(module, name) for name in _PROJECTIONS)
        elif isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            embeddings.append(module.weight)
    wanted = {id(weight) for weight in weights} - {id(weight) for weight in embeddings}
    named = dict(model.named_parameters())
    wanted |= {id(named[name]) for name in _included(named, include)}
    return tuple(name for name, weight in named.items() if id(weight) in wanted)


def _included(named: Weights, include: Sequence[str]) -> Iterator[str]:
    for pattern in include:
        matched = [name for name in named if fnmatchcase(name, pattern)]
        if not matched:
            near = get_close_matches(pattern, list(named), cutoff=0.4) or list(named)[:3]
            raise ValueError(
                f"prune.include must match the model's parameters, got {pattern!r}, which matches "
                f"none. The nearest names are {', '.join(near)}"
            )
        flat = [name for name in matched if named[name].ndim < 2]
        if flat:
            raise ValueError(
                f"prune.include must match weights of two and more dimensions, got {pattern!r}, "
                f"which matches {', '.join(flat[:5])}. Narrow it down"
            )
        yield from matched


def not_ignored(names: Iterable[str], ignore: Sequence[str]) -> tuple[str, ...]:
    """The names that no pattern of `prune.ignore` matches.

    A pattern (as in a shell: `*`, `?`, `[abc]`) is compared with the parameter's name and with its
    module's: "fc", "fc.weight" and "layer1.*" are patterns. Raises a ValueError for a pattern that
    matches nothing, since a misspelt name would be pruned in silence.
    """
    names = tuple(names)
    modules = {name: name.rpartition(".")[0] for name in names}
    ignored: set[str] = set()
    for pattern in ignore:
        matched = {n for n in names if fnmatchcase(n, pattern) or fnmatchcase(modules[n], pattern)}
        if not matched:
            near = get_close_matches(pattern, [*names, *modules.values()], cutoff=0.4) or names[:3]
            raise ValueError(
                f"prune.ignore must match prunable weights, got {pattern!r}, which matches none. "
                f"The nearest names are {', '.join(near)}."
            )
        ignored |= matched
    return tuple(name for name in names if name not in ignored)


def keep_largest(scores: Mapping[str, Tensor], num_pruned: int) -> Masks:
    """Masks in which exactly `num_pruned` entries, those of the smallest scores, are False.

    `scores` are finite and >= 0, or -1 for what is already pruned and goes first; they are compared
    in float32. Equal scores go in (parameter, flat index) order, so that every rank and every rerun
    picks the same ones. Raises a ValueError on NaN or infinity: training diverged.
    """
    # The bits of a float >= 0, read as an integer, order as the floats do; those of -1 come first.
    keys = {name: score.float().view(torch.int32) for name, score in scores.items()}
    assert 0 <= num_pruned <= sum(key.numel() for key in keys.values()), num_pruned
    upper = _histogram((key >> 16).add_(_ZERO) for key in keys.values())
    if upper[_ZERO:_INFINITY].sum() + upper[_MINUS_ONE] < upper.sum():
        require_finite(scores)
    digit, num_left = _reach(upper, num_pruned)
    inside = (key[key >> 16 == digit - _ZERO] & 0xFFFF for key in keys.values())
    lower = _histogram(inside)
    last, num_ties = _reach(lower, num_left)
    threshold = (digit - _ZERO << 16) + last
    if num_ties == lower[last]:  # usual, and saves the search for them
        threshold, num_ties = threshold + 1, 0

    masks = {}
    for name, key in keys.items():
        masks[name] = mask = key >= threshold
        if num_ties:
            ties = (key == threshold).nonzero()[:num_ties]  # num_ties x ndim, in flat order
            mask[ties.unbind(1)] = False
            num_ties -= len(ties)
    return masks


def require_finite(weights: Weights) -> None:
    """Raise a ValueError that names the tensors with NaN or infinity in them."""
    broken = [name for name, weight in weights.items() if not weight.isfinite().all()]
    if broken:
        raise ValueError(
            f"training diverged: NaN or infinity in {', '.join(broken[:5])}"
            f"{' ...' if broken[5:] else ''}. Lower optim.lr, or lengthen the warm-up."
        )


def apply_(weights: Weights | nn.Module, masks: Masks) -> None:
    """Set the pruned weights to zero, in place, by one fused multiplication.

    It leaves -0.0 where a negative weight was: zero what is kept as bytes anew.
    """
    named = dict(weights.named_parameters()) if isinstance(weights, nn.Module) else weights
    missing = [name for name in masks if name not in named]
    if missing:
        raise ValueError(f"masks must name parameters of the model, got {', '.join(missing[:5])}")
    if masks:
        with torch.no_grad():
            torch._foreach_mul_([named[name] for name in masks], list(masks.values()))


def num_weights(masks: Masks) -> int:
    """How many weights the masks cover."""
    return sum(mask.numel() for mask in masks.values())


def num_pruned(masks: Masks) -> int:
    """How many of them are pruned."""
    return num_weights(masks) - sum(int(mask.count_nonzero()) for mask in masks.values())


def sparsity(masks: Masks) -> float:
    """The pruned fraction, in [0, 1]; 0 where there are no masks."""
    return num_pruned(masks) / max(num_weights(masks), 1)


def pack_bits(mask: Tensor) -> np.ndarray:
    """The mask in row-major order, eight weights a byte, as uint8[ceil(numel / 8)]."""
    return np.packbits(mask.cpu().numpy())


def unpack_bits(bits: np.ndarray, shape: tuple[int, ...]) -> Tensor:
    """The mask that `pack_bits` packed. Raises a ValueError if it was not of this shape."""
    count = math.prod(shape)
    if len(bits) != (count + 7) // 8:
        raise ValueError(f"a mask of shape {shape} has {(count + 7) // 8} bytes, got {len(bits)}")
    return torch.from_numpy(np.unpackbits(bits, count=count).view(np.bool_)).reshape(shape)


def digest(masks: Masks) -> str:
    """SHA-256 over names, shapes and bits: equal on every rank, or the ranks prune differently."""
    sha = hashlib.sha256()
    for name, mask in masks.items():
        sha.update(f"{name} {tuple(mask.shape)}\n".encode())
        sha.update(pack_bits(mask).tobytes())
    return sha.hexdigest()


def _histogram(digits: Iterable[Tensor]) -> Tensor:
    """How often each of 0 .. 65535 occurs, over all tensors together."""
    counts = torch.zeros(0x10000, dtype=torch.int64)
    for digit in digits:
        counts += torch.bincount(digit.reshape(-1), minlength=0x10000).cpu()
    return counts


def _reach(counts: Tensor, num: int) -> tuple[int, int]:
    """The bucket in which the `num`-th smallest lies, and how many of it are needed."""
    up_to = counts.cumsum(0)
    bucket = int(torch.searchsorted(up_to, num))
    return bucket, num - int(up_to[bucket] - counts[bucket])
