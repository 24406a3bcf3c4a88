"""What `search.tune` may say beside the rest of a search; mistakes with what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rayprune.config.dependence import mistakes_in

if TYPE_CHECKING:
    from rayprune.config.study import Search


def mistakes_of_tuning(search: Search) -> Iterator[str]:
    """A line for every rule that `search.tune` breaks; none without it."""
    tune = search.tune
    if tune is None:
        return
    if not search.seeds:
        yield "tune reports what it chose on search.seeds, which is empty. Write seeds: [0, 1, 2]"
    if not tune.seeds:
        yield "tune.seeds is empty. Write tune: {seeds: [100]}"
    if both := sorted({*search.seeds} & {*tune.seeds}):
        yield (
            f"tune.seeds and seeds share {', '.join(map(str, both))}: what was chosen on a seed "
            "looks better on it. Write others"
        )
    unfit = {
        "algorithm": search.algorithm.name if search.algorithm.name != "grid" else None,
        "scheduler": search.scheduler and search.scheduler.name,
        "within_dense": search.within_dense,
        "num_samples": search.num_samples if search.num_samples > 1 else None,
    }
    for name, value in unfit.items():
        if value is not None:
            hint = " Write tune.tries" if name == "num_samples" else ""
            yield f"{name} {value} and tune do not go together. Leave one out.{hint}"
    if not any(d.is_drawn for space in tune.all_spaces.values() for d in space.values()):
        yield (
            "tune has nothing to draw. Write such as "
            "tune: {space: {optim.lr: {log_uniform: [0.03, 0.3]}}}"
        )
    yield from _of_tuned_spaces(search)


def _of_tuned_spaces(search: Search) -> Iterator[str]:
    """What is compared is listed, what is tuned is drawn, and cases are named rightly."""
    assert search.tune is not None
    listed = {name: d for space in search.all_spaces for name, d in space.items()}
    drawn = [name for name, dimension in listed.items() if dimension.is_drawn]
    if drawn:
        yield (
            f"space.{drawn[0]}: under tune, space lists what is compared, as grid or cases. "
            "Write what is drawn into tune.space"
        )
    labels = [
        label
        for space in search.all_spaces
        for dimension in space.values()
        for label in dimension.cases or ()
    ]
    for label in search.tune.spaces:
        if label not in labels:
            near = difflib.get_close_matches(label, labels, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            there = f"There are {', '.join(dict.fromkeys(labels)) or 'none'}"
            yield f"tune.spaces.{label}: no case has that name.{hint} {there}"
    for place, space in search.tune.all_spaces.items():
        every = {**listed, **search.tune.space, **space}
        for name, dimension in space.items():
            if name in listed:
                yield f"tune.{place}.{name}: is compared in search.space. Leave it out of one"
            if dimension.grid is not None or dimension.cases is not None:
                yield (
                    f"tune.{place}.{name}: what is tuned is drawn. Write choice, uniform, "
                    "log_uniform or integers"
                )
            for word in ("when", "equals"):
                text = getattr(dimension, word)
                yield from mistakes_in(text, f"tune.{place}.{name}.{word}", every)
