"""Text classification: which package of the standard library is this from, or is it documentation?

The text is what every Python has. Samples are of different lengths; `pad` makes a batch of them.
The task is the built-in classification. Study: tune_configs/recipe_text.yaml.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

PACKAGES = ("asyncio", "email", "multiprocessing", "unittest")
PADDING = 0  # token 0; byte b is token b + 1
NUM_TOKENS = 257


def snippets(
    num_train: int = 4000, num_test: int = 500, max_bytes: int = 192, seed: int = 0
) -> dict[str, Any]:
    """Pieces of text as tokens (length,) int64 with their class, in a list for each part.

    No document gives pieces to both parts. Another version of Python has other text.
    """
    generator = torch.Generator().manual_seed(seed)
    texts = documents()
    parts: dict[str, Any] = {"classes": list(texts), "collate": pad}
    for part, num in (("train", num_train), ("test", num_test)):
        samples = []
        for label, own in enumerate(texts.values()):
            pieces = [
                tokens for text in part_of(own, part) for tokens in pieces_of(text, max_bytes)
            ]
            chosen = torch.randperm(len(pieces), generator=generator)[: num // len(texts)]
            samples += [(pieces[i], label) for i in chosen.tolist()]
        parts[part] = samples
    return parts


def documents() -> dict[str, list[str]]:
    """Name of a class -> its texts: pages of the language reference, and the packages' modules."""
    from pydoc_data.topics import topics

    folder = Path(sysconfig.get_path("stdlib"))
    texts = {"documentation": [topics[name] for name in sorted(topics)]}
    for package in PACKAGES:
        texts[package] = [
            file.read_text("utf-8") for file in sorted((folder / package).glob("*.py"))
        ]
    return texts


def part_of(texts: list[str], part: str) -> list[str]:
    """Every fifth text is for tests."""
    return [text for i, text in enumerate(texts) if (i % 5 == 4) == (part == "test")]


def pieces_of(text: str, max_bytes: int) -> list[Tensor]:
    """Whole lines, as many as `max_bytes` hold; pieces below an eighth of that are left out."""
    pieces = [b""]
    for line in text.encode().splitlines(keepends=True):
        if len(pieces[-1]) + len(line) > max_bytes:
            pieces.append(b"")
        pieces[-1] += line[:max_bytes]
    return [to_tokens(piece) for piece in pieces if len(piece) >= max_bytes / 8]


def to_tokens(text: bytes) -> Tensor:
    """(length,) int64."""
    return torch.tensor(list(text)) + 1


def pad(samples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    """Tokens (n, longest) with padding at the end, and labels (n,)."""
    tokens, labels = zip(*samples, strict=True)
    padded = pad_sequence(list(tokens), batch_first=True, padding_value=PADDING)
    return padded, torch.tensor(labels)


class TextClassifier(nn.Module):
    """Bytes to vectors, convolutions over their neighbours, the largest value of each channel."""

    def __init__(self, num_classes: int, width: int, depth: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(NUM_TOKENS, width, padding_idx=PADDING)
        self.layers = nn.ModuleList(nn.Conv1d(width, width, 5, padding=2) for _ in range(depth))
        self.head = nn.Linear(width, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, length) tokens to (n, classes) scores, which do not depend on the padding."""
        is_text = (tokens != PADDING)[:, None]  # (n, 1, length)
        features = self.embedding(tokens).transpose(1, 2)  # (n, width, length)
        for layer in self.layers:
            features = F.relu(layer(features)) * is_text
        return self.head(features.amax(2))


def classifier(num_classes: int, width: int = 64, depth: int = 2) -> nn.Module:
    """A small network on bytes; num_classes comes from the data."""
    return TextClassifier(num_classes, width, depth)
