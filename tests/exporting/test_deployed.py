"""An exported file is the network: in every runtime, on real images, for any number of them."""

from dataclasses import replace

import pytest
import torch
from made_exports import made_network
from torch import nn

from rayprune.exporting.deployed import TOLERANCE, Deployed, largest_difference, metrics_on_test
from rayprune.exporting.process import RuntimeProcess
from rayprune.exporting.workplace import Workplace

RUNTIMES = ("onnx", "openvino", "mnn", "torch")


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    with RuntimeProcess(tmp_path_factory.mktemp("process")) as process:
        yield process


@pytest.fixture(scope="module")
def place(few_images, process, tmp_path_factory):
    network = made_network(few_images)
    return Workplace(network, tmp_path_factory.mktemp("resnet20"), process)


def deployed(place, runtime):
    path = place.file_for(runtime)
    return Deployed.open(place.process, runtime, path, place.smaller, place.program)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_its_outputs_and_metrics_are_torchs(place, runtime):
    network, module = place.network, deployed(place, runtime)
    assert largest_difference(network, module) < TOLERANCE
    assert metrics_on_test(network, module) == pytest.approx(
        metrics_on_test(network, network.model)
    )


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_it_takes_any_number_of_samples(place, runtime):
    module = deployed(place, runtime)
    for count in (1, 2, 7):
        (images,) = place.network.inputs(count)
        expected = place.network.model(images)
        torch.testing.assert_close(module(images), expected, rtol=1e-3, atol=1e-4)


def test_another_network_is_found_out(place):
    other = made_network({"name": "fashion_mini"}, seed=5)
    assert largest_difference(other, deployed(place, "onnx")) > 0.1


def test_nan_is_a_difference(place):
    class Broken(nn.Module):
        def forward(self, images):
            return place.network.model(images) * float("nan")

    assert largest_difference(place.network, Broken()) == float("inf")


def unrolled(num_classes, in_channels):
    """Goes through its samples one by one, so that a trace holds their number."""

    class Unrolled(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(in_channels * 28 * 28, num_classes)

        def forward(self, images):
            return torch.stack([self.linear(image.flatten()) for image in images])

    return Unrolled()


@pytest.mark.parametrize("runtime", ["onnx", "mnn"])
def test_a_fixed_number_of_samples_is_run_in_parts(few_images, process, tmp_path, runtime):
    network = made_network(few_images, {"target": f"{__name__}:unrolled"})
    place = Workplace(network, tmp_path, process, batch=3)
    assert place.program.batch == 3
    module = deployed(place, runtime)
    assert largest_difference(network, module) < TOLERANCE
    assert metrics_on_test(network, module) == pytest.approx(
        metrics_on_test(network, network.model)
    )


def two_inputs():
    """Images and their brightness, by name."""
    images = torch.rand(60, 1, 8, 8)
    samples = {"images": images, "levels": images.mean((1, 2, 3))[:, None]}
    labels = torch.arange(60) % 3
    return {"train": (samples, labels), "test": (samples, labels), "classes": list("abc")}


def of_two_inputs(num_classes):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv2d(1, 4, 3)
            self.linear = nn.Linear(4 * 36 + 1, num_classes)

        def forward(self, levels, images):
            found = self.convolution(images).relu().flatten(1)
            return {"logits": self.linear(torch.cat([found, levels], 1)), "aux": found.sum(1)}

    return Named()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_named_inputs_and_outputs_keep_their_places(process, tmp_path, runtime):
    network = made_network(
        {"target": f"{__name__}:two_inputs"}, {"target": f"{__name__}:of_two_inputs"}
    )
    place = Workplace(network, tmp_path, process)
    module = deployed(place, runtime)
    assert network.signature.names == ("images", "levels")
    assert largest_difference(network, module) < TOLERANCE
    assert metrics_on_test(network, module) == pytest.approx(
        metrics_on_test(network, network.model)
    )


def texts():
    """Token ids of different lengths, padded to the longest of a batch."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(3, 12, (60,), generator=generator).tolist()
    samples = [(torch.randint(1, 20, (n,), generator=generator), n % 3) for n in lengths]

    def collate(batch):
        tokens, labels = zip(*batch, strict=True)
        return nn.utils.rnn.pad_sequence(tokens, batch_first=True), torch.tensor(labels)

    return {"train": samples, "test": samples, "classes": list("abc"), "collate": collate}


def of_texts(num_classes):
    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(20, 8)
            self.linear = nn.Linear(8, num_classes)

        def forward(self, tokens):
            return self.linear(self.embedding(tokens).mean(1))

    return Bag()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_lengths_that_depend_on_the_batch_stay_free(process, tmp_path, runtime):
    network = made_network({"target": f"{__name__}:texts"}, {"target": f"{__name__}:of_texts"})
    assert network.signature.varying == ((0, 1),)
    place = Workplace(network, tmp_path, process)
    module = deployed(place, runtime)
    assert largest_difference(network, module) < TOLERANCE
    assert metrics_on_test(network, module) == pytest.approx(
        metrics_on_test(network, network.model)
    )


def test_infinite_outputs_are_equal_to_themselves(place):
    class Masked(nn.Module):
        def forward(self, images):
            return place.network.model(images).masked_fill(images.sum((1, 2, 3))[:, None] > 0, -inf)

    inf = float("inf")
    network = replace(place.network, model=Masked())
    assert largest_difference(network, Masked()) == 0
    assert largest_difference(network, place.network.model) == inf


def test_a_network_that_differs_from_run_to_run_is_not_compared(place):
    class Random(nn.Module):
        def forward(self, images):
            return place.network.model(images) + torch.randn(())

    with pytest.raises(ValueError, match="differ from run to run"):
        largest_difference(replace(place.network, model=Random()), place.network.model)
