"""Lint, types, and the house rules: who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rayprune"

# Each line may import from itself and from the lines below; folders of one line do not mix. The
# package's own __init__ loads what it names when it is used, and a folder's __main__ is a command.
LINES = [
    {"__main__", "tune", "train"},
    {"api", "console"},
    {"report"},
    {"distributed"},
    {"training", "exporting"},
    {"sparsifiers", "models", "data"},
    {"snapshot"},
    {"pruning"},
    {"results"},
    {"trials"},
    {"plan"},
    {"config"},
    {"schedules"},
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
    """(part, file, imported module) for every import statement of the package.

    A part is a folder or a file at the top level.
    """
    for file in PACKAGE.rglob("*.py"):
        relative = file.relative_to(PACKAGE)
        part = relative.parts[0].removesuffix(".py")
        if relative.name == "__main__.py":
            part = "__main__"
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
                yield part, relative, name


def line_of(part):
    return next(number for number, parts in enumerate(LINES) if part in parts)


def test_every_part_has_its_line():
    parts = {part for part, _, _ in imports() if part != "__init__"}
    assert parts <= set().union(*LINES)


def test_imports_go_downward_only():
    wrong = []
    for part, file, name in imports():
        if not name.startswith("rayprune.") or part == "__init__":
            continue
        other = name.split(".")[1]
        here, there = line_of(part), line_of(other)
        sideways = here == there and part != other and (PACKAGE / part).is_dir()
        if there < here or sideways:
            wrong.append(f"{file} imports {name}")
    assert not wrong


def test_only_the_distributed_folder_knows_ray():
    wrong = [
        f"{file} imports {name}"
        for part, file, name in imports()
        if name.split(".")[0] == "ray" and part not in MAY_IMPORT_RAY
    ]
    assert not wrong


@pytest.mark.parametrize(
    "module", ["rayprune", "rayprune.__main__", "rayprune.tune", "rayprune.train", "rayprune.api"]
)
def test_help_is_quick_to_import(module):
    """Neither torch nor Ray before they are needed: each costs seconds."""
    code = f"import sys, {module}; print(sorted({{'torch', 'ray', 'altair'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
