"""Language modelling: the next byte of Python's documentation and sources, and its perplexity.

`passages` is the data, `transformer` the network, `language_modelling` the task; the task takes any
network that returns scores (n, length, tokens), Hugging Face's causal models too.
Study: tune_configs/recipe_language_model.yaml.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from rayprune import Task
from rayprune.recipes.text import NUM_TOKENS, PADDING, documents, part_of, to_tokens

IGNORED = -100  # target that counts for nothing, as in torch and Hugging Face


def passages(
    num_train: int = 3000, num_test: int = 500, max_bytes: int = 64, seed: int = 0
) -> dict[str, Any]:
    """Pairs (tokens, the tokens that follow them), each (length,) int64; the last of a text is
    shorter. No document gives passages to both parts."""
    generator = torch.Generator().manual_seed(seed)
    parts: dict[str, Any] = {"collate": pad}
    texts = documents().values()
    for part, num in (("train", num_train), ("test", num_test)):
        own = [to_tokens(text.encode()) for kind in texts for text in part_of(kind, part)]
        cut = [text[i : i + max_bytes + 1] for text in own for i in range(0, len(text), max_bytes)]
        cut = [passage for passage in cut if len(passage) > 1]
        chosen = torch.randperm(len(cut), generator=generator)[:num]
        parts[part] = [(cut[i][:-1], cut[i][1:]) for i in chosen.tolist()]
    return parts


def pad(samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Tokens (n, longest), and targets of the same shape that are IGNORED where padding is."""
    tokens, targets = zip(*samples, strict=True)
    return (
        pad_sequence(list(tokens), batch_first=True, padding_value=PADDING),
        pad_sequence(list(targets), batch_first=True, padding_value=IGNORED),
    )


def _loss(output: Any, targets: Tensor, reduction: str = "mean") -> Tensor:
    scores = getattr(output, "logits", output).float()  # (n, length, tokens)
    # On several ranks the mean of their means: each weighs alike, however much padding it has.
    return F.cross_entropy(
        scores.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction=reduction
    )


def _count(output: Any, targets: Tensor) -> Tensor:
    """The summed loss, and the number of tokens."""
    return torch.stack(
        [_loss(output, targets, "sum").double(), (targets != IGNORED).sum().double()]
    )


def _metrics(counts: Tensor) -> dict[str, float]:
    loss = counts[0] / counts[1]
    return {"loss": float(loss), "perplexity": float(loss.exp())}  # infinite beyond a loss of 709


language_modelling = Task(_loss, _count, _metrics, lower_is_better=("loss", "perplexity"))


class Block(nn.Module):
    """Attention to what came before, then two linear layers."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:  # (n, length, width)
        q, k, v = (
            self.qkv(self.norm1(x)).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        )
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # (n, heads, length, …)
        x = x + self.projection(attended.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """Tokens to scores of the next one; none looks ahead, so padding at the end needs no mask."""

    def __init__(self, width: int, depth: int, num_heads: int, max_tokens: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(NUM_TOKENS, width), nn.Embedding(max_tokens, width)
        self.blocks = nn.Sequential(*(Block(width, num_heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, NUM_TOKENS)

    def forward(self, tokens: Tensor) -> Tensor:  # (n, length)
        places = torch.arange(tokens.shape[1], device=tokens.device)
        return self.head(self.norm(self.blocks(self.tokens(tokens) + self.places(places))))


def transformer(width: int = 64, depth: int = 2, max_tokens: int = 64) -> nn.Module:
    """A small one with a head for 16 channels; `max_tokens` is the longest passage."""
    return Transformer(width, depth, width // 16, max_tokens)
