"""What fine-tuning lost: only beside its equal in all but the schedule, and as measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import made_studies as made
import pytest

from rayprune.report.answer import answer, recommended
from rayprune.report.fine_tuning import fine_tuned, fine_tuning
from rayprune.results.comparison import Comparison

Point = tuple[str, int, float, int]  # schedule, epochs, sparsity, seed
NAMES = ("retrain.schedule", "retrain.epochs", "prune.sparsity", "seed")


def study(lost: dict[Point, float], **summary: Any) -> Comparison:
    trials = [
        made.imp(
            str(n),
            dict(zip(NAMES, point, strict=True)),
            schedule=point[0],
            epochs=point[1],
            sparsity=point[2],
            seed=point[3],
            points_lost=points,
        )
        for n, (point, points) in enumerate(lost.items())
    ]
    return Comparison.from_table(made.table_of(trials, NAMES, **summary))


def said_of(comparison: Comparison) -> str:
    chosen, _ = recommended(comparison)
    said = fine_tuning(comparison, chosen)
    assert said in answer(comparison)
    return said


def of_seeds(lost: dict[str, tuple[float, ...]], **summary: Any) -> Comparison:
    points = {(s, 1, 0.95, n): x for s, xs in lost.items() for n, x in enumerate(xs)}
    return study(points, **summary)


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        (0.03, "would have lost 2.2 points more (one seed)"),
        (0.018, "would have lost 1.0 point more (one seed)"),
        (0.0083, "would have lost 0.03 points more (one seed)"),
        (0.008, "would have lost as much (one seed)"),
    ],
)
def test_one_seed_says_what_was_measured_and_no_more(lost: float, said: str) -> None:
    comparison = study({("allr", 1, 0.95, 0): 0.008, ("ft", 1, 0.95, 0): lost})
    assert said_of(comparison) == f"fine-tuning at the last rate {said}"
    assert "better" not in answer(comparison)


def test_what_is_no_loss_is_said_as_it_is() -> None:
    """The sparsest within a point is ALLR's with one epoch, and there FT came out above it."""
    comparison = study({("allr", 1, 0.95, 0): 0.008, ("ft", 1, 0.95, 0): 0.0005})
    allr = next(s for s in comparison.settings if s.series == "ALLR")
    assert fine_tuning(comparison, allr).endswith("would have lost 0.8 points less (one seed)")


def test_a_loss_is_in_its_own_unit() -> None:
    lost = {("allr", 1, 0.95, 0): 0.008, ("ft", 1, 0.95, 0): 0.03}
    said = said_of(study(lost, metrics=("val_loss",), modes=("min",)))
    assert said == "fine-tuning at the last rate would have lost 0.0252 more (one seed)"


@pytest.mark.parametrize(
    "other",
    [
        ("ft", 3, 0.95, 0),  # longer
        ("ft", 1, 0.9, 0),  # not as sparse
        ("slr", 1, 0.95, 0),  # another schedule
    ],
)
def test_without_an_equal_that_was_fine_tuned_nothing_is_said(other: Point) -> None:
    comparison = study({("allr", 1, 0.95, 0): 0.008, other: 0.03})
    assert all(fine_tuned(comparison, s) is None for s in comparison.settings if s.series == "ALLR")
    assert "fine-tuning" not in answer(comparison)


def test_of_itself_fine_tuning_says_nothing() -> None:
    comparison = study({("allr", 1, 0.95, 0): 0.03, ("ft", 1, 0.95, 0): 0.008})
    assert said_of(comparison) == ""


def test_equal_is_all_that_was_searched_beside() -> None:
    points = [(s, lr) for s in ("allr", "ft") for lr in (0.1, 0.2)]
    lost = {("allr", 0.1): 0.02, ("allr", 0.2): 0.005, ("ft", 0.1): 0.01, ("ft", 0.2): 0.035}
    trials = [
        made.renamed(
            made.imp(
                str(n),
                {"retrain.schedule": schedule, "optim.lr": lr},
                schedule=schedule,
                points_lost=lost[schedule, lr],
            )
        )
        for n, (schedule, lr) in enumerate(points)
    ]
    table = made.table_of(trials, ["retrain.schedule", "optim.lr"])
    assert "would have lost 3.0 points more" in said_of(Comparison.from_table(table))


def test_of_named_cases_the_best_that_fine_tuned_counts() -> None:
    cases = {"ours": ("allr", 0.005), "FT": ("ft", 0.02), "FT, late": ("ft", 0.015)}
    trials = [
        made.renamed(made.imp(str(n), {"way": way}, schedule=schedule, points_lost=lost))
        for n, (way, (schedule, lost)) in enumerate(cases.items())
    ]
    comparison = Comparison.from_table(made.table_of(trials, ["way"]))
    assert said_of(comparison).endswith("would have lost 1.0 point more (one seed)")


ALLR, FT, NEAR = (0.004, 0.008, 0.012), (0.024, 0.0281, 0.0318), (0.0045, 0.007, 0.0131)


def test_several_seeds_say_it_with_an_interval_on_the_test_split() -> None:
    said = said_of(of_seeds({"allr": ALLR, "ft": FT}))
    assert said == (
        "fine-tuning at the last rate would have lost 2.00 points more (by test accuracy, 95 % "
        "interval 1.96 to 2.03, paired, 3 seeds)"
    )


def test_what_seeds_cannot_tell_apart_is_no_loss() -> None:
    assert said_of(of_seeds({"allr": ALLR, "ft": NEAR})) == (
        "fine-tuning at the last rate cannot be told apart from it (by test accuracy, paired, "
        "3 seeds)"
    )


def test_a_reference_of_fine_tuning_says_the_same_turned() -> None:
    named = {"reference": {"retrain.schedule": "ft"}}
    lost = {"allr": ALLR, "ft": FT}
    assert said_of(of_seeds(lost, **named)) == said_of(of_seeds(lost))


def test_where_something_else_is_the_reference_no_interval_is_said() -> None:
    lost = {"allr": ALLR, "ft": FT, "slr": (0.005, 0.009, 0.0128)}
    said = said_of(of_seeds(lost, reference={"retrain.schedule": "slr"}))
    assert said == "fine-tuning at the last rate would have lost 2.0 points more (mean of 3 seeds)"


def test_what_tuning_chose_the_schedule_of_has_no_equal() -> None:
    comparison = study(
        {("allr", 1, 0.95, 0): 0.008, ("ft", 1, 0.95, 0): 0.03}, tuned=("retrain.schedule",)
    )
    assert all(fine_tuned(comparison, s) is None for s in comparison.settings)


def test_a_setting_that_missed_its_goal_is_nobodys_equal() -> None:
    one, other = (
        made.imp(s, {"retrain.schedule": s}, schedule=s, points_lost=x)
        for s, x in (("allr", 0.008), ("ft", 0.03))
    )
    short = replace(other.records[1], sparsity=0.9, goal_sparsity=0.95)
    other = replace(other, records=(other.records[0], short))
    comparison = Comparison.from_table(made.table_of([one, other], ["retrain.schedule"]))
    assert "fine-tuning" not in answer(comparison)
