"""A running study for people: a live table in a terminal, plain lines in a log."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stdout
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rayprune.distributed.actor import View
from rayprune.distributed.ledger import StageState
from rayprune.plan import Stage
from rayprune.trials import TrialPlan

SHOWN_TRIALS = 20
LOG_EVERY_S = 15.0


class WithoutWorkerCounts(io.TextIOBase):
    """Standard output without Ray's advice on the number of its processes.

    It counts slots and waiting trials against the CPUs of a small machine. All else that Ray says,
    as that no node can hold a worker, passes.
    """

    def __init__(self, target: TextIO) -> None:
        self._target, self._dropped = target, False

    def write(self, text: str) -> int:
        dropped = "PYTHON worker processes have been started" in text
        if not dropped and not (self._dropped and text == "\n"):  # its line's end comes by itself
            self._target.write(text)
        self._dropped = dropped
        return len(text)

    def flush(self) -> None:
        self._target.flush()

    def isatty(self) -> bool:
        return self._target.isatty()

    def fileno(self) -> int:
        return self._target.fileno()


class Display:
    """Shows views of a study; a context manager, called with each new view."""

    def __init__(self, console: Console, trials: Sequence[TrialPlan], metric: str) -> None:
        self._console, self._trials, self._metric = console, trials, metric
        self._stages = {stage.key: stage for trial in trials for stage in trial.plan}
        self._total = sum(stage.epochs for stage in self._stages.values())
        self._naive = sum(stage.epochs for trial in trials for stage in trial.plan)
        self._started = time.monotonic()
        self._first_epoch: tuple[float, int] | None = None
        self._announced: set[str] = set()
        self._logged = 0.0
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._opened = ExitStack()

    def __enter__(self) -> Display:
        # First the filter, then the live table: rich prints to what it finds as it starts.
        self._opened.enter_context(redirect_stdout(WithoutWorkerCounts(sys.stdout)))
        if self._console.is_terminal:
            self._opened.enter_context(self._live)
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()

    def __call__(self, view: View) -> None:
        done = sum(min(s.epochs_done, self._stages[k].epochs) for k, s in view.states.items())
        if self._first_epoch is None and view.executed_epochs:
            self._first_epoch = (time.monotonic(), done)
        for trial in self._trials:
            self._announce(trial, view)
        if self._console.is_terminal:
            sentence = Text("\n") + self._sentence(view, done)  # a bar does not end its line
            self._live.update(Group(self._table(view), self._bar(done), sentence))
        elif time.monotonic() - self._logged > LOG_EVERY_S and done < self._total:
            self._logged = time.monotonic()
            self._console.print(self._sentence(view, done).plain, highlight=False, soft_wrap=True)

    def _announce(self, trial: TrialPlan, view: View) -> None:
        """A line for every trial that has ended; it stays above the live table."""
        state = view.states.get(trial.plan[-1].key)
        if state is None or trial.name in self._announced or state.status not in ("done", "failed"):
            return
        self._announced.add(trial.name)
        result = f"failed: {state.error}" if state.error else self._value(state)
        seconds = time.monotonic() - self._started
        self._console.print(
            f"[{seconds:5.0f} s] trial {trial.name} {describe(trial)}: {result}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )

    def _value(self, state: StageState) -> str:
        value = state.metrics.get(self._metric)
        return "" if value is None else f"{self._metric} {value:.4f}"

    def _table(self, view: View) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for heading in ("trial", "searched", "stage", "epoch", self._metric):
            table.add_column(heading)
        rows = [(t, *self._current(t, view)) for t in self._trials if t.name not in self._announced]
        rows.sort(key=lambda row: row[2].status != "running")
        for trial, stage, state in rows[:SHOWN_TRIALS]:
            where = (
                "dense" if stage.is_dense else f"cycle {stage.index}, {stage.sparsity:.1%} sparse"
            )
            table.add_row(
                trial.name,
                describe(trial),
                where if state.status == "running" else f"{where} ({state.status})",
                f"{state.epochs_done}/{stage.epochs}",
                self._value(state).removeprefix(f"{self._metric} "),
            )
        if len(rows) > SHOWN_TRIALS:
            table.add_row("…", f"{len(rows) - SHOWN_TRIALS} more", "", "", "")
        return table

    def _current(self, trial: TrialPlan, view: View) -> tuple[Stage, StageState]:
        """The first stage of a trial that is not done."""
        waiting = StageState("wanted")
        for stage in trial.plan:
            state = view.states.get(stage.key, waiting)
            if state.status != "done":
                break
        return stage, state

    def _bar(self, done: int) -> ProgressBar:
        return ProgressBar(total=self._total, completed=done, width=60)

    def _sentence(self, view: View, done: int) -> Text:
        seconds = time.monotonic() - self._started
        parts = [
            f"[{seconds:5.0f} s] {len(self._announced)} of {len(self._trials)} trials",
            f"epochs: {done} of {self._total} done, {self._naive - self._total} shared",
        ]
        if not view.running and done < self._total:
            parts.append("starting workers" if done == 0 else "waiting for workers")
        if left := self._seconds_left(done):
            parts.append(f"about {left:.0f} s left")
        return Text(" · ".join(parts))

    def _seconds_left(self, done: int) -> float | None:
        if self._first_epoch is None or done <= self._first_epoch[1]:
            return None
        since, before = self._first_epoch
        return (time.monotonic() - since) / (done - before) * (self._total - done)


def describe(trial: TrialPlan) -> str:
    """The searched values on one line, without the common part of their paths."""
    return " ".join(
        f"{path.rsplit('.', 1)[-1]}={value}"
        for path, value in trial.values.items()
        if value is not None
    )
