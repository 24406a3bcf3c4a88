from __future__ import annotations

from pathlib import Path

import pytest
import torch
from made_images import parquet_set
from torch import Tensor

from rayprune import config
from rayprune.data import IGNORED_PIXEL, NUM_RANDOMS, InMemory, Split, load_data
from rayprune.data.augment import Augmentation, augment
from rayprune.data.splits import Normalisation, channel_statistics

CPU = torch.device("cpu")
INDICES = [torch.tensor([3, 0, 17, 5]), torch.tensor([9, 9, 1, 2])]


def draw(indices: list[Tensor] = INDICES) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(len(rows), NUM_RANDOMS, generator=generator) for rows in indices]


def batches(
    split: Split, indices: list[Tensor] = INDICES, randoms: list[Tensor] | None = None
) -> list[tuple[Tensor, Tensor]]:
    return list(split.batches(indices, device=CPU, randoms=randoms))


def assert_equal(some: list[tuple[Tensor, Tensor]], others: list[tuple[Tensor, Tensor]]) -> None:
    assert len(some) == len(others)
    for (inputs, targets), (other_inputs, other_targets) in zip(some, others, strict=True):
        assert torch.equal(inputs, other_inputs)
        assert inputs.stride() == other_inputs.stride()
        assert torch.equal(targets, other_targets)


def in_memory(augmentation: Augmentation = "none", *, num: int = 20) -> Split:
    images = torch.arange(num * 3 * 64).view(num, 3, 8, 8).mul(7).remainder(256).to(torch.uint8)
    samples = InMemory(images, torch.arange(num))
    return Split(samples, augmentation, Normalisation.of(*channel_statistics(samples)))


@pytest.mark.parametrize("kind", ["none", "crop", "crop_flip"])
def test_a_batch_is_gathered_augmented_and_normalised(kind: Augmentation) -> None:
    split, randoms = in_memory(kind), draw()
    samples = split.samples
    assert isinstance(samples, InMemory)
    mean, std = channel_statistics(samples)
    for rows, numbers, (inputs, targets) in zip(
        INDICES, randoms, batches(split, randoms=randoms), strict=True
    ):
        images = augment(samples.inputs[rows], numbers, kind)
        expected = (images.double() - mean[:, None, None]) / std[:, None, None]
        assert torch.allclose(inputs.double(), expected, atol=1e-5)
        assert inputs.dtype == torch.float32
        assert torch.equal(targets, samples.targets[rows])


def test_without_randoms_nothing_is_augmented() -> None:
    assert_equal(batches(in_memory("crop_flip")), batches(in_memory("none")))
    assert_equal(batches(in_memory("none"), randoms=draw()), batches(in_memory("none")))


def test_every_batch_needs_its_randoms() -> None:
    with pytest.raises(ValueError, match="2 batches need as many randoms, got 1"):
        batches(in_memory("crop"), randoms=draw()[:1])


def test_two_workers_see_what_one_sees() -> None:
    split, randoms = in_memory("crop_flip"), draw()
    whole = batches(split, randoms=randoms)
    shares = [
        batches(split, [rows[part] for rows in INDICES], [r[part] for r in randoms])
        for part in (slice(0, 2), slice(2, 4))
    ]
    joined = [
        (torch.cat([inputs, more]), torch.cat([targets, more_targets]))
        for (inputs, targets), (more, more_targets) in zip(*shares, strict=True)
    ]
    assert_equal(joined, whole)


def test_float_images_are_taken_as_they_are() -> None:
    images = torch.randn(20, 1, 4, 4)
    split = Split(InMemory(images, torch.arange(20)))
    assert torch.equal(batches(split)[0][0], images[INDICES[0]])


def test_target_images_move_with_their_images() -> None:
    planes = torch.arange(20 * 64).view(20, 8, 8).remainder(200)
    images = planes[:, None].to(torch.uint8)
    split = Split(InMemory(images, planes), "crop_flip")
    for inputs, targets in batches(split, randoms=draw()):
        outside = targets == IGNORED_PIXEL
        assert 0 < outside.sum() < targets.numel()
        assert torch.equal(inputs[:, 0].long()[~outside], targets[~outside])
        assert not inputs[:, 0][outside].any()


def test_statistics_are_those_of_all_pixels() -> None:
    images = torch.randint(0, 256, (50, 3, 5, 4), dtype=torch.uint8)
    mean, std = channel_statistics(InMemory(images, torch.arange(50)), batch_size=7)
    pixels = images.double().transpose(0, 1).flatten(1)
    assert torch.allclose(mean, pixels.mean(1))
    assert torch.allclose(std, pixels.std(1, correction=0))


def test_statistics_of_many_images_take_evenly_spaced_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rayprune.data.splits.NUM_STATISTICS", 10)
    images = torch.randint(0, 256, (35, 1, 5, 4), dtype=torch.uint8)
    mean, _ = channel_statistics(InMemory(images, torch.arange(35)))
    assert torch.allclose(mean, images[::4].double().mean())


def test_a_constant_channel_stays_finite() -> None:
    samples = InMemory(torch.full((4, 1, 2, 2), 9, dtype=torch.uint8), torch.arange(4))
    normalise = Normalisation.of(*channel_statistics(samples))
    assert torch.equal(normalise(samples.inputs), torch.zeros(4, 1, 2, 2))


def loaded(folder: Path, streaming: str, workers: int, **fields: object) -> config.Data:
    values = {"streaming": streaming, "loader_workers": workers, **fields}
    return config.Data(parquet=parquet_set(folder, num=24, side=20), **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("fields", [{}, {"augment": "crop"}, {"resize": 12, "augment": "none"}])
def test_streamed_batches_equal_those_from_memory(
    tmp_path: Path, workers: int, fields: dict[str, object]
) -> None:
    memory = load_data(loaded(tmp_path, "never", 0, **fields), seed=1)
    stream = load_data(loaded(tmp_path, "always", workers, **fields), seed=1)
    assert isinstance(memory.train.samples, InMemory)
    assert not isinstance(stream.train.samples, InMemory)
    assert_equal(batches(stream.train, randoms=draw()), batches(memory.train, randoms=draw()))
    assert_equal(batches(stream.train), batches(memory.train))
    few = [torch.tensor([1, 0])]
    assert_equal(batches(stream.val, few, draw(few)), batches(memory.val, few))
    assert_equal(batches(stream.test, few, draw(few)), batches(memory.test, few))


def test_imagenet_crops_do_not_depend_on_loader_processes(tmp_path: Path) -> None:
    fields = {"augment": "imagenet", "resize": 14}
    here = load_data(loaded(tmp_path, "auto", 0, **fields), seed=1)
    there = load_data(loaded(tmp_path, "auto", 2, **fields), seed=1)
    assert_equal(batches(there.train, randoms=draw()), batches(here.train, randoms=draw()))
    augmented, plain = batches(here.train, randoms=draw())[0][0], batches(here.train)[0][0]
    assert augmented.shape == plain.shape == (4, 3, 14, 14)
    assert not torch.equal(augmented, plain)


def test_streaming_leaves_the_global_random_state_alone(tmp_path: Path) -> None:
    data = load_data(loaded(tmp_path, "always", 2), seed=1)
    before = torch.get_rng_state()
    batches(data.train)
    assert torch.equal(torch.get_rng_state(), before)
