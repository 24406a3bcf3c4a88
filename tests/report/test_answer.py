"""The sentence that answers, and the one about the cost."""

from __future__ import annotations

import math
from dataclasses import replace

import made_studies as made
import pyarrow as pa
import pytest

from rayprune.report.answer import answer, epochs_sentence
from rayprune.results.comparison import Comparison
from rayprune.results.outcome import TrialOutcome

SPEEDUP = 0.05**-0.85  # of the made records at 95 %


def study(*trials: tuple[dict[str, object], float]) -> pa.Table:
    """A table of trials as (arguments of `made.imp`, points lost)."""
    paths = {"schedule": "retrain.schedule", "epochs": "retrain.epochs"}
    paths |= {"sparsity": "prune.sparsity", "seed": "seed"}
    outcomes = [
        made.imp(
            str(n),
            {paths[name]: value for name, value in fields.items()},
            points_lost=lost,
            **fields,  # type: ignore[arg-type]
        )
        for n, (fields, lost) in enumerate(trials)
    ]
    searched = [path for name, path in paths.items() if any(name in f for f, _ in trials)]
    return made.table_of(outcomes, searched)


def answer_of(table: pa.Table) -> str:
    return answer(Comparison.from_table(table))


def dense(seed: int = 0) -> float:
    return made.dense(seed).metrics["val_accuracy"]


def test_one_seed_one_sparsity() -> None:
    table = study(
        ({"schedule": "allr", "epochs": 3}, 0.008), ({"schedule": "ft", "epochs": 3}, 0.03)
    )
    assert answer_of(table) == (
        f"ALLR with 3 epochs keeps 95 % sparsity at -0.8 points of validation accuracy (dense "
        f"{100 * dense():.1f} %, one seed), {SPEEDUP:.1f}x fewer multiply-adds in theory; "
        "fine-tuning at the last rate would have lost 2.2 points more (one seed)."
    )


def test_the_sparsest_within_one_point_and_what_the_next_costs() -> None:
    table = study(
        ({"sparsity": 0.9}, 0.001),
        ({"sparsity": 0.95}, 0.0099),
        ({"sparsity": 0.98}, 0.026),
    )
    said = answer_of(table)
    assert said.startswith("ALLR with 1 epoch keeps 95 % sparsity at -1.0 points")
    assert said.endswith("; 98 % would be at -2.6.")


def test_nothing_within_one_point_is_said_first() -> None:
    said = answer_of(study(({"schedule": "ft"}, 0.05), ({"schedule": "allr"}, 0.02)))
    assert said.startswith(
        "No setting stays within one point of its dense run; the closest: ALLR with 1 epoch keeps "
        "95 % sparsity at -2.0 points"
    )


def test_seeds_give_mean_and_spread() -> None:
    lost = (0.006, 0.008, 0.010)
    table = study(*(({"schedule": "allr", "seed": s}, x) for s, x in enumerate(lost)))
    assert "at -0.8 ± 0.2 points" in answer_of(table)
    assert "3 seeds)" in answer_of(table)


def of_seeds(lost: dict[str, tuple[float, ...]], **summary: object) -> str:
    """The answer for schedules with the loss of each seed."""
    trials = [
        made.imp(
            f"{schedule}-{seed}",
            {"retrain.schedule": schedule, "seed": seed},
            schedule=schedule,
            seed=seed,
            points_lost=points,
        )
        for schedule, losses in lost.items()
        for seed, points in enumerate(losses)
    ]
    return answer_of(made.table_of(trials, ["retrain.schedule", "seed"], **summary))


ALLR, SLR, FT = (0.004, 0.008, 0.012), (0.0051, 0.0079, 0.0132), (0.0802, 0.08, 0.0801)


def test_a_winner_is_claimed_only_where_seeds_tell_two_apart() -> None:
    assert of_seeds({"allr": ALLR, "slr": SLR, "ft": FT}).endswith(
        "; by test accuracy ALLR with 1 epoch cannot be told apart from SLR with 1 epoch and is "
        "better than FT with 1 epoch (paired, 3 seeds)."
    )


def test_seeds_that_agree_tell_apart_what_spreads_by_more() -> None:
    """SLR is .1 points worse at every seed: ranges over seeds would overlap."""
    said = of_seeds({"allr": ALLR, "slr": (0.005, 0.00901, 0.013)})
    assert "ALLR with 1 epoch is better than SLR with 1 epoch (paired, 3 seeds)" in said


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("slr", "ALLR with 1 epoch cannot be told apart from SLR with 1 epoch (paired, 3 seeds)."),
        (
            "ft",
            "ALLR with 1 epoch is better than FT with 1 epoch, and SLR with 1 epoch is better "
            "than it (paired, 3 seeds).",
        ),
    ],
)
def test_a_named_reference_is_what_the_best_is_compared_with(reference: str, said: str) -> None:
    lost = {"allr": ALLR, "slr": SLR, "ft": FT}
    assert of_seeds(lost, reference={"retrain.schedule": reference}).endswith(
        f"; by test accuracy {said}"
    )


def test_where_the_named_reference_is_not_nothing_is_compared() -> None:
    assert "told" not in of_seeds({"allr": ALLR, "slr": SLR}, reference={"retrain.schedule": "ft"})


def test_the_cheapest_of_equals_is_named() -> None:
    trials = [
        ({"epochs": epochs, "seed": seed}, x + shift * (seed - 0.9))
        for epochs, shift in ((6, 0.0), (3, 0.0005), (1, 0.001))
        for seed, x in enumerate((0.002, 0.005, 0.008))
    ]
    assert answer_of(study(*trials)).endswith(
        "; by test accuracy ALLR with 6 epochs cannot be told apart from ALLR with 1 epoch "
        "(13 epochs in all instead of 18) and 1 more (paired, 3 seeds)."
    )


def test_one_seed_has_no_equals() -> None:
    said = answer_of(study(({"schedule": "allr"}, 0.008), ({"schedule": "slr"}, 0.008001)))
    assert "told apart" not in said and "better" not in said
    assert "one seed" in said


def test_losses_are_no_percentages() -> None:
    said = answer_of(made.schedules_grid(metrics=("val_loss",), modes=("min",)))
    assert "points" not in said
    assert "of validation loss" not in said
    assert "+0.0" in said


def test_without_a_dense_run_there_is_no_difference() -> None:
    trial = made.sparsifier("0", {}, method="gmp", sparsity=0.95, seed=0, reached=0.95)
    said = answer_of(made.table_of([trial], []))
    assert said.startswith("GMP with 15 epochs reaches 88.")
    assert "no dense run to compare with" in said


FAILED = [made.ended(name, "failed", "boom") for name in "01"]
STOPPED = [made.ended("2", "stopped")]
UNFINISHED = [made.ended(name, "unfinished", "interrupted") for name in "345"]


@pytest.mark.parametrize(
    ("trials", "said"),
    [
        (
            FAILED + STOPPED + UNFINISHED,
            "No trial has finished: 2 failed, 1 stopped early, 3 unfinished.",
        ),
        (UNFINISHED, "No trial has finished: 3 unfinished."),
        (STOPPED, "No trial has finished: 1 stopped early."),
        ([], "No trial has finished."),
    ],
)
def test_without_a_finished_trial_it_says_how_they_ended(
    trials: list[TrialOutcome], said: str
) -> None:
    assert answer_of(made.table_of(trials, [])) == said


def test_trials_that_may_still_change_the_answer_are_said() -> None:
    done = made.imp("0", {})
    assert "unfinished" not in answer_of(made.table_of([done, *FAILED, *STOPPED], []))
    said = answer_of(made.table_of([done, *FAILED, *STOPPED, *UNFINISHED], []))
    assert said.endswith("; 3 trials unfinished.")


def test_a_study_whose_every_trial_diverged_has_no_answer() -> None:
    trial = made.imp("0", {})
    nan = replace(trial.records[1], metrics={"val_accuracy": math.nan})
    table = made.table_of([replace(trial, records=(trial.records[0], nan))], [])
    assert answer_of(table) == "No finished trial has a validation accuracy."


def test_a_task_that_lacks_the_metric_is_told_what_it_has() -> None:
    table = made.of_own_task(metrics=("val_f1",), modes=("max",))
    assert answer_of(table) == (
        "No finished trial has a validation f1; measured were val_r2, val_rmse."
    )


def test_a_network_that_was_brought_had_no_run() -> None:
    said = answer_of(made.brought(within_dense=0.001))
    assert said.startswith("No setting stays within 0.1 points of its dense network; the closest:")
    assert answer_of(made.brought()).startswith("ALLR with 3 epochs keeps 95 % sparsity at -0.3 ")


def test_a_metric_of_which_less_is_better_is_in_its_own_unit() -> None:
    said = answer_of(made.of_own_task(metrics=("val_rmse",), modes=("min",)))
    assert said.startswith("ALLR with 1 epoch keeps 98 % sparsity at +0.01")
    assert "validation rmse (dense 2.1" in said and "points" not in said


def epochs_of(table: pa.Table) -> str:
    return epochs_sentence(Comparison.from_table(table))


def test_epochs_are_compared_with_separate_runs() -> None:
    assert epochs_of(made.schedules_grid()) == (
        "36 epochs run, each of 36 unique ones once; separate runs would have cost 168 (4.7x)"
    )
    assert epochs_of(made.one_trial()) == "14 epochs run"


def test_epochs_of_tries_are_told() -> None:
    assert epochs_of(made.table_of([made.imp("0", {})], [], tuning_epochs=46)).endswith(
        "; tuning took 46 epochs"
    )


def test_a_rerun_says_what_it_found() -> None:
    assert epochs_of(made.schedules_grid(executed_epochs=0)) == (
        "0 epochs run, nothing was left to do: all 36 were found from before; "
        "separate runs would have cost 168 (4.7x)"
    )
    assert epochs_of(made.schedules_grid(executed_epochs=30)).startswith(
        "30 epochs run, 6 found from before;"
    )


@pytest.mark.parametrize("others", [FAILED, STOPPED, UNFINISHED])
def test_epochs_of_trials_without_a_result_are_not_found_from_before(
    others: list[TrialOutcome],
) -> None:
    said = epochs_of(made.schedules_grid(*others, unique_epochs=50))
    assert said.startswith("36 epochs run, the other 14 were found from before or have not run")


@pytest.mark.parametrize("others", [STOPPED, UNFINISHED])
def test_trials_that_had_not_their_time_are_not_compared_with_separate_runs(
    others: list[TrialOutcome],
) -> None:
    assert "separate runs" not in epochs_of(made.schedules_grid(*others))


def test_nothing_to_run_is_nothing_found() -> None:
    assert epochs_of(made.table_of(FAILED, [])) == "0 epochs run"


GOALS = {"metrics": ("val_accuracy", "num_nonzero"), "modes": ("max", "min")}


def test_a_named_tolerance_is_said_and_decides() -> None:
    trials = (({"sparsity": 0.9}, 0.002), ({"sparsity": 0.95}, 0.0049), ({"sparsity": 0.98}, 0.009))
    names = ["prune.sparsity"]
    outcomes = [
        made.imp(str(n), {names[0]: fields["sparsity"]}, points_lost=lost, **fields)
        for n, (fields, lost) in enumerate(trials)
    ]
    said = answer_of(made.table_of(outcomes, names, within_dense=0.005))
    assert said.startswith("The sparsest within 0.5 points of dense: ALLR with 1 epoch keeps 95 % ")
    assert "at -0.49 points" in said and said.endswith("; 98 % would be at -0.90.")
    said = answer_of(made.table_of(outcomes, names, within_dense=0.01))
    assert said.startswith("The sparsest within one point of dense: ALLR with 1 epoch keeps 98 %")
    said = answer_of(made.table_of(outcomes, names, within_dense=0.001))
    assert said.startswith("No setting stays within 0.1 points of its dense run; the closest: ALLR")
    assert "90 % sparsity at -0.20 points" in said


def test_a_tolerated_loss_is_in_its_own_unit() -> None:
    loss = {"metrics": ("val_loss",), "modes": ("min",)}
    said = answer_of(made.schedules_grid(within_dense=0.05, **loss))
    assert said.startswith("The sparsest within 0.05 of dense: ALLR with 3 epochs keeps 95 %")


def test_without_a_dense_run_nothing_is_within() -> None:
    trial = made.sparsifier("0", {}, method="gmp", sparsity=0.95, seed=0, reached=0.95)
    said = answer_of(made.table_of([trial], [], within_dense=0.01))
    assert said.startswith("GMP with 15 epochs reaches 88.")


def test_the_front_is_counted_and_its_ends_are_named() -> None:
    trials = [
        made.imp(str(n), {"prune.sparsity": s}, sparsity=s, points_lost=lost)
        for n, (s, lost) in enumerate(((0.9, 0.001), (0.95, 0.002), (0.8, 0.003)))
    ]
    front = Comparison.from_table(made.table_of(trials, ["prune.sparsity"], **GOALS)).front
    assert [s.goal for s in front] == [0.9, 0.95]
    assert answer_of(made.table_of(trials, ["prune.sparsity"], **GOALS)).endswith(
        "; 2 of 3 settings are on the Pareto front, from ALLR with 1 epoch at 90 % sparsity "
        f"(highest validation accuracy, {100 * (dense() - 0.001):.2f} %) to ALLR with 1 epoch at "
        "95 % sparsity (fewest non-zero parameters, 42,651)."
    )
    alone = answer_of(made.table_of(trials[1:2], [], **GOALS))
    assert "; 1 of 1 setting is on the Pareto front: ALLR with 1 epoch at 95 % sparsity" in alone
    assert "Pareto" not in answer_of(made.schedules_grid())
