"""Files are written whole or not at all, and a table says what every trial did."""

import errno
import os

import pyarrow.fs as pafs
import pytest
from made_records import record

from rayprune import results
from rayprune.results.outcome import TrialResult
from rayprune.results.storage import StorageError


def test_a_snapshot_counts_when_it_is_whole(tmp_path):
    storage = str(tmp_path)
    results.write_bytes(results.epoch_file(storage, "k"), b"progress")
    assert results.finished_records(storage, "k") is None
    results.save_snapshot(storage, "k", b"content", [record()])
    assert results.load_snapshot(storage, "k") == b"content"
    assert results.finished_records(storage, "k") == (record(),)
    assert results.read_bytes(results.epoch_file(storage, "k")) is None


@pytest.mark.parametrize("damaged", ["snapshot.safetensors", "snapshot.json"])
def test_a_damaged_snapshot_does_not_count(damaged, tmp_path):
    results.save_snapshot(str(tmp_path), "k", b"content", [record()])
    file = tmp_path / "stages" / "k" / damaged
    file.write_bytes(file.read_bytes()[:-3])
    assert results.load_snapshot(str(tmp_path), "k") is None


def test_a_write_that_fails_leaves_the_old_file_and_says_why(tmp_path):
    file = tmp_path / "folder" / "a"
    results.write_bytes(str(file), b"old")
    file.unlink()
    (file / "in_the_way").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"cannot write .*folder/a \(3 bytes\)"):
        results.write_bytes(str(file), b"new")
    assert os.listdir(tmp_path / "folder") == ["a"]


def test_a_full_disk_is_called_so(monkeypatch, tmp_path):
    class Full(pafs.LocalFileSystem):
        def open_output_stream(self, *args, **kwargs):
            raise OSError(errno.ENOSPC, "No space left on device")

    class Opened:
        FileType = pafs.FileType

        class FileSystem:
            from_uri = staticmethod(lambda uri: (Full(), uri))

    monkeypatch.setattr(results, "pafs", Opened)
    with pytest.raises(StorageError, match="the disk is full"):
        results.write_bytes(str(tmp_path / "a"), b"x")


def test_the_table_has_a_row_for_each_trial_and_stage(tmp_path):
    dense, cycle = record(key="d"), record(key="c", parent="d", stage=1)
    trials = [
        TrialResult(
            name="0", values={"p": 1, "q": [1]}, method="imp", seed=0, records=(dense, cycle)
        ),
        TrialResult(name="1", values={"p": 2, "q": "x"}, method="imp", seed=0, records=(dense,)),
    ]
    table = results.make_table(trials, {"d": "0", "c": "0"}, {"name": "s"})
    results.write_table(str(tmp_path), table)
    read, summary = results.read_table(str(tmp_path))
    rows = read.to_pylist()
    assert summary == {"name": "s"}
    assert [(r["trial"], r["key"], r["executed"], r["is_final"]) for r in rows] == [
        ("0", "d", True, False),
        ("0", "c", True, True),
        ("1", "d", False, True),
    ]
    assert [r["total_epochs"] for r in rows] == [2, 4, 2]
    assert [r["p"] for r in rows] == [1, 1, 2]
    assert rows[0]["q"] == "[1]"
    assert rows[0]["val_loss"] == 0.1


def test_a_folder_without_results_is_told(tmp_path):
    with pytest.raises(ValueError, match="no results in"):
        results.read_table(str(tmp_path))
    (tmp_path / "results.parquet").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="is not a Parquet table"):
        results.read_table(str(tmp_path))
