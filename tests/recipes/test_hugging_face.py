"""A tiny BERT and a tiny GPT-2 from folders, and texts from files of three kinds."""

import builtins

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
from made_training import assert_same, batches_of, counts_of, losses_of_training
from made_transformers import CLASSES, save_transformer, write_texts

from rayprune.recipes.hugging_face import classifier, texts
from rayprune.training.task import make_task


@pytest.fixture
def no_transformers(monkeypatch):
    real = builtins.__import__

    def fake(name, *args, **kwargs):
        if name == "transformers":
            raise ModuleNotFoundError("No module named 'transformers'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", fake)


def test_without_the_package_it_says_what_to_run(no_transformers, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="Run: pip install transformers"):
        classifier(2, weights=str(tmp_path))


@pytest.fixture(scope="module", params=["bert", "gpt2"])
def folder(request, tmp_path_factory):
    pytest.importorskip("transformers")
    return save_transformer(tmp_path_factory.mktemp("hub") / request.param, request.param)


@pytest.fixture
def data(folder, tmp_path):
    return texts(**write_texts(tmp_path, num_train=40, num_test=20), tokenizer=folder)


def test_a_batch_is_padded_and_goes_by_name(data):
    assert data["classes"] == list(CLASSES)
    inputs, labels = batches_of(data, "train", 8)[0]
    assert {"input_ids", "attention_mask"} <= set(inputs)
    assert labels.tolist() == [0, 1] * 4
    lengths = inputs["attention_mask"].sum(1)
    assert inputs["input_ids"].shape == (8, lengths.max()) and lengths.min() < lengths.max()


def test_two_calls_are_equal(data, folder, tmp_path):
    again = texts(**write_texts(tmp_path, num_train=40, num_test=20), tokenizer=folder)
    assert_same([again["train"], again["test"]], [data["train"], data["test"]])


def test_padding_changes_no_score(data, folder):
    model = classifier(2, weights=folder).eval()
    (alone, _), (together, _) = batches_of(data, "test", 1)[0], batches_of(data, "test", 20)[0]
    scores = [model(**inputs).logits[0] for inputs in (alone, together)]
    torch.testing.assert_close(*scores, rtol=1e-4, atol=1e-5)


def test_training_helps_and_counts_add_up(data, folder):
    torch.manual_seed(0)
    task, model = make_task("classification"), classifier(2, weights=folder)
    losses = losses_of_training(model, task, batches_of(data, "train", 40), steps=20, lr=0.005)
    assert losses[-1] < 0.5 * losses[0]
    whole, parts = batches_of(data, "test", 20), batches_of(data, "test", 6)
    sums = [counts_of(model, task, batches) for batches in (parts, whole)]
    torch.testing.assert_close(*sums, rtol=1e-4, atol=0)
    assert sums[0][1] > 0.8 * sums[0][2]


def test_weights_are_those_of_the_folder_in_float32(folder):
    one, another = (classifier(2, weights=folder).state_dict() for _ in range(2))
    body = [name for name in one if not name.startswith(("classifier", "score"))]
    assert_same([one[name] for name in body], [another[name] for name in body])
    assert {tensor.dtype for tensor in one.values() if tensor.is_floating_point()} == {
        torch.float32
    }


def test_files_of_three_kinds_have_the_same_samples(data, folder, tmp_path):
    files = write_texts(tmp_path, num_train=40, num_test=20)
    for kind in ("parquet", "jsonl"):
        given = {}
        for part, file in files.items():
            table = pa.csv.read_csv(file)
            given[part] = str(tmp_path / f"{part}.{kind}")
            if kind == "parquet":
                pq.write_table(table, given[part])
            else:
                rows = (
                    f'{{"text": "{r["text"]}", "label": "{r["label"]}"}}' for r in table.to_pylist()
                )
                (tmp_path / f"{part}.{kind}").write_text("\n".join(rows))
        assert_same(texts(**given, tokenizer=folder)["train"], data["train"])


def test_labels_may_be_numbers(folder, tmp_path):
    for part in ("train", "test"):
        table = pa.table({"sentence": ["good film", "bad film"], "y": [2, 0]})
        pq.write_table(table, tmp_path / f"{part}.parquet")
    data = texts(
        train=str(tmp_path / "train.parquet"),
        test=str(tmp_path / "test.parquet"),
        tokenizer=folder,
        text_column="sentence",
        label_column="y",
    )
    assert data["classes"] == ["0", "1", "2"]
    assert [label for _, label in data["train"]] == [2, 0]


def test_a_label_that_training_lacks_is_named(folder, tmp_path):
    files = write_texts(tmp_path, num_train=4, num_test=4)
    with open(files["test"], "a") as file:
        file.write("a film,neutral\n")
    with pytest.raises(ValueError, match=r"test\.csv: label 'neutral' is none of bad, good"):
        texts(**files, tokenizer=folder)


def test_a_folder_without_a_network_is_named(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(ValueError, match=r"experiment\.model\.weights must be a folder"):
        classifier(2, weights=str(tmp_path / "missing"))
