"""What lies beside an exported file and reads it, with nothing of ours installed.

Each file here is copied as it is: it imports nothing of rayprune.
"""

from pathlib import Path


def write_loader(name: str, folder: Path) -> None:
    """Put the loader NAME.py into a folder."""
    source = Path(__file__).with_name(f"{name}.py")
    (folder / source.name).write_bytes(source.read_bytes())
