"""A function of the user's, named `package.module:function`: a model, a data set or a task."""

from __future__ import annotations

import difflib
import importlib
import os
import sysconfig
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

_imported: dict[str, tuple[int, int]] = {}  # file -> when it was written and its size, at first
WHERE = "It must lie in the current folder or on PYTHONPATH"


def find_target(target: str, field: str) -> Callable[..., Any]:
    """Import the function that `target` names, `package.module:function`.

    `field` is what messages call it. Raises a ``ValueError`` where there is no such module or
    function, where the module fails as it is imported: then with the error's type and line, and
    where its file was changed since this process imported it.
    """
    function = find_attribute(target, field)
    if not callable(function):
        kind = type(function).__name__
        raise ValueError(f"{field} must name a function, got {target!r}, which is of type {kind}")
    return function


def find_attribute(target: str, field: str) -> Any:
    """Whatever `target` names in a module; like `find_target`, which wants a function."""
    module_name, _, name = target.partition(":")
    if not module_name or module_name.startswith(".") or not name.isidentifier():
        raise ValueError(f"{field} must be package.module:function, got {target!r}")
    module = _import(module_name, field)
    _check_unchanged(module, field)
    return _attribute(module, name, field)


def _import(name: str, field: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # a script without a main guard may end itself
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{name}.".startswith(f"{missing}."):
            raise ValueError(f"{field}: cannot import {name}: {error}. {WHERE}") from error
        text = error.msg if isinstance(error, SyntaxError) else str(error)
        reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
        raise ValueError(f"{field}: cannot import {name}: {reason}{_place(error)}") from error


def _check_unchanged(module: ModuleType, field: str) -> None:
    """A result would be kept under the key of code that did not make it."""
    file = getattr(module, "__file__", None)
    if file is None or not os.path.isfile(file):
        return
    info = os.stat(file)
    written = info.st_mtime_ns, info.st_size
    if _imported.setdefault(file, written) != written:
        raise ValueError(
            f"{field}: {file} was changed since this process imported it. Start a new process "
            "(in a notebook: a new kernel)"
        )


def _attribute(module: ModuleType, name: str, field: str) -> Any:
    try:
        return getattr(module, name)
    except AttributeError:
        near = difflib.get_close_matches(name, dir(module), 1)
        hint = f". Did you mean {module.__name__}:{near[0]}?" if near else ""
        raise ValueError(f"{field}: {module.__name__} has no function {name!r}{hint}") from None


def _place(error: BaseException) -> str:
    """Where an import failed, " (file:line)": the innermost line that is no library's."""
    if isinstance(error, SyntaxError) and error.filename and not error.filename.startswith("<"):
        return f" ({error.filename}:{error.lineno})"
    libraries = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib"))
    frames = traceback.extract_tb(error.__traceback__)[2:]  # the first two are ours and importlib's
    frames = [frame for frame in frames if not frame.filename.startswith("<")]
    own = [frame for frame in frames if not frame.filename.startswith(libraries)] or frames
    return f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
