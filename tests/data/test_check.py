from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_images import parquet_set

from rayprune import config
from rayprune.data import check_data


def fails(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_data(config.Data.model_validate(fields))


def test_good_descriptions_pass_without_a_look_at_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("PIL.Image.open", lambda *_: pytest.fail("an image was opened"))
    check_data(config.Data())
    check_data(config.Data(name="fashion_mini"))
    check_data(config.Data(parquet=parquet_set(tmp_path)))
    check_data(config.Data(target="test_function:as_tensors"))


def test_missing_paths(tmp_path: Path) -> None:
    files = parquet_set(tmp_path).model_dump() | {"test": str(tmp_path / "nothing.parquet")}
    fails({"parquet": files}, r"experiment.data.parquet.test must be .* got .*nothing.parquet$")
    fails(
        {"name": "image_folder", "root": str(tmp_path)}, "experiment.data.root .*train is missing"
    )
    fails({"name": "mnist", "root": str(tmp_path)}, "train-images-idx3-ubyte is missing")
    fails(
        {"name": "cifer10", "root": "sets"}, "experiment.data.name must be one of .*Write cifar10"
    )
    fails({"target": "no_such_module:f"}, "experiment.data.target")


def test_columns_are_looked_at(tmp_path: Path) -> None:
    files = parquet_set(tmp_path).model_dump()
    wrong = files | {"label_column": "fine_label"}
    fails({"parquet": wrong}, "parquet.label_column: .*no column 'fine_label', only image, label")
    wrong = files | {"image_column": "img"}
    fails({"parquet": wrong}, "parquet.image_column: .*no column 'img', only image, label")
    wrong = files | {"image_column": "label"}
    fails({"parquet": wrong}, "parquet.image_column: 'label' .*must be struct.* got int64")
    wrong = files | {"label_column": "image"}
    fails(
        {"parquet": wrong}, "parquet.label_column: 'image' .*must hold class numbers .* got struct"
    )
    pq.write_table(pa.table({"image": [b"", b""]}), tmp_path / "test.parquet")
    fails({"parquet": files}, "test.parquet has no column 'label'")
    (tmp_path / "test.parquet").write_bytes(b"PAR1 and nothing else")
    fails({"parquet": files}, "parquet.test: .*test.parquet is not readable Parquet")


def test_an_unknown_scheme(tmp_path: Path) -> None:
    files = parquet_set(tmp_path).model_dump() | {"train": "nosuch://bucket/train"}
    fails({"parquet": files}, "parquet.train: cannot look into nosuch://bucket/train")


def test_fields_that_say_nothing_are_refused(tmp_path: Path) -> None:
    fails({"root": str(tmp_path)}, "experiment.data.root goes with name: mnist, .*got name: None")
    fails({"name": "fashion_mini", "root": str(tmp_path)}, "got name: fashion_mini. Leave root out")
    fails({"name": "fashion_mini", "kwargs": {"a": 1}}, "experiment.data.kwargs goes with target")


def test_imagenets_augmentation_needs_a_size_and_streaming() -> None:
    fails({"augment": "imagenet"}, "experiment.data.augment: imagenet needs a size")
    fails({"augment": "imagenet", "resize": 64, "streaming": "never"}, "experiment.data.streaming")
