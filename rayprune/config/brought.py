"""Which files `model.weights` means: a file, a folder, or an entry's file on this machine."""

from __future__ import annotations

from pathlib import Path

from rayprune.config.entries import FIELD, TORCHVISION, find_entry

# A network that rayprune wrote, best/ or dense/.
MODEL = "model.safetensors"
MASKS = "masks.safetensors"
PROVENANCE = "provenance.json"


def find_weights(name: str | None, target: str | None, weights: str) -> Path:
    """The file or folder that `weights` names. Raises ``ValueError`` if it is not here.

    `name` and `target` are those of ``experiment.model``.
    """
    path = Path(weights).expanduser()
    if path.exists():
        return path
    entry = find_entry(name, target, weights)
    if entry is not None:
        return entry.file
    absent = f"{FIELD}: {weights} is neither a file nor a folder that is here"
    if path.name in ("best", "dense"):
        study = path.parent.name
        raise ValueError(f"{absent}. A study writes it: run python -m rayprune.tune {study} first")
    if target is not None and not target.startswith(TORCHVISION):
        raise ValueError(f"{absent}. Write the path of a .safetensors, .pt or .pth file")
    raise ValueError(
        f"{absent}, nor the name of weights of {name or target} that torchvision or timm knows, "
        f"such as DEFAULT. Write the path of a .safetensors, .pt or .pth file"
    )


def our_folder(path: Path) -> Path | None:
    """The folder that rayprune wrote, of itself or of its model file; None for anything else."""
    folder = path.parent if path.name == MODEL else path
    return folder if all((folder / file).is_file() for file in (MODEL, PROVENANCE)) else None


def weights_file(path: Path) -> Path:
    """The file with the weights: the path itself, or what lies in the folder.

    Raises ``ValueError`` for a folder without weights, or one that was not written to its end.
    """
    if not path.is_dir():
        return path
    if (path / MASKS).is_file() and our_folder(path) is None:
        raise ValueError(
            f"{FIELD}: {path} was not written to its end: it has {MASKS} without {MODEL} and "
            f"{PROVENANCE}. Run its study again"
        )
    if not (path / MODEL).is_file():
        there = ", ".join(sorted(file.name for file in path.iterdir())[:5]) or "nothing"
        raise ValueError(
            f"{FIELD}: {path} has no {MODEL}, got a folder with {there}. Write the path of a file, "
            f"or of a folder best/ or dense/ that a study wrote"
        )
    return path / MODEL
