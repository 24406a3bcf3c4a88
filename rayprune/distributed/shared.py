"""Whether the storage is one place: every node must see what the driver wrote there."""

from __future__ import annotations

import time
import uuid

from rayprune.results.files import token_file
from rayprune.results.storage import read_bytes, write_bytes

TRIES, PAUSE_S = 5, 1.0  # a shared folder may show a new file a moment later


def write_token(folder: str) -> str:
    """Write a word into a study's folder that no earlier start wrote; return it."""
    token = uuid.uuid4().hex
    write_bytes(token_file(folder), token.encode())
    return token


def sees(folder: str, token: str) -> bool:
    """Whether this node reads the driver's word. Raises ``StorageError``."""
    for attempt in range(TRIES):
        if read_bytes(token_file(folder)) == token.encode():
            return True
        if attempt + 1 < TRIES:
            time.sleep(PAUSE_S)
    return False
