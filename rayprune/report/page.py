"""The page: answer, charts and tables in one HTML file that needs nothing from the network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rayprune.report.answer import (
    WITHOUT_RESULT,
    answer,
    counts_without_result,
    d1_alone,
    epochs_not_run,
    epochs_saved,
    epochs_tuning,
    without_result,
)
from rayprune.report.columns import (
    best_by_level,
    front_columns,
    level_columns,
    setting_columns,
    trial_columns,
    trials_by_metric,
)
from rayprune.report.deployed import dense_measured, limits, measured_notes, none_within
from rayprune.report.differences import difference_notes
from rayprune.report.numbers import (
    dense_name,
    duration,
    goal_value,
    metric_value,
    num_seeds,
    percent,
    ratio,
    tolerance,
)
from rayprune.report.tries import tries_caption, tries_columns
from rayprune.results.comparison import Comparison
from rayprune.results.labels import (
    UNITS,
    Row,
    counted,
    is_measured,
    metric_name,
    on_test,
    superlative,
)
from rayprune.results.setting import Mean

if TYPE_CHECKING:
    from rayprune.report.plot import Plot

TEMPLATE = "page.html.jinja"
FRONT = "pareto"  # the plot that stands with a table


def render_page(comparison: Comparison, plots: Sequence[Plot], study_yaml: str) -> str:
    """HTML with the charts' JavaScript inside; everything from the user is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(TEMPLATE).render(
        name=comparison.summary.name,
        answer=answer(comparison),
        cards=cards(comparison),
        plots=[plot for plot in plots if plot.name != FRONT],
        front_plot=next((plot for plot in plots if plot.name == FRONT), None),
        has_charts=bool(plots),
        front_columns=front_columns(comparison),
        front=comparison.front,
        front_caption=front_caption(comparison),
        level_columns=level_columns(comparison),
        levels=best_by_level(comparison) if len(comparison.levels) > 1 else [],
        setting_columns=setting_columns(comparison),
        settings=comparison.settings,
        order=_order(comparison),
        trial_columns=trial_columns(comparison),
        trials=trials_by_metric(comparison) if comparison.has_seeds else [],
        tries_columns=tries_columns(comparison),
        tried=comparison.settings if comparison.tries else (),
        tries_caption=tries_caption(comparison),
        without_result=trials_without_result(comparison),
        notes=notes(comparison),
        study_yaml=study_yaml,
        **_scripts(plots),
    )


def front_caption(comparison: Comparison) -> str:
    """What being on the front means, and that the model to ship is another question."""
    ways = zip(comparison.summary.metrics, comparison.summary.modes, strict=True)
    goals = ", ".join(superlative(goal, mode) for goal, mode in ways)
    choice = f" The model in best/ is {_choice(comparison)}." if comparison.front else ""
    return (
        f"Goals: {goals}. Where a setting is on the front, no other one is as good in every goal "
        f"and better in one; which of them to take is yours to say.{choice}"
    )


def cards(comparison: Comparison) -> list[dict[str, str]]:
    """The facts below the answer: the model to ship, what it cost, the dense run, the trials."""
    made = []
    if best := comparison.best:
        made.append(_best_card(comparison, best))
    made.append(_epochs_card(comparison))
    if comparison.dense:
        made.append(_dense_card(comparison, comparison.dense))
    counts = [counted(len(comparison.settings), "setting"), *counts_without_result(comparison)]
    tries = len(comparison.tries)
    counts += ["1 try" if tries == 1 else f"{tries} tries"] if tries else []
    finished = counted(len(comparison.trials("finished")), "trial")
    return [*made, {"title": "Finished", "value": finished, "text": ", ".join(counts)}]


def trials_without_result(comparison: Comparison) -> list[dict[str, str]]:
    """Trials that have no result, and why; those of one reason together."""
    ended = (line for status in WITHOUT_RESULT for line in without_result(comparison, status))
    return [{"who": who[0].upper() + who[1:], "why": why} for who, why in ended]


def notes(comparison: Comparison) -> list[str]:
    """What the numbers mean, and what they do not."""
    made = [
        "Sparsity is the part of the prunable weights (convolution and linear layers) at zero.",
        "The speed-up in theory is the dense model's multiply-adds over those of its non-zero "
        "weights. Zeros scattered over a tensor make files and transfers smaller; by themselves "
        "they make nothing faster. That takes kernels or hardware that skip them, or a pattern "
        "such as 2:4 or whole filters.",
        *measured_notes(comparison),
        f"{_ranked_by(comparison)}. The test split is read once, at the end of a trial, "
        "and chooses nothing: a test number picked because it is the highest would flatter.",
    ]
    if note := d1_alone(comparison):
        made.append(f"{note}, so a short cycle's peak is not raised to its share of that training.")
    if comparison.has_seeds:
        made.append(
            "± is the standard deviation over seeds. A seed fixes initial weights, data split and "
            "data order for every setting, and all differences are taken seed by seed: whether "
            "two settings differ is not seen from their ±."
        )
        made += difference_notes(comparison)
    else:
        made.append(
            "Every setting ran with one seed, so nothing is known about chance. Small differences "
            "need search.seeds with three or more before they mean something."
        )
    if any(s.missed_goal for s in comparison.settings):
        counts = comparison.summary.within_dense is not None
        missed = "counts by the sparsity that it reached" if counts else "is listed, but not chosen"
        made.append(f"A setting that did not reach its goal sparsity {missed}.")
    return made


def _order(comparison: Comparison) -> str:
    """In which order settings are listed."""
    within = limits(comparison)
    first = f"Those within {within} before the others. " if within else ""
    if comparison.summary.within_dense is None:
        return f"{first}Best first."
    tolerated = tolerance(comparison)
    order = f"The sparsest within {tolerated} of dense first; then the others, the closest first."
    return f"{first}{order}"


def _ranked_by(comparison: Comparison) -> str:
    """What decides on the order of settings and on the model to ship, as a note."""
    metric, goals = metric_name(comparison.metric), comparison.summary.metrics
    within = limits(comparison)
    among = f", among settings within {within} if there are any" if within else ""
    if comparison.summary.within_dense is not None:
        return (
            "The model in best/ is of the sparsest setting that loses at most "
            f"{tolerance(comparison)} of {metric} against its {dense_name(comparison)}, or of the "
            f"closest one if none does{among}"
        )
    ranked = f"Settings are ranked, and the model in best/ is chosen, by {metric}{among}"
    if len(goals) == 1:
        return ranked
    return (
        f"{ranked}, the first of {len(goals)} goals, among settings that kept their goal sparsity; "
        "the other goals decide on the Pareto front alone"
    )


def _choice(comparison: Comparison) -> str:
    """Why this model is the one to ship, the limits on what is measured first."""
    setting, goals = comparison.candidates()[0], comparison.summary.metrics
    within, none = limits(comparison), none_within(comparison, "none is")
    among = f"of those within {within} " if within and not none else ""
    if comparison.summary.within_dense is not None and setting.change is not None:
        tolerated = tolerance(comparison)
        if comparison.is_within(setting):
            return f"{among}the sparsest within {tolerated} of dense{none and f': {none}'}"
        return f"{among}the closest to dense: none is within {tolerated}{none and f', {none}'}"
    mean = "mean " if len(setting.finals) > 1 else ""
    alone = " alone" if len(goals) == 1 else f" alone, the first of {len(goals)} goals"
    by = f"by the {mean}{metric_name(comparison.metric)}{alone}"
    return f"{among and f'{among}the one '}chosen {by}{none and f': {none}'}"


def _best_card(comparison: Comparison, best: Row) -> dict[str, str]:
    setting = comparison.candidates()[0]
    test = on_test(comparison.metric)
    facts = [f"{percent(best['sparsity'])} sparsity"]
    if is_measured(comparison.metric) and best.get(test) is not None:
        facts.append(f"{metric_name(test)} {metric_value(comparison, best[test])}")
    if best.get("compression"):
        facts.append(f"{ratio(best['compression'])} fewer parameters")
    facts += [goal_value(comparison, name, best[name]) for name in UNITS if best.get(name)]
    return {
        "title": "Model in best/",
        "value": setting.label,
        "text": f"{', '.join(facts)}. Trial {best['trial']}, {_choice(comparison)}.",
    }


def _epochs_card(comparison: Comparison) -> dict[str, str]:
    rows = (*comparison.rows, *comparison.tuning_rows)
    seconds = sum(row.get("seconds") or 0.0 for row in rows if row.get("executed"))
    trained = f"{duration(seconds)} of training" if seconds else ""
    about = (epochs_not_run, epochs_saved, epochs_tuning)
    facts = [*(say(comparison) for say in about), trained]
    value = counted(comparison.summary.executed_epochs, "epoch")
    return {"title": "Trained", "value": value, "text": "; ".join(filter(None, facts))}


def _dense_card(comparison: Comparison, dense: Mean) -> dict[str, str]:
    name = dense_name(comparison)
    elsewhere = "Trained elsewhere, measured here. " if comparison.is_brought else ""
    elsewhere += f"{measured}. " if (measured := dense_measured(comparison)) else ""
    return {
        "title": name[0].upper() + name[1:],
        "value": metric_value(comparison, dense),
        "text": f"{metric_name(comparison.metric)}, {num_seeds(dense.num_seeds)}. {elsewhere}"
        f"Differences are to the {name} that a setting started from, or else to this.",
    }


def _scripts(plots: Sequence[Plot]) -> dict[str, str]:
    """What draws the charts; nothing without any, for Altair is slow to import."""
    if not plots:
        return {"specs": "", "themes": "", "javascript": ""}
    from rayprune.report.marks import theme

    themes = {"light": theme() | {"background": "transparent"}, "dark": theme(dark=True)}
    return {
        "specs": _script_json({plot.name: plot.spec() for plot in plots}),
        "themes": _script_json(themes),
        "javascript": _javascript(),
    }


def _script_json(value: Any) -> str:
    """JSON that cannot end the script it stands in."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")


@cache
def _javascript() -> str:
    """Vega, Vega-Lite and Vega-Embed, to stand inside the page."""
    import vl_convert

    from rayprune.report.plot import vega_lite_version

    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vega_lite_version())
    return bundle.replace("</script", "<\\/script")
