"""A running study for people: a live table in a terminal, plain lines in a log."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rayprune.console.estimate import Estimate
from rayprune.plan import Stage, count_epochs
from rayprune.results.progress import StageProgress, StudyProgress
from rayprune.trials import TrialPlan

SHOWN_TRIALS = 20
LOG_EVERY_S = 15.0
WANTED = StageProgress("wanted")


class ProgressView:
    """Shows a study's progress; a context manager, called with each new progress."""

    def __init__(self, console: Console, trials: Sequence[TrialPlan], metric: str) -> None:
        self._console, self._trials, self._metric = console, trials, metric
        self._stages = {stage.key: stage for trial in trials for stage in trial.plan}
        self._epochs = count_epochs(trial.plan for trial in trials)
        self._estimate = Estimate(self._stages)
        self._started = time.monotonic()
        self._announced: set[str] = set()
        self._epochs_shown: dict[str, int] = {}
        self._logged = 0.0
        self._live = Live(console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> ProgressView:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def __call__(self, progress: StudyProgress) -> None:
        now = time.monotonic()
        if not self._announced and self._all_finished(progress) and not progress.executed_epochs:
            self._announced.update(trial.name for trial in self._trials)
            self._print("every trial was finished before: nothing is left to run")
        self._estimate.note(progress, now)
        if len(self._trials) == 1:
            self._announce_epochs(progress)
        for trial in self._trials:
            self._announce(trial, progress)
        if self._console.is_terminal:
            sentence = Text("\n") + self._sentence(progress, now)  # a bar does not end its line
            self._live.update(Group(self._table(progress), self._bar(progress), sentence))
        elif now - self._logged > LOG_EVERY_S and self._done(progress) < self._epochs.unique:
            self._logged = now
            self._print(self._sentence(progress, now).plain)

    def _all_finished(self, progress: StudyProgress) -> bool:
        lasts = (progress.stages.get(trial.plan[-1].key, WANTED) for trial in self._trials)
        return all(state.status == "done" for state in lasts)

    def _announce(self, trial: TrialPlan, progress: StudyProgress) -> None:
        """A line for every trial that has ended; it stays above the live table."""
        end = None if trial.name in self._announced else self._end_of(trial, progress)
        if end is None:
            return
        self._announced.add(trial.name)
        seconds = time.monotonic() - self._started
        self._print(f"[{seconds:5.0f} s] trial {trial.name} {describe(trial.values)}: {end}")

    def _end_of(self, trial: TrialPlan, progress: StudyProgress) -> str | None:
        states = [progress.stages.get(stage.key, WANTED) for stage in trial.plan]
        errors = [state.error for state in states if state.status == "failed"]
        if states[-1].status == "done":
            return self._value(states[-1])
        if errors:
            return f"failed: {errors[0]}"
        if trial.name in progress.given_up:
            gone = progress.given_up[trial.name]
            return f"{gone.status}: {gone.reason}"
        return None

    def _announce_epochs(self, progress: StudyProgress) -> None:
        """A line for every epoch, where there is one trial to watch."""
        for stage in self._trials[0].plan:
            state = progress.stages.get(stage.key, WANTED)
            if state.epochs_done > self._epochs_shown.get(stage.key, 0):
                self._epochs_shown[stage.key] = state.epochs_done
                if state.status == "running":
                    done, end = stage.first_epoch + state.epochs_done, stage.last_epoch
                    self._print(f"{stage_name(stage)}, epoch {done}/{end}: {self._value(state)}")

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _value(self, state: StageProgress) -> str:
        value = state.metrics.get(self._metric)
        return "" if value is None else f"{self._metric} {value:.4f}"

    def _table(self, progress: StudyProgress) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for heading in ("trial", "searched", "stage", "epoch", self._metric):
            table.add_column(heading)
        waiting = [trial for trial in self._trials if trial.name not in self._announced]
        rows = [(trial, *self._current(trial, progress)) for trial in waiting]
        rows.sort(key=lambda row: row[2].status != "running")
        for trial, stage, state in rows[:SHOWN_TRIALS]:
            where = stage_name(stage)
            value = state.metrics.get(self._metric)
            table.add_row(
                trial.name,
                describe(trial.values),
                where if state.status == "running" else f"{where} ({state.status})",
                f"{stage.first_epoch + state.epochs_done}/{stage.last_epoch}",
                "" if value is None else f"{value:.4f}",
            )
        if len(rows) > SHOWN_TRIALS:
            table.add_row("…", f"{len(rows) - SHOWN_TRIALS} more", "", "", "")
        return table

    def _current(self, trial: TrialPlan, progress: StudyProgress) -> tuple[Stage, StageProgress]:
        """The first stage of a trial that is not done."""
        for stage in trial.plan:
            state = progress.stages.get(stage.key, WANTED)
            if state.status != "done":
                break
        return stage, state

    def _done(self, progress: StudyProgress) -> int:
        """Epochs that are done, of all unique ones."""
        known = ((self._stages[key], state) for key, state in progress.stages.items())
        return sum(min(state.epochs_done, stage.epochs) for stage, state in known)

    def _bar(self, progress: StudyProgress) -> ProgressBar:
        return ProgressBar(total=self._epochs.unique, completed=self._done(progress), width=60)

    def _sentence(self, progress: StudyProgress, now: float) -> Text:
        done, unique = self._done(progress), self._epochs.unique
        shared = self._epochs.naive - unique
        parts = [
            f"[{now - self._started:5.0f} s] {len(self._announced)} of {len(self._trials)} trials",
            f"epochs: {done} of {unique} done" + (f", {shared} shared" if shared else ""),
        ]
        is_running = any(state.status == "running" for state in progress.stages.values())
        if not is_running and done < unique:
            parts.append("starting workers" if done == 0 else "waiting for workers")
        left = self._estimate.seconds_left(progress)
        if left is not None:
            parts.append(f"about {left:.0f} s left")
        return Text(" · ".join(parts))


def stage_name(stage: Stage) -> str:
    """ "dense", "dense to epoch 3", "cycle 2, 86.4% sparse"."""
    if stage.part_of is not None:
        return f"dense to epoch {stage.last_epoch}"
    return "dense" if stage.is_dense else f"cycle {stage.cycle}, {stage.sparsity:.1%} sparse"


def describe(values: Mapping[str, object]) -> str:
    """The searched values on one line, without the common part of their paths."""
    return " ".join(
        f"{path.rsplit('.', 1)[-1]}={value}" for path, value in values.items() if value is not None
    )
