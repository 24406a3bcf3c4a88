"""What two processes say to each other through a pipe: JSON, and arrays beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import IO, Any

import numpy as np
from safetensors.numpy import load, save

LENGTH = 8  # bytes that say how many follow


def write_message(stream: IO[bytes], words: Any, arrays: Sequence[np.ndarray] = ()) -> None:
    """Write what JSON can say, and arrays in their order."""
    named = {str(number): np.ascontiguousarray(array) for number, array in enumerate(arrays)}
    for part in (json.dumps(words).encode(), save(named)):
        stream.write(len(part).to_bytes(LENGTH, "little"))
        stream.write(part)
    stream.flush()


def read_message(stream: IO[bytes]) -> tuple[Any, list[np.ndarray]]:
    """What `write_message` wrote. Raises ``EOFError`` where nobody writes any more."""
    words, content = _read_part(stream), _read_part(stream)
    named = load(content)
    return json.loads(words), [named[str(number)] for number in range(len(named))]


def _read_part(stream: IO[bytes]) -> bytes:
    length = stream.read(LENGTH)
    part = stream.read(int.from_bytes(length, "little")) if len(length) == LENGTH else b""
    if len(length) < LENGTH or len(part) < int.from_bytes(length, "little"):
        raise EOFError
    return part
