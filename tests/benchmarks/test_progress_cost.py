"""What one change costs the driver in a small and in a large study; a ratio made in one run.

pytest -m slow -s tests/benchmarks
"""

import io
import time

import pytest
from rich.console import Console

from rayprune.config import Study
from rayprune.console.progress import ProgressView
from rayprune.results.progress import Changes, ProgressLog, StageProgress
from rayprune.results.recorder import Recorder
from rayprune.trials import make_trials

pytestmark = pytest.mark.slow

CYCLES = 4


def cpu_s_per_change(num_stages, storage, *, terminal):
    """CPU seconds of a change, taken in, recorded and shown; none of them ends a trial."""
    num_trials = num_stages // (CYCLES + 1)
    fields = {"prune": {"cycles": CYCLES, "sparsity": 0.9}}
    search = {"seeds": list(range(num_trials))}
    study = {"name": "s", "experiment": fields, "search": search, "storage": str(storage)}
    study = Study.model_validate(study)
    trials = make_trials(study)
    recorder, log = Recorder(study, trials), ProgressLog({})
    console = Console(file=io.StringIO(), force_terminal=terminal)
    view = ProgressView(console, trials, "val_accuracy")
    spent = []
    for number, trial in enumerate(trials[:200]):
        running = StageProgress("running", 1, {"val_accuracy": 0.5})
        changes = Changes("one", number, {trial.plan[0].key: running}, {}, number)
        started = time.process_time()
        progress = log.take(changes)
        recorder.update(progress)
        view(progress)
        spent.append(time.process_time() - started)
    return sorted(spent)[len(spent) // 2]


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "log"])
def test_a_change(terminal, tmp_path):
    small, large = (
        cpu_s_per_change(number, tmp_path / str(number), terminal=terminal)
        for number in (1_000, 10_000)
    )
    print(
        f"\na change in 10,000 stages: {large * 1e3:.2f} CPU ms, "
        f"{large / small:.1f} times what it is in 1,000"
    )
