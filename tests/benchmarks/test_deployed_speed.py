"""What sparsity saves on a CPU: a ResNet-18 for small images, in files, beside the dense one.

    pytest -m slow -s tests/benchmarks/test_deployed_speed.py

Random weights, which kernels do not look at, batch 1, one thread. Files take turns with the same
network dense in its fastest runtime; printed are the medians of paired ratios.
"""

import pytest
from made_exports import made_network

from rayprune.exporting.measure import Bench, machine
from rayprune.exporting.process import RuntimeProcess
from rayprune.exporting.workplace import Workplace

HALF = {"pattern": "filter", "couple_filters": True, "round_channels": 8}
NETWORKS = {
    "90 % of the weights, uniform": {"sparsity": 0.9},
    "90 % of the weights, ERK": {"sparsity": 0.9, "prune": {"allocation": "erk"}},
    "95 % of the weights, uniform": {"sparsity": 0.95},
    "95 % of the weights, ERK": {"sparsity": 0.95, "prune": {"allocation": "erk"}},
    "95 % of the weights, global": {"sparsity": 0.95, "prune": {"allocation": "global"}},
    "half of the channels": {"sparsity": 0.49977, "prune": HALF},
}
RUNTIMES = ("mnn", "onnx", "openvino")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_speed_of_a_resnet18_as_a_file(few_images, tmp_path):
    data, dense = {"parquet": few_images, "resize": 32}, {}
    print(f"\n{machine()}; times as fast as the dense network in its fastest runtime")
    for name, fields in NETWORKS.items():
        folder = tmp_path / name
        folder.mkdir()
        network = made_network(data, "resnet18_cifar", **fields)
        with RuntimeProcess(folder) as process:
            place = Workplace(network, folder, process)
            files = [(runtime, place.file_for(runtime)) for runtime in RUNTIMES]
            times = Bench(folder, process, 1, 1, dense).time(network, files)
        said = ", ".join(
            f"{runtime} {time.speedup:.2f}x ({time.median_ms:.1f} ms, {megabytes(path):.1f} MB)"
            for (runtime, path), time in zip(files, times, strict=True)
        )
        dense_said = f"dense {times[0].dense_ms:.1f} ms in {times[0].dense_runtime}"
        print(f"{name}: {said}; {dense_said}, load {times[0].load_average:.1f}")
        assert all(time.speedup > 0 for time in times)


def megabytes(path):
    return path.stat().st_size / 1e6
