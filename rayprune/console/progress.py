"""A running study for people: a live table in a terminal, plain lines in a log."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rayprune.console.estimate import Estimate
from rayprune.plan import EpochCount, Stage, count_epochs
from rayprune.results.labels import said
from rayprune.results.progress import StageProgress, StudyProgress
from rayprune.results.statuses import Statuses
from rayprune.trials import TrialPlan

SHOWN_TRIALS = 20
LOG_EVERY_S = 15.0
WANTED = StageProgress("wanted")


class ProgressView:
    """Shows a study's progress; a context manager, called with each new progress.

    It looks only at what changed and at the trials that it shows: a study may have thousands.
    """

    def __init__(
        self, console: Console, trials: Sequence[TrialPlan], metric: str, num_trials: int = 0
    ) -> None:
        """`num_trials` where a searcher proposes more than are known."""
        self._console, self._metric, self._num_trials = console, metric, num_trials
        self._trials: list[TrialPlan] = []
        self._stages: dict[str, Stage] = {}
        self._epochs = EpochCount(0, 0)
        self._estimate = Estimate({})
        self._statuses = Statuses(())
        self._waiting: dict[str, TrialPlan] = {}
        self._waiting_for: dict[str, dict[str, TrialPlan]] = defaultdict(dict)
        self._running: dict[str, None] = {}  # keys of stages, in the order in which they started
        self._epochs_done: dict[str, int] = defaultdict(int)
        self._num_done = 0
        self._started = time.monotonic()
        self._logged = 0.0
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._take_in(trials)

    def __enter__(self) -> ProgressView:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    @property
    def _expected(self) -> int:
        return max(len(self._trials), self._num_trials)

    def _take_in(self, trials: Sequence[TrialPlan]) -> None:
        """Trials that were proposed since the last time."""
        new = trials[len(self._trials) :]
        if not new:
            return
        self._trials += new
        self._statuses.add(self._trials)
        self._stages.update({stage.key: stage for trial in new for stage in trial.plan})
        self._estimate.add(self._stages)
        self._epochs = count_epochs(trial.plan for trial in self._trials)
        for trial in new:
            self._wait_for(trial)
            if trial.mistake:
                self._announce(trial, None)

    def __call__(self, progress: StudyProgress) -> None:
        now = time.monotonic()
        self._take_in(progress.trials or ())
        if self._expected == 1 == len(self._trials):
            self._announce_epochs(progress)
        for key in progress.news:
            self._count(key, progress.stages[key])
        self._estimate.note(progress, now)
        for note in progress.notes:
            self._print(f"[{now - self._started:5.0f} s] {note}")
        changed = self._statuses.update(progress)
        if len(changed) == self._expected and not progress.executed_for:
            self._announce_all()
        for trial in changed:
            self._announce(trial, progress)
        if self._console.is_terminal:
            sentence = Text("\n") + self._sentence(progress, now)  # a bar does not end its line
            self._live.update(Group(self._table(progress), self._bar(), sentence))
        elif self._waiting and now - self._logged > LOG_EVERY_S:
            self._logged = now
            self._print(self._sentence(progress, now).plain)

    def _count(self, key: str, state: StageProgress) -> None:
        if state.status == "running":
            self._running.setdefault(key)
        else:
            self._running.pop(key, None)
        done = min(state.epochs_done, self._stages[key].epochs)
        self._num_done += done - self._epochs_done[key]
        self._epochs_done[key] = done

    def _announce_all(self) -> None:
        """One line where earlier starts have left nothing to run."""
        ends = {trial.status for trial in self._statuses.all}
        if ends <= {"finished", "stopped"}:
            how = " or ".join(sorted(ends))
            self._print(f"every trial was {how} before: nothing is left to run")
            self._waiting.clear()

    def _announce(self, trial: TrialPlan, progress: StudyProgress | None) -> None:
        """A line for every trial that has ended; it stays above the live table."""
        status = self._statuses.of(trial)
        if status.status == "unfinished" and progress and trial.name not in progress.given_up:
            self._wait_for(trial)  # it ended, and a stage of it is run again
            return
        for stage in trial.plan:
            self._waiting_for[stage.key].pop(trial.name, None)
        if self._waiting.pop(trial.name, None) is None:
            return
        end = f"{status.status}: {status.reason}"
        if status.status == "finished" and progress:
            end = self._value(progress.stages[trial.key])
        seconds = time.monotonic() - self._started
        self._print(f"[{seconds:5.0f} s] trial {trial.name} {' '.join(said(trial.values))}: {end}")

    def _wait_for(self, trial: TrialPlan) -> None:
        self._waiting[trial.name] = trial
        for stage in trial.plan:
            self._waiting_for[stage.key][trial.name] = trial

    def _announce_epochs(self, progress: StudyProgress) -> None:
        """A line for every epoch, where there is one trial to watch."""
        for stage in self._trials[0].plan:
            state = progress.stages.get(stage.key, WANTED)
            if state.status == "running" and state.epochs_done > self._epochs_done[stage.key]:
                done, end = stage.first_epoch + state.epochs_done, stage.last_epoch
                self._print(f"{stage.title}, epoch {done}/{end}: {self._value(state)}")

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _value(self, state: StageProgress) -> str:
        value = state.metrics.get(self._metric)
        return "" if value is None else f"{self._metric} {value:.4f}"

    def _table(self, progress: StudyProgress) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for heading in ("trial", "searched", "stage", "epoch", self._metric):
            table.add_column(heading)
        shown: dict[str, tuple[TrialPlan, Stage]] = {}
        for trial, stage in self._to_show(progress):
            shown.setdefault(trial.name, (trial, stage))
            if len(shown) == SHOWN_TRIALS:
                break
        for trial, stage in shown.values():
            state = progress.stages.get(stage.key, WANTED)
            where = stage.title
            value = state.metrics.get(self._metric)
            table.add_row(
                trial.name,
                " ".join(said(trial.values)),
                where if state.status == "running" else f"{where} ({state.status})",
                f"{stage.first_epoch + state.epochs_done}/{stage.last_epoch}"
                if stage.epochs
                else "–",  # it is only measured
                "" if value is None else f"{value:.4f}",
            )
        if len(self._waiting) > len(shown):
            table.add_row("…", f"{len(self._waiting) - len(shown)} more", "", "", "")
        return table

    def _to_show(self, progress: StudyProgress) -> Iterator[tuple[TrialPlan, Stage]]:
        """Trials and their stages: one for each that runs, then the others that wait for these."""
        running = [(self._waiting_for[key].values(), self._stages[key]) for key in self._running]
        for waiting, stage in running:
            yield from ((trial, stage) for trial in islice(waiting, 1))
        for waiting, stage in running:
            yield from ((trial, stage) for trial in waiting)
        for trial in self._waiting.values():
            yield trial, self._current(trial, progress)

    def _current(self, trial: TrialPlan, progress: StudyProgress) -> Stage:
        """The first stage of a trial that is not done."""
        for stage in trial.plan:
            if progress.stages.get(stage.key, WANTED).status != "done":
                break
        return stage

    def _bar(self) -> ProgressBar:
        return ProgressBar(total=self._epochs.unique, completed=self._num_done, width=60)

    def _sentence(self, progress: StudyProgress, now: float) -> Text:
        done, unique = self._num_done, self._epochs.unique
        shared = self._epochs.naive - unique
        num_ended = len(self._trials) - len(self._waiting)
        parts = [
            f"[{now - self._started:5.0f} s] {num_ended} of {self._expected} trials",
            f"epochs: {done} of {unique} done" + (f", {shared} shared" if shared else ""),
        ]
        if not self._running and done < unique:
            parts.append("starting workers" if done == 0 else "waiting for workers")
        left = self._estimate.seconds_left(progress)
        if left is not None:
            parts.append(f"about {left:.0f} s left")
        return Text(" · ".join(parts))
