"""The page: answer, charts and tables in one HTML file that needs nothing from the network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rayprune.report.sentence import (
    alike_settings,
    answer_of,
    best_by_level,
    change_name,
    counted,
    epochs_of,
    metric_name,
    metric_on_test,
    num_seeds,
    percent,
    seeds_of,
    show,
    show_change,
)
from rayprune.results.comparison import Mean, Results, Row, Setting, best_final

if TYPE_CHECKING:
    from rayprune.report.charts import Plot

TEMPLATE = "page.html.jinja"


def render_page(results: Results, plots: Sequence[Plot], study_yaml: str) -> str:
    """HTML with the charts' JavaScript inside; everything from the user is escaped."""
    import jinja2

    from rayprune.report.marks import theme

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    specs = {plot.name: plot.spec() for plot in plots}
    return environment.get_template(TEMPLATE).render(
        name=results.name,
        answer=answer_of(results),
        cards=cards(results),
        levels=level_rows(results) if len(results.levels) > 1 else [],
        plots=plots,
        specs=_script_json(specs),
        themes=_script_json(
            {"light": theme() | {"background": "transparent"}, "dark": theme(dark=True)}
        ),
        javascript=_javascript() if plots else "",
        columns=columns(results),
        rows=[setting_cells(results, s) for s in results.settings],
        trial_columns=trial_columns(results),
        trial_rows=trial_rows(results) if any(len(s.finals) > 1 for s in results.settings) else [],
        failed=results.errors,
        notes=notes(results),
        study_yaml=study_yaml,
    )


def cards(results: Results) -> list[dict[str, str]]:
    """The facts below the answer: the model to ship, what it cost, the dense run, the trials."""
    made = []
    if results.candidates():
        made.append(_best_card(results))
    made.append(_epochs_card(results))
    if results.dense:
        made.append(_dense_card(results, results.dense))
    finished = {row["trial"] for row in results.rows if row["is_final"]}
    counts = [counted(len(results.settings), "setting")]
    counts += [f"{len(results.stopped)} stopped early"] if results.stopped else []
    counts += [f"{len(results.errors)} failed"] if results.errors else []
    made.append(
        {"title": "Finished", "value": counted(len(finished), "trial"), "text": ", ".join(counts)}
    )
    return made


def _best_card(results: Results) -> dict[str, str]:
    setting = results.candidates()[0]
    row = best_final(results, setting)
    test = row.get(metric_on_test(results))
    facts = [f"{percent(row['sparsity'])} sparsity"]
    if test is not None:
        facts.append(f"{metric_name(metric_on_test(results))} {_value(results, test)}")
    if row.get("compression"):
        facts.append(f"{row['compression']:.1f}x fewer parameters")
    chosen = "mean " if len(setting.finals) > 1 else ""
    return {
        "title": "Model in best/",
        "value": setting.label,
        "text": f"{', '.join(facts)}. Trial {row['trial']}, chosen by the {chosen}"
        f"{metric_name(results.metric)} alone.",
    }


def _dense_card(results: Results, dense: Mean) -> dict[str, str]:
    return {
        "title": "Dense run",
        "value": show(results, dense),
        "text": f"{metric_name(results.metric)}, {num_seeds(dense.num_seeds)}. Differences are to "
        "the dense run that a setting started from, or else to this.",
    }


def _epochs_card(results: Results) -> dict[str, str]:
    value, _, text = epochs_of(results).partition(" run")
    seconds = sum(row.get("seconds") or 0.0 for row in results.rows if row.get("executed"))
    parts = [text.lstrip(",; "), f"{duration(seconds)} of training" if seconds else ""]
    return {"title": "Trained", "value": value, "text": "; ".join(filter(None, parts))}


def level_rows(results: Results) -> list[dict[str, str]]:
    """The best setting at each goal sparsity."""
    return [_level_row(results, level, best) for level, best in best_by_level(results)]


def _level_row(results: Results, level: float, best: Setting) -> dict[str, str]:
    speedup, test = best.mean("theoretical_speedup"), metric_on_test(results)
    row = {
        "at least": f"{percent(min(level, best.sparsity))} sparsity",
        "best setting": best.label,
        metric_name(results.metric): show(results, best.mean(results.metric)),
        change_name(results): show_change(results, best.change),
        metric_name(test): show(results, best.mean(test)),
        "epochs": f"{best.epochs:g}",
        "speed-up in theory": f"{speedup.value:.1f}x" if speedup else "–",
    }
    if any(len(s.finals) > 1 for s in results.settings):
        same = [s.label for s in alike_settings(results, best)]
        more = f" and {len(same) - 3} more" if len(same) > 3 else ""
        row["as good within the seeds' spread"] = ", ".join(same[:3]) + more or "none"
    return row


def columns(results: Results) -> list[str]:
    """Headings of the table of settings."""
    metric, test = metric_name(results.metric), metric_name(metric_on_test(results))
    left = ["setting", "sparsity", "epochs", metric, change_name(results), f"just pruned, {metric}"]
    return [*left, test, "speed-up in theory", "compression", "seeds"]


def setting_cells(results: Results, setting: Setting) -> list[tuple[str, Any]]:
    """Cells as (text, value to sort by)."""
    metric, test = results.metric, metric_on_test(results)
    means = {c: setting.mean(c) for c in (metric, f"pruned_{metric}", test)}
    speedup, compression = setting.mean("theoretical_speedup"), setting.mean("compression")
    missed = f" (goal {percent(setting.goal)})" if setting.goal and setting.missed_goal else ""
    return [
        (setting.label, setting.label),
        (percent(setting.sparsity) + missed, setting.sparsity),
        (f"{setting.epochs:g}", setting.epochs),
        (show(results, means[metric]), _sort_value(means[metric])),
        (show_change(results, setting.change), _sort_value(setting.change)),
        (show(results, means[f"pruned_{metric}"]), _sort_value(means[f"pruned_{metric}"])),
        (show(results, means[test]), _sort_value(means[test])),
        (f"{speedup.value:.1f}x" if speedup else "–", _sort_value(speedup)),
        (f"{compression.value:.1f}x" if compression else "–", _sort_value(compression)),
        (seeds_of(results, setting), len(setting.finals)),
    ]


def trial_columns(results: Results) -> list[str]:
    """Headings of the table of single trials."""
    metric, test = metric_name(results.metric), metric_name(metric_on_test(results))
    return ["trial", "setting", "seed", "sparsity", "epochs", metric, test]


def trial_rows(results: Results) -> list[list[tuple[str, Any]]]:
    """Every finished trial, best first."""
    found = [(s, row) for s in results.settings for row in s.finals]
    metric, test = results.metric, metric_on_test(results)

    def order(pair: tuple[Setting, Row]) -> float:
        value = pair[1][metric]
        return float("inf") if value is None else -results.quality(value)

    return [
        [
            (row["trial"], row["trial"]),
            (setting.label, setting.label),
            (str(row.get("seed", "–")), row.get("seed", "")),
            (percent(row["sparsity"]), row["sparsity"]),
            (str(row["total_epochs"]), row["total_epochs"]),
            (_value(results, row[metric]), row[metric]),
            (_value(results, row.get(test)), row.get(test)),
        ]
        for setting, row in sorted(found, key=order)
    ]


def notes(results: Results) -> list[str]:
    """What the numbers mean, and what they do not."""
    metric = metric_name(results.metric)
    made = [
        "Sparsity is the part of the prunable weights (convolution and linear layers) at zero.",
        "The speed-up in theory is the dense model's multiply-adds over those of its non-zero "
        "weights. Zeros scattered over a tensor make files and transfers smaller; by themselves "
        "they make nothing faster. That takes kernels or hardware that skip them, or a pattern "
        "such as 2:4 or whole filters.",
        f"Settings are ranked, and the model in best/ is chosen, by {metric}. The test split is "
        "read once, at the end of a trial, and chooses nothing: a test number picked because it is "
        "the highest would flatter.",
    ]
    if any(len(s.finals) > 1 for s in results.settings):
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
    if any(s.missed_goal for s in results.settings):
        made.append("A setting that did not reach its goal sparsity is listed, but not chosen.")
    return made


def duration(seconds: float) -> str:
    """4000 is "1 h 7 min"."""
    minutes = round(seconds / 60)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _value(results: Results, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.2f} %" if results.is_fraction else f"{value:.4g}"


def _sort_value(mean: Mean | None) -> float | None:
    return None if mean is None else mean.value


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
