"""What a study would do: trials, stages, what is shared, epochs; nothing is started."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rayprune.config import Dimension, Experiment, Search, Study
from rayprune.config.goals import goals_of
from rayprune.plan import Stage, count_epochs
from rayprune.points import drawn_points, options_of
from rayprune.report.answer import D1_ALONE
from rayprune.results.files import default_storage, study_folder
from rayprune.results.labels import counted, said, shown
from rayprune.results.proposed import read_proposals
from rayprune.results.stages import finished_records
from rayprune.trials import (
    TrialPlan,
    make_trial,
    num_proposed,
    num_reports,
    num_settings,
    tuned_names,
)

MAX_DRAWN = 100  # trials for the numbers about a search: each takes a millisecond


def print_plan(console: Console, study: Study, trials: Sequence[TrialPlan]) -> None:
    """A line for each trial, then the epochs with and without sharing."""
    storage = default_storage(study)
    wanted = [stage for trial in trials for stage in trial.plan]
    unique = {stage.key: stage for stage in wanted}
    done = {key for key in unique if finished_records(storage, key) is not None}
    tuned = tuned_names(study)
    names = [name for name in trials[0].values if name not in tuned]
    table = _table("trial", *names, *(["tried"] if tuned else []), "stages: epochs and sparsity")
    seen: set[str] = set(done)
    for trial in trials:
        tried = " ".join(said({name: trial.values[name] for name in tuned}))
        cells = [*(shown(trial.values[name]) for name in names), *([tried] if tuned else [])]
        table.add_row(trial.name, *cells, _stages(trial, seen))
        seen |= {stage.key for stage in trial.plan}
    console.print(table)
    epochs = count_epochs(trial.plan for trial in trials)
    left = count_epochs([[stage for key, stage in unique.items() if key not in done]]).unique
    console.print(
        f"{len(trials)} trials, {len(wanted)} stages, {len(unique)} of them unique "
        f"(in brackets: shared with a trial above{' or finished before' if done else ''})"
    )
    console.print(
        f"{left} epochs to run of {epochs.unique} unique ones; "
        f"separate runs would take {epochs.naive}"
    )
    if study.search.tune is not None:
        console.print(_reports(study, trials))
    for sentence in _measured(study, trials):
        console.print(sentence)
    for note in _notes(trials):
        console.print(note)


def print_search(console: Console, study: Study) -> None:
    """What a searcher proposes from, how many trials and by which goal, and what trials take.

    Its points are not known before it runs: what is said about trials is said of points that are
    drawn at random.
    """
    console.print(_dimensions(study.search))
    for sentence in (_proposed(study), *_rules(study), *_measured(study), *_of_drawn(study)):
        console.print(Text(sentence))


def _reports(study: Study, tries: Sequence[TrialPlan]) -> str:
    """What follows on the tries of a study that tunes, which are all that is known so far."""
    lengths = {sum(stage.epochs for stage in trial.plan) for trial in tries}
    each = " to ".join(f"{length}" for length in sorted({min(lengths), max(lengths)}))
    settings, seeds = num_settings(study), study.search.seeds
    return (
        f"then the best try of each of {settings} settings, by {study.search.metric} on the seeds "
        f"of tuning, runs on the seeds {', '.join(map(str, seeds))}: {num_reports(study)} trials "
        f"of {each} epochs"
    )


def _measured(study: Study, trials: Sequence[TrialPlan] = ()) -> Iterator[str]:
    """What is measured once all is trained, and within which limits the best is to be.

    Of a study whose `trials` are not known yet, or are tries, as many as there may be.
    """
    search = study.search
    if search.measure is None:
        return
    lasts = {trial.key for trial in trials if trial.phase != "tune"}
    dense = {s.key for t in trials for s in t.plan if s.is_dense and s.part_of is None} - lasts
    networks = counted(len(lasts) or num_reports(study) or num_proposed(study), "network")
    also = "dense ones" if not lasts else counted(len(dense), "dense one") if dense else ""
    what = f"measured at the end: {networks} in {search.measure.words}"
    yield f"{what}, and {also}" if also else what
    if search.within:
        limits = (f"{column} <= {limit:g}" for column, limit in search.within.items())
        best = "best metric" if search.within_dense is None else "sparsest within the loss"
        yield f"best is the {best} with {' and '.join(limits)}"


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _stages(trial: TrialPlan, seen: set[str]) -> str:
    return " → ".join(_describe(stage, shared=stage.key in seen) for stage in trial.plan)


def _describe(stage: Stage, *, shared: bool) -> str:
    if stage.is_dense:
        what = "dense to epoch" if stage.part_of else "dense"
        text = f"{what} {stage.last_epoch}" if stage.last_epoch else "dense as it is"
    else:
        weights = stage.inputs.weights
        rewound = ", rewound" if weights != stage.inputs.masks else ""
        text = f"{stage.sparsity:.1%}{rewound} {stage.schedule} {stage.epochs}"
    return f"({text})" if shared else text


def _dimensions(search: Search) -> Table:
    """A line for each dimension: its values, and when it is set."""
    has_conditions = any(dimension.when is not None for dimension in search.space.values())
    table = _table("searched", "values", *(["only where"] if has_conditions else []))
    for name, dimension in search.space.items():
        cells = [name, _values(dimension), *([dimension.when or ""] if has_conditions else [])]
        table.add_row(*map(Text, cells))
    return table


def _values(dimension: Dimension) -> str:
    if dimension.equals is not None:
        return f"= {dimension.equals}"
    if options := options_of(dimension):
        return ", ".join(map(str, options))
    span = dimension.uniform or dimension.log_uniform or dimension.integers
    assert span is not None
    low, high = span
    kind = ", logarithmic" if dimension.log_uniform else ""
    return f"{low:g} to {high:g}{', whole' if dimension.integers else kind}"


def _proposed(study: Study) -> str:
    search, number = study.search, num_proposed(study)
    seeds = len(search.seeds)
    points = f" ({search.num_samples} points with {seeds} seeds each)" if seeds > 1 else ""
    text = f"{search.algorithm.name} proposes {number} trials{points}"
    before = len(read_proposals(study_folder(default_storage(study), study.name)))
    return f"{text}, {before} of them before this start" if before else text


def _rules(study: Study) -> Iterator[str]:
    """What is compared, and what is stopped or excluded."""
    search = study.search
    if search.within_dense is not None:
        yield f"goal: the sparsest that loses at most {search.within_dense:g} of {search.metric}"
    else:
        goals = goals_of(study)
        ways = zip(goals.metrics, goals.modes, strict=True)
        yield f"goal: {', '.join(f'{metric} ({mode})' for metric, mode in ways)}"
    if search.scheduler is not None:
        scheduler, unit = search.scheduler, search.scheduler.unit
        counts = "epochs of retraining" if unit == "epochs" else unit
        how = ", ".join([f"in {counts}", *said(scheduler.arguments)])
        yield f"stopped early: by {scheduler.name} ({how})"
    for condition in search.where:
        yield f"condition: {condition}; a trial that breaks it is infeasible, and learned from"


def _of_drawn(study: Study) -> Iterator[str]:
    """What trials take, of points drawn at random; the first that can be run as an example."""
    drawn = _drawn(study)
    good = [trial for trial in drawn if not trial.mistake]
    example = next(iter(good), None) or _example(study)
    yield f"for example: {', '.join(said(example.values))}: {_stages(example, set())}"
    yield f"{len(good)} of {len(drawn)} trials drawn at random can be run{_epochs(good)}"
    yield from _notes([example, *good])


def _notes(trials: Sequence[TrialPlan]) -> Iterator[str]:
    """What schedules have to do without, where a brought network's training is not known."""
    for trial in trials:
        adapts = any(stage.adapt for stage in trial.plan)
        if adapts and goes_by_d1_alone(trial.experiment):
            yield D1_ALONE
            return


def goes_by_d1_alone(experiment: Experiment) -> bool:
    """Whether nothing says for how long a network that was brought has been trained."""
    return experiment.is_brought and experiment.dense.trained_epochs is None


def _epochs(trials: Sequence[TrialPlan]) -> str:
    """What trials that run to their end take."""
    if not trials:
        return ""
    lengths = [sum(stage.epochs for stage in trial.plan) for trial in trials]
    each = f"{min(lengths)} to {max(lengths)}" if len({*lengths}) > 1 else f"{lengths[0]}"
    epochs = count_epochs(trial.plan for trial in trials)
    return (
        f": {each} epochs each, {epochs.unique} unique ones in all; "
        f"separate runs would take {epochs.naive}"
    )


def _drawn(study: Study) -> list[TrialPlan]:
    """As many trials as are proposed, with those that `search.where` excludes.

    So do searchers begin: they know nothing of it.
    """
    free = study.model_copy(update={"search": study.search.model_copy(update={"where": ()})})
    seeds = [{"seed": seed} for seed in study.search.seeds] or [{}]
    number = min(study.search.num_samples, max(1, MAX_DRAWN // len(seeds)))
    points = drawn_points(free, study.search.space, number)
    return [make_trial(study, "", {**p.values, **seed}) for p in points for seed in seeds]


def _example(study: Study) -> TrialPlan:
    """Where `search.where` excludes nearly all."""
    points = drawn_points(study, study.search.space, MAX_DRAWN)
    trials = (make_trial(study, "", point.values) for point in points)
    return next(trial for trial in trials if not trial.mistake)
