"""The table says what every trial did and how it stands."""

import pytest
from made_records import record

from rayprune.results.outcome import StudySummary, TrialOutcome, TrialStatus
from rayprune.results.table import make_table, read_metadata, read_table, write_table

SUMMARY = StudySummary(
    name="s",
    metrics=("val_loss",),
    modes=("min",),
    within_dense=None,
    searched=("p", "q"),
    executed_epochs=4,
    unique_epochs=4,
    naive_epochs=6,
)


def outcome(name, records, status="finished", **values):
    return TrialOutcome(
        name=name,
        values=values,
        method="imp",
        seed=0,
        status=status,
        reason="" if status == "finished" else f"why {name}",
        key=f"last of {name}",
        records=tuple(records),
    )


def test_a_row_for_each_trial_and_stage(tmp_path):
    dense, cycle = record(key="d"), record(key="c", masks_from="d", weights_from="d", cycle=1)
    trials = [outcome("0", [dense, cycle], p=1, q=[1]), outcome("1", [dense], p=2, q="x")]
    write_table(str(tmp_path), make_table(trials, {"d": "0", "c": "0"}, SUMMARY))
    read = read_table(str(tmp_path))
    rows = read.to_pylist()
    assert [(r["trial"], r["key"], r["executed"], r["is_final"]) for r in rows] == [
        ("0", "d", True, False),
        ("0", "c", True, True),
        ("1", "d", False, True),
    ]
    assert [r["total_epochs"] for r in rows] == [2, 4, 2]
    assert [r["masks_from"] for r in rows] == [None, "d", None]
    assert [r["p"] for r in rows] == [1, 1, 2]
    assert rows[0]["q"] == "[1]"
    assert rows[0]["val_loss"] == 0.1
    assert read_metadata(read) == (
        SUMMARY,
        (
            TrialStatus(name="0", status="finished", key="last of 0"),
            TrialStatus(name="1", status="finished", key="last of 1"),
        ),
    )


@pytest.mark.parametrize("status", ["failed", "stopped", "unfinished"])
def test_a_trial_without_a_result_has_its_stages_but_no_final_row(status):
    table = make_table([outcome("0", [record()], status), outcome("1", [], status)], {}, SUMMARY)
    (row,) = table.to_pylist()
    assert (row["trial"], row["status"], row["is_final"]) == ("0", status, False)
    assert read_metadata(table)[1] == (
        TrialStatus(name="0", status=status, reason="why 0", key="last of 0"),
        TrialStatus(name="1", status=status, reason="why 1", key="last of 1"),
    )


def test_the_beginning_of_a_dense_run_is_not_counted_twice():
    """A dense run of 6 epochs in two stages, then a cycle of 2."""
    part = record(key="p", epochs=4, part_of="d")
    whole = record(key="d", epochs=6, weights_from="p", masks_from="p")
    cycle = record(key="c", epochs=2, cycle=1, weights_from="p", masks_from="d")
    rows = make_table([outcome("0", [part, whole, cycle])], {}, SUMMARY).to_pylist()
    assert [row["total_epochs"] for row in rows] == [4, 6, 8]


def test_a_folder_without_results_is_told(tmp_path):
    with pytest.raises(ValueError, match="no results in"):
        read_table(str(tmp_path))
    write_table(str(tmp_path), make_table([outcome("0", [record()])], {}, SUMMARY))
    file = tmp_path / "results.parquet"
    whole = file.read_bytes()
    for damaged in (b"", b"nonsense", whole[:-9], whole[: len(whole) // 2], whole[:-8] + whole[:8]):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match="is not a Parquet table"):
            read_table(str(tmp_path))


def test_a_table_without_our_summary_is_refused():
    table = make_table([outcome("0", [record()])], {}, SUMMARY).replace_schema_metadata({})
    with pytest.raises(ValueError, match="not written by this version of rayprune"):
        read_metadata(table)
