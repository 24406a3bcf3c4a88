"""Snippets of text, padding that counts for nothing, and a classifier that learns."""

import pytest
import torch
from made_training import assert_same, batches_of, counts_of, losses_of_training

from rayprune.recipes.text import (
    PADDING,
    classifier,
    documents,
    pad,
    part_of,
    pieces_of,
    snippets,
    to_tokens,
)
from rayprune.training.task import make_task


@pytest.fixture(scope="module")
def data():
    return snippets(num_train=100, num_test=50)


def test_every_class_has_its_share(data):
    labels = torch.tensor([label for _, label in data["train"]])
    assert labels.bincount().tolist() == [20] * len(data["classes"])
    assert len(data["test"]) == 50


def test_two_calls_are_equal_and_another_seed_is_not(data):
    again = snippets(num_train=100, num_test=50)
    assert_same([again["train"], again["test"]], [data["train"], data["test"]])
    other = snippets(num_train=100, num_test=50, seed=1)["train"]
    assert any(
        a.tolist() != b.tolist() for (a, _), (b, _) in zip(other, data["train"], strict=True)
    )


def test_no_text_is_in_both_parts():
    texts = [str(i) for i in range(23)]
    train, test = part_of(texts, "train"), part_of(texts, "test")
    assert sorted(train + test) == sorted(texts) and not set(train) & set(test)
    assert all(len(part_of(own, "test")) >= 2 for own in documents().values())


def test_pieces_are_whole_lines_that_fit():
    text = "a line\n" * 5 + "x" * 100 + "\nshort\n"
    pieces = [bytes((piece - 1).tolist()).decode() for piece in pieces_of(text, 20)]
    assert max(map(len, pieces)) == 20
    assert pieces[0] == "a line\n" * 2 and pieces[-1] == "short\n"


def test_tokens_are_bytes_and_never_padding():
    tokens = to_tokens(bytes(range(256)))
    assert tokens.min() > PADDING and tokens.max() == 256 and tokens.dtype == torch.int64


def test_pad_makes_one_batch():
    tokens, labels = pad([(torch.tensor([3, 4]), 1), (torch.tensor([5, 6, 7]), 0)])
    assert tokens.tolist() == [[3, 4, PADDING], [5, 6, 7]]
    assert labels.tolist() == [1, 0] and labels.dtype == torch.int64


def test_scores_do_not_depend_on_padding(data):
    model = classifier(5).eval()
    alone, _ = pad(data["test"][:1])
    longer = torch.nn.functional.pad(alone, (0, 50), value=PADDING)
    torch.testing.assert_close(model(longer), model(alone))


def test_counts_add_up_and_training_helps(data):
    task, model = make_task("classification"), classifier(len(data["classes"]), width=32)
    whole, parts = batches_of(data, "test", 50), batches_of(data, "test", 8)
    torch.testing.assert_close(counts_of(model, task, parts), counts_of(model, task, whole))
    losses = losses_of_training(model, task, batches_of(data, "train", 50), steps=20, lr=0.005)
    assert losses[-1] < 0.8 * losses[0]
