"""What a network is asked for."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field

from rayprune.config.frozen import Frozen
from rayprune.config.target import find_attribute

FIELD = "experiment.task.target"


class OwnTask(Frozen):
    """A task of the user's."""

    target: str
    """`package.module:function` that returns a rayprune.Task, or the name of one."""
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the function."""


NamedTask = Literal["classification", "segmentation"]
NAMED_TASKS = get_args(NamedTask)
AnyTask = NamedTask | OwnTask


def find_task(task: OwnTask) -> Any:
    """What the user's function returns, or the task itself that `target` names.

    It should be a rayprune.Task, which this module does not know: that needs torch. Raises a
    ``ValueError`` where there is no such module or name, or the function fails.
    """
    found = find_attribute(task.target, FIELD)
    if not isinstance(found, type) and hasattr(found, "lower_is_better"):
        if task.kwargs:
            raise ValueError(
                f"{FIELD} {task.target} is a task, and takes no kwargs. Leave them out"
            )
        return found
    if not callable(found):
        raise ValueError(
            f"{FIELD} must name a rayprune.Task or a function that returns one, got "
            f"{type(found).__name__} of {task.target!r}"
        )
    try:
        return found(**task.kwargs)
    except Exception as error:
        raise ValueError(
            f"{FIELD}: {task.target} failed: {type(error).__name__}: {error}"
        ) from error
