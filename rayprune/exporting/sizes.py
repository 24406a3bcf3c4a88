"""How large a file is on its way to someone else."""

import zlib
from pathlib import Path

CHUNK_BYTES = 1 << 20
LEVEL = 6  # what gzip and zip take unless told


def zlib_size(path: str | Path) -> int:
    """Bytes of a file after zlib, read piece by piece: it need not fit into memory."""
    packer, size = zlib.compressobj(LEVEL), 0
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            size += len(packer.compress(chunk))
    return size + len(packer.flush())
