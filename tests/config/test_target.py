"""A user's function is found, or it is said why not: never a traceback of the user's module."""

import itertools
import math
import re
import sys

import pytest

from rayprune.config.target import find_target

FIELD = "experiment.model.target"


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module of that source into a folder on the path; return its name and file."""
    numbers = itertools.count()
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(source, suffix=".py"):
        name = f"made_for_{tmp_path.name}_{next(numbers)}"
        file = tmp_path / f"{name}{suffix}"
        file.write_text(source)
        return name, file

    yield write
    for name in [name for name in sys.modules if name.startswith(f"made_for_{tmp_path.name}")]:
        del sys.modules[name]


def complaint(target):
    with pytest.raises(ValueError) as caught:
        find_target(target, FIELD)
    assert type(caught.value) is ValueError
    return str(caught.value)


def test_a_function_is_found_in_a_package_and_in_a_module_beside(module):
    assert find_target("math:sqrt", FIELD) is math.sqrt
    assert find_target("os.path:join", FIELD)("a", "b")
    name, _ = module("def build(): return 7")
    assert find_target(f"{name}:build", FIELD)() == 7


def test_the_path_stays_as_it_was(tmp_path, monkeypatch):
    (tmp_path / "only_in_the_working_folder.py").write_text("def build(): pass")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", ".")])
    before = list(sys.path)
    text = complaint("only_in_the_working_folder:build")
    assert sys.path == before
    assert text.endswith("It must lie in the current folder or on PYTHONPATH")


@pytest.mark.parametrize("target", ["", "math", "math:", ":sqrt", ".math:sqrt", "a:b c"])
def test_what_is_no_target_is_told_the_form(target):
    assert complaint(target) == f"{FIELD} must be package.module:function, got {target!r}"


@pytest.mark.parametrize("name", ["no_such", "no_such.module", "math.no_such", "xml.no_such"])
def test_a_missing_module_is_told_where_to_be(name):
    text = complaint(f"{name}:f")
    assert text.startswith(f"{FIELD}: cannot import {name}: No module named ")
    assert text.endswith("It must lie in the current folder or on PYTHONPATH")


def test_a_missing_function_is_told_the_nearest_one():
    assert complaint("math:sqrtt").endswith("math has no function 'sqrtt'. Did you mean math:sqrt?")


def test_a_value_is_no_function():
    assert complaint("math:pi").endswith(
        "must name a function, got 'math:pi', which is of type float"
    )


@pytest.mark.parametrize(
    ("source", "error", "line"),
    [
        ("x = 1\ny = undefined\n", "NameError: name 'undefined'", 2),
        ("\n\ndef f(:\n", "SyntaxError: ", 3),
        ("def f(): pass\n  x = 1\n", "IndentationError: ", 2),
        ("import no_such_library\n", "ModuleNotFoundError: No module named 'no_such_library'", 1),
        ("from math import no_such\n", "ImportError: cannot import name 'no_such'", 1),
        ("import json\n\njson.loads('{')\n", "JSONDecodeError: ", 3),  # raised inside a library
        ("import ast\nast.parse('a b')\n", "SyntaxError: invalid syntax", 2),
        ("assert False\n", "AssertionError (", 1),
        ("def f():\n    raise KeyError('a')\nf()\n", "KeyError: 'a'", 2),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3", 2),
    ],
)
def test_a_module_that_fails_tells_its_error_and_line(module, source, error, line):
    name, file = module(source)
    text = complaint(f"{name}:f")
    assert text.startswith(f"{FIELD}: cannot import {name}: {error}")
    assert text.endswith(f"({file}:{line})")
    assert "PYTHONPATH" not in text


def test_the_line_is_that_of_the_module_with_the_mistake(module):
    helper, file = module("1 / 0")
    name, _ = module(f"import {helper}\n")
    assert re.search(rf"ZeroDivisionError: .*\({re.escape(str(file))}:1\)$", complaint(f"{name}:f"))


@pytest.mark.parametrize("content", [b"x = '\xff\xfe'\n", b"x = 1\0\n"])
def test_a_file_that_is_not_text_is_a_clear_error(module, content):
    name, file = module("")
    file.write_bytes(content)
    text = complaint(f"{name}:f")
    # Of a null byte Python 3.11.2 says ValueError.
    assert re.search(rf"cannot import {name}: (SyntaxError|ValueError): ", text)
    assert "importlib" not in text


def test_a_file_that_was_changed_since_its_import_is_refused(module):
    """Its old code would run, and the result be kept under the key of the new one."""
    name, file = module("def build(): return 7")
    assert find_target(f"{name}:build", FIELD)() == 7
    file.write_text("def build(): return 70")
    assert "was changed since this process imported it" in complaint(f"{name}:build")
