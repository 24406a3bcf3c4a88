"""The page: answer, charts and tables in one HTML file that needs nothing from the network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rayprune.report.answer import (
    answer,
    counts_without_result,
    epochs_not_run,
    epochs_saved,
)
from rayprune.report.columns import (
    best_by_level,
    level_columns,
    setting_columns,
    trial_columns,
    trials_by_metric,
)
from rayprune.report.numbers import duration, metric_value, num_seeds, percent, ratio
from rayprune.results.comparison import Comparison
from rayprune.results.labels import Row, counted, metric_name, on_test
from rayprune.results.setting import Mean

if TYPE_CHECKING:
    from rayprune.report.charts import Plot

TEMPLATE = "page.html.jinja"


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
        plots=plots,
        level_columns=level_columns(comparison),
        levels=best_by_level(comparison) if len(comparison.levels) > 1 else [],
        setting_columns=setting_columns(comparison),
        settings=comparison.settings,
        trial_columns=trial_columns(comparison),
        trials=trials_by_metric(comparison) if comparison.has_seeds else [],
        without_result=without_result(comparison),
        notes=notes(comparison),
        study_yaml=study_yaml,
        **_scripts(plots),
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
    finished = counted(len(comparison.trials("finished")), "trial")
    return [*made, {"title": "Finished", "value": finished, "text": ", ".join(counts)}]


def without_result(comparison: Comparison) -> list[dict[str, str]]:
    """Trials that have no result, and why: failed ones each, of the others how many."""
    made = [
        {"who": f"Trial {trial.name} failed", "why": trial.reason}
        for trial in comparison.trials("failed")
    ]
    made += [
        {"who": f"{counted(count, 'trial')} unfinished", "why": reason}
        for reason, count in comparison.reasons("unfinished").items()
    ]
    if stopped := len(comparison.trials("stopped")):
        made.append({"who": f"{counted(stopped, 'trial')} stopped early", "why": ""})
    return made


def notes(comparison: Comparison) -> list[str]:
    """What the numbers mean, and what they do not."""
    made = [
        "Sparsity is the part of the prunable weights (convolution and linear layers) at zero.",
        "The speed-up in theory is the dense model's multiply-adds over those of its non-zero "
        "weights. Zeros scattered over a tensor make files and transfers smaller; by themselves "
        "they make nothing faster. That takes kernels or hardware that skip them, or a pattern "
        "such as 2:4 or whole filters.",
        "Settings are ranked, and the model in best/ is chosen, by "
        f"{metric_name(comparison.metric)}. The test split is read once, at the end of a trial, "
        "and chooses nothing: a test number picked because it is the highest would flatter.",
    ]
    if comparison.has_seeds:
        made.append(
            "± is the standard deviation over seeds. A seed fixes initial weights, data split and "
            "data order for every setting, and differences to dense are taken seed by seed. Where "
            "the ranges of two settings overlap, their order may be chance."
        )
    else:
        made.append(
            "Every setting ran with one seed, so nothing is known about chance. Small differences "
            "need search.seeds with three or more before they mean something."
        )
    if any(s.missed_goal for s in comparison.settings):
        made.append("A setting that did not reach its goal sparsity is listed, but not chosen.")
    return made


def _best_card(comparison: Comparison, best: Row) -> dict[str, str]:
    setting = comparison.candidates()[0]
    test = on_test(comparison.metric)
    facts = [f"{percent(best['sparsity'])} sparsity"]
    if best.get(test) is not None:
        facts.append(f"{metric_name(test)} {metric_value(comparison, best[test])}")
    if best.get("compression"):
        facts.append(f"{ratio(best['compression'])} fewer parameters")
    chosen = "mean " if len(setting.finals) > 1 else ""
    return {
        "title": "Model in best/",
        "value": setting.label,
        "text": f"{', '.join(facts)}. Trial {best['trial']}, chosen by the {chosen}"
        f"{metric_name(comparison.metric)} alone.",
    }


def _epochs_card(comparison: Comparison) -> dict[str, str]:
    seconds = sum(row.get("seconds") or 0.0 for row in comparison.rows if row.get("executed"))
    trained = f"{duration(seconds)} of training" if seconds else ""
    facts = [epochs_not_run(comparison), epochs_saved(comparison), trained]
    value = counted(comparison.summary.executed_epochs, "epoch")
    return {"title": "Trained", "value": value, "text": "; ".join(filter(None, facts))}


def _dense_card(comparison: Comparison, dense: Mean) -> dict[str, str]:
    return {
        "title": "Dense run",
        "value": metric_value(comparison, dense),
        "text": f"{metric_name(comparison.metric)}, {num_seeds(dense.num_seeds)}. Differences are "
        "to the dense run that a setting started from, or else to this.",
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

    from rayprune.report.charts import vega_lite_version

    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vega_lite_version())
    return bundle.replace("</script", "<\\/script")
