"""Lint, types, and the house rules: who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import rayprune

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rayprune"

# Each line may import from itself and from the lines below; folders of one line do not mix. The
# package's own __init__ loads what it names when it is used, and a folder's __main__ is a command.
# Recipes are for users to copy, and may import what users do: the names of the API.
LINES = [
    {"recipes"},
    {"__main__", "tune", "train", "export"},
    {"api", "console"},
    {"checks", "report"},
    {"distributed"},
    {"exporting"},
    {"training"},
    {"sparsifiers", "models", "data"},
    {"snapshot"},
    {"pruning"},
    {"results"},
    {"trials"},
    {"points"},
    {"plan"},
    {"fingerprint"},
    {"config"},
    {"schedules"},
]
MAY_IMPORT_RAY = {"distributed"}

# Reading with these runs what a file says. Results, weights and studies come from other people.
RUN_WHAT_THEY_READ = {"pickle", "_pickle", "cloudpickle", "dill", "shelve", "marshal", "joblib"}


@pytest.mark.timeout(900)  # mypy reads torch, the first time for minutes on a slow machine
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


def imports(*, for_types=True):
    """(part, file, imported module) for every import statement of the package.

    A part is a folder or a file at the top level. Without `for_types`, those that only a type
    checker follows are left out.
    """
    for file in PACKAGE.rglob("*.py"):
        relative = file.relative_to(PACKAGE)
        part = relative.parts[0].removesuffix(".py")
        if relative.name == "__main__.py":
            part = "__main__"
        tree = ast.parse(file.read_text())
        unseen = set() if for_types else set(only_for_types(tree))
        for node in ast.walk(tree):
            if node in unseen:
                continue
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


def only_for_types(tree):
    """What stands below ``if TYPE_CHECKING:``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from (below for statement in node.body for below in ast.walk(statement))


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
        if part == "recipes" and other in rayprune.__all__:
            continue
        here, there = line_of(part), line_of(other)
        sideways = here == there and part != other and (PACKAGE / part).is_dir()
        if there < here or sideways:
            wrong.append(f"{file} imports {name}")
    assert not wrong


def test_only_the_distributed_folder_loads_ray():
    """The API names Ray's types in its signatures, and loads nothing for them."""
    wrong = [
        f"{file} imports {name}"
        for part, file, name in imports(for_types=False)
        if name.split(".")[0] == "ray" and part not in MAY_IMPORT_RAY
    ]
    assert not wrong


def test_no_module_unpickles():
    wrong = [
        f"{file} imports {name}"
        for _, file, name in imports()
        if RUN_WHAT_THEY_READ & set(name.split("."))
    ]
    assert not wrong


def test_nothing_that_is_read_is_run():
    wrong = [
        f"{file.relative_to(PACKAGE)}:{call.lineno} calls {ast.unparse(call)}"
        for file in PACKAGE.rglob("*.py")
        for call in ast.walk(ast.parse(file.read_text()))
        if isinstance(call, ast.Call) and runs_what_it_reads(call)
    ]
    assert not wrong


def runs_what_it_reads(call):
    name = ast.unparse(call.func)
    options = {option.arg: ast.unparse(option.value) for option in call.keywords}
    positional = [ast.unparse(argument) for argument in call.args]
    if name in ("eval", "exec", "compile"):
        return True
    if name in ("yaml.load", "yaml.load_all"):
        # Ours is made of PyYAML's safe one.
        return not {*positional[1:], options.get("Loader")} & {"_Loader", "yaml.SafeLoader"}
    if name.startswith("yaml."):
        return "unsafe" in name or "full_load" in name
    if name == "torch.load":
        return options.get("weights_only") != "True"
    if name in ("np.load", "numpy.load"):
        return options.get("allow_pickle", "False") != "False"
    # A tuner or a trainer is restored by unpickling its folder.
    return name.split(".")[-1] in ("restore", "read_pickle")


@pytest.mark.parametrize(
    ("line", "is_found"),
    [
        ("eval(text)", True),
        ("model.eval()", False),
        ("torch.load(file)", True),
        ("torch.load(file, weights_only=False)", True),
        ("torch.load(file, weights_only=True)", False),
        ("np.load(file, allow_pickle=True)", True),
        ("np.load(file)", False),
        ("yaml.load(text, yaml.Loader)", True),
        ("yaml.load(text, Loader=yaml.SafeLoader)", False),
        ("yaml.unsafe_load(text)", True),
        ("yaml.safe_load(text)", False),
        ("tune.Tuner.restore(folder, trainable)", True),
        ("pandas.read_pickle(file)", True),
    ],
)
def test_what_runs_a_file_is_found(line, is_found):
    (call,) = [node for node in ast.walk(ast.parse(line)) if isinstance(node, ast.Call)]
    assert runs_what_it_reads(call) == is_found


@pytest.mark.parametrize("module", ["__main__", "tune", "train", "export", "api"])
def test_help_is_quick_to_import(module):
    """Neither torch nor Ray before they are needed: each costs seconds."""
    slow = "{'torch', 'ray', 'altair'}"
    code = f"import sys, rayprune.{module}; print(sorted({slow} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
