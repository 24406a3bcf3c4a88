"""Lint, types, and the house rules: who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rayprune"

# Each line may import from itself and from the lines below; folders of one line do not mix.
LINES = [
    {"tune", "train", "finish", "dry_run"},
    {"distributed"},
    {"training", "export"},
    {"sparsifiers", "models", "data"},
    {"pruning"},
    {"report"},
    {"outcome"},
    {"load"},
    {"config", "plan", "schedules", "results", "sparsification"},
]
MAY_IMPORT_RAY = {"distributed"}


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
    ],
    ids=" ".join,
)
def test_tool_has_nothing_to_say(command):
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def imports():
    """(room, file, imported module) for every import statement of the package."""
    for file in PACKAGE.rglob("*.py"):
        relative = file.relative_to(PACKAGE)
        room = relative.parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{relative} imports relatively"
                base = node.module or ""
                names = [f"{base}.{a.name}" if base == "rayprune" else base for a in node.names]
            else:
                continue
            for name in dict.fromkeys(names):
                yield room, relative, name


def line_of(room):
    return next(number for number, rooms in enumerate(LINES) if room in rooms)


def test_imports_go_downward_only():
    wrong = []
    for room, file, name in imports():
        if not name.startswith("rayprune.") or room == "__init__":
            continue
        other = name.split(".")[1]
        here, there = line_of(room), line_of(other)
        sideways = here == there and room != other and (PACKAGE / room).is_dir()
        if there < here or sideways:
            wrong.append(f"{file} imports {name}")
    assert not wrong


def test_only_the_distributed_room_knows_ray():
    wrong = [
        f"{file} imports {name}"
        for room, file, name in imports()
        if name.split(".")[0] == "ray" and room not in MAY_IMPORT_RAY
    ]
    assert not wrong


@pytest.mark.parametrize("module", ["rayprune.tune", "rayprune.train", "rayprune.report"])
def test_help_is_quick_to_import(module):
    """Neither torch nor Ray before they are needed: each costs seconds."""
    code = f"import sys, {module}; print(sorted({{'torch', 'ray', 'altair'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
