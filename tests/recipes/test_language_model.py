"""Perplexity: the vocabulary's size for a guess, and infinite where the loss is beyond numbers."""

import math
from types import SimpleNamespace

import pytest
import torch
from made_training import assert_same, batches_of, counts_of, losses_of_training

from rayprune.recipes.language_model import IGNORED, language_modelling, pad, passages, transformer
from rayprune.recipes.text import NUM_TOKENS, PADDING

METRICS, COUNT = language_modelling.metrics, language_modelling.count


@pytest.fixture(scope="module")
def data():
    return passages(num_train=60, num_test=40, max_bytes=32)


def test_targets_are_the_tokens_that_follow(data):
    for tokens, targets in data["train"]:
        assert 1 <= len(tokens) == len(targets) <= 32
        assert torch.equal(tokens[1:], targets[:-1])


def test_two_calls_are_equal(data):
    again = passages(num_train=60, num_test=40, max_bytes=32)
    assert_same([again["train"], again["test"]], [data["train"], data["test"]])


def test_pad_makes_one_batch():
    short, long = torch.tensor([3, 4]), torch.tensor([5, 6, 7])
    tokens, targets = pad([(short, short + 1), (long, long + 1)])
    assert tokens.tolist() == [[3, 4, PADDING], [5, 6, 7]]
    assert targets.tolist() == [[4, 5, IGNORED], [6, 7, 8]]


def test_a_guess_has_the_perplexity_of_the_vocabulary(data):
    for _, targets in batches_of(data, "test", 7):
        counts = COUNT(torch.zeros(*targets.shape, NUM_TOKENS), targets)
        assert METRICS(counts)["perplexity"] == pytest.approx(NUM_TOKENS, rel=1e-5)
        assert counts[1] == (targets != IGNORED).sum()


def test_knowing_all_has_perplexity_1_and_the_worst_is_infinite():
    targets = torch.tensor([[3, 4, IGNORED]])
    sure = torch.zeros(1, 3, NUM_TOKENS)
    sure[0, [0, 1], [3, 4]] = 1e4
    assert METRICS(COUNT(sure, targets)) == {"loss": 0, "perplexity": 1}
    assert METRICS(COUNT(-sure, targets)) == {
        "loss": pytest.approx(1e4, rel=1e-2),
        "perplexity": math.inf,
    }


def test_padding_counts_for_nothing():
    scores = torch.randn(2, 5, NUM_TOKENS, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[1, 2, 3, IGNORED, IGNORED], [4, 5, 6, 7, 8]])
    torch.testing.assert_close(
        COUNT(scores, targets),
        COUNT(scores[:1, :3], targets[:1, :3]) + COUNT(scores[1:], targets[1:]),
    )
    loss, number = COUNT(scores, targets)
    assert language_modelling.loss(scores, targets).item() == pytest.approx(
        loss.item() / number.item()
    )


def test_an_output_with_logits_is_read_as_scores():
    scores, targets = torch.randn(1, 2, NUM_TOKENS), torch.tensor([[1, 2]])
    assert_same(COUNT(SimpleNamespace(logits=scores), targets), COUNT(scores, targets))


def test_no_token_sees_what_follows_it():
    model = transformer(width=32, max_tokens=8).eval()
    tokens = torch.randint(1, NUM_TOKENS, (1, 8), generator=torch.Generator().manual_seed(0))
    other = tokens.clone()
    other[0, 5:] = PADDING
    torch.testing.assert_close(model(tokens)[:, :5], model(other)[:, :5])
    assert not torch.allclose(model(tokens)[:, 5:], model(other)[:, 5:])


def test_counts_add_up_and_training_helps(data):
    model = transformer(width=32, max_tokens=32)
    whole, parts = batches_of(data, "test", 40), batches_of(data, "test", 7)
    sums = [counts_of(model, language_modelling, batches) for batches in (parts, whole)]
    torch.testing.assert_close(*sums, rtol=1e-5, atol=0)
    batches = batches_of(data, "train", 20)
    losses = losses_of_training(model, language_modelling, batches, steps=20, lr=0.01)
    assert losses[-1] < 0.7 * losses[0]
