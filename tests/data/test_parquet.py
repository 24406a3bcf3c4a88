from __future__ import annotations

import os
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from made_images import encode, make_images, parquet_set, write_parquet

from rayprune import config
from rayprune.data.parquet import ParquetRows, open_parquet
from rayprune.fingerprint import find_files


def pair(train: str | Path, test: str | Path, **columns: str) -> config.ParquetFiles:
    return config.ParquetFiles(train=str(train), test=str(test), **columns)


def test_rows_come_in_file_order_with_their_labels(tmp_path: Path) -> None:
    sources = open_parquet(parquet_set(tmp_path), on_bad="error")
    images = torch.from_numpy(make_images(20)).permute(0, 3, 1, 2)
    for row in (19, 0, 7, 16):  # the first 16 are read ahead
        image, target = sources.train[row]
        assert torch.equal(image, images[row])
        assert target == row % 3
    assert (len(sources.train), len(sources.test)) == (20, 8)
    assert sources.classes == ("0", "1", "2")


def test_class_names_come_from_the_schema(tmp_path: Path) -> None:
    blobs = [encode(image) for image in make_images(2)]
    write_parquet(tmp_path / "a.parquet", blobs, [0, 2], classes=["x", "y", "z"])
    write_parquet(tmp_path / "b.parquet", blobs, [1, 1], classes=["x", "y", "z"])
    files = pair(tmp_path / "a.parquet", tmp_path / "b.parquet")
    assert open_parquet(files, on_bad="error").classes == ("x", "y", "z")
    write_parquet(tmp_path / "b.parquet", blobs, [1, 1], classes=["y", "x", "z"])
    with pytest.raises(ValueError, match="name their classes differently"):
        open_parquet(files, on_bad="error")


def test_text_labels_keep_the_training_numbers(tmp_path: Path) -> None:
    blobs = [encode(image) for image in make_images(3)]
    write_parquet(tmp_path / "a.parquet", blobs, ["dog", "cat", "eel"])
    write_parquet(tmp_path / "b.parquet", blobs, ["eel", "eel", "dog"])
    files = pair(tmp_path / "a.parquet", tmp_path / "b.parquet")
    sources = open_parquet(files, on_bad="error")
    assert sources.classes == ("cat", "dog", "eel")
    assert [int(sources.test[row][1]) for row in range(3)] == [2, 2, 1]
    write_parquet(tmp_path / "b.parquet", blobs, ["eel", "emu", "dog"])
    with pytest.raises(ValueError, match=r"b.parquet, row 1: label 'emu' is no class"):
        open_parquet(files, on_bad="error")
    write_parquet(tmp_path / "b.parquet", blobs, [0, 1, 2])
    with pytest.raises(ValueError, match=r"label_column: must be of one kind in train and test"):
        open_parquet(files, on_bad="error")


def test_columns_may_have_other_names_and_plain_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        blobs = [encode(image) for image in make_images(3, channels=1)]
        table = pa.table(
            {"img": pa.array(blobs, pa.binary()), "fine": pa.array([0, 1, 1], pa.uint8())}
        )
        pq.write_table(table, tmp_path / f"{name}.parquet")
    files = pair(
        tmp_path / "a.parquet", tmp_path / "b.parquet", image_column="img", label_column="fine"
    )
    image, target = open_parquet(files, on_bad="error").test[2]
    assert torch.equal(image[0], torch.from_numpy(make_images(3, channels=1)[2]))
    assert target == 1


def test_files_folders_globs_and_uris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["train-1.parquet", "train-0.parquet", "deep/train-2.parquet", "test-0.parquet"]
    for name in [*names, "notes.txt"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")

    def found(location: str) -> list[str]:
        return [os.path.relpath(path, tmp_path) for path in find_files(location)[1]]

    assert found(str(tmp_path)) == sorted(names)
    assert found(f"{tmp_path}/train-*") == ["train-0.parquet", "train-1.parquet"]
    assert found(f"{tmp_path}/*/train-[0-9].parquet") == ["deep/train-2.parquet"]
    assert found(tmp_path.as_uri()) == sorted(names)
    assert found(f"{tmp_path.as_uri()}/train-?.parquet") == ["train-0.parquet", "train-1.parquet"]
    monkeypatch.chdir(tmp_path)
    assert found("train-0.parquet") == ["train-0.parquet"]
    assert found("train-*") == ["train-0.parquet", "train-1.parquet"]
    assert found("nothing") == found("no/*.parquet") == []


def test_places_name_the_file_and_its_row(tmp_path: Path) -> None:
    blobs = [encode(image) for image in make_images(3)]
    for number in range(3):
        write_parquet(tmp_path / f"train-{number}.parquet", blobs, [0, 1, 0])
    write_parquet(tmp_path / "test.parquet", blobs, [0, 1, 0])
    files = pair(tmp_path / "train-*", tmp_path / "test.parquet")
    sources = open_parquet(files, on_bad="error")
    assert len(sources.train) == 9
    places = [sources.train.place(row).rpartition("/")[2] for row in (0, 2, 3, 8)]
    assert places == ["train-0.parquet, row 0", "train-0.parquet, row 2", "train-1.parquet, row 0",
                      "train-2.parquet, row 2"]  # fmt: skip


def test_bad_rows_say_where_and_why(tmp_path: Path) -> None:
    blobs: list[bytes | None] = [encode(image) for image in make_images(6)]
    blobs[1], blobs[2], blobs[3] = blobs[1][:50], None, b""
    write_parquet(tmp_path / "a.parquet", blobs, [0, 1, 0, 1, None, -1])
    write_parquet(tmp_path / "b.parquet", blobs[:1], [0])
    files = pair(tmp_path / "a.parquet", tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"a.parquet, row 4: label is missing.*on_bad: skip"):
        open_parquet(files, on_bad="error")
    train = open_parquet(files, on_bad="skip").train
    assert train[0][1] == 0
    for row, why in enumerate(["bytes of the image", "no bytes", "no bytes", "missing", "-1"], 1):
        with pytest.raises(ValueError, match=rf"parquet.train: .*a.parquet, row {row}: .*{why}"):
            train[row]


def test_a_float_label_column_is_refused(tmp_path: Path) -> None:
    files = parquet_set(tmp_path)
    write_parquet(tmp_path / "test.parquet", [encode(make_images(1)[0])], [1.0])
    with pytest.raises(ValueError, match=r"label_column: 'label' of .*test.parquet .* got double"):
        open_parquet(files, on_bad="skip")


def test_train_and_test_may_not_share_files(tmp_path: Path) -> None:
    parquet_set(tmp_path)
    with pytest.raises(ValueError, match="no file in common"):
        open_parquet(pair(tmp_path, tmp_path / "test.parquet"), on_bad="error")


def test_streamed_rows_are_the_same_and_light_to_send(tmp_path: Path) -> None:
    train = open_parquet(parquet_set(tmp_path, num=60, side=40), on_bad="error").train
    streamed = train.streamed()
    assert isinstance(streamed, ParquetRows)
    sent = pickle.dumps(streamed)
    assert len(sent) < sum(map(len, train.blobs.to_pylist())) / 3  # type: ignore[attr-defined]
    for rows in (streamed, pickle.loads(sent)):
        for row in (0, 59, 17):
            assert torch.equal(rows[row][0], train[row][0])
            assert rows[row][1] == train[row][1]
