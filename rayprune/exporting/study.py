"""Every trained network of a study as a deployed file: weighed, timed, and kept with its stage."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rayprune.config import Experiment, Measure
from rayprune.exporting.measure import Bench, Dense
from rayprune.exporting.network import Network, trained_network
from rayprune.exporting.process import ProcessDiedError, RuntimeProcess
from rayprune.results.measurement import Measurement, read_measurement, write_measurement
from rayprune.results.progress import StudyProgress
from rayprune.results.recorder import Recorder
from rayprune.results.stages import LostSnapshotError, load_content
from rayprune.snapshot import decode
from rayprune.training.run import failure_message

log = logging.getLogger(__name__)

MAX_DEATHS = 2  # of the process of one network: who is killed may not be to blame

Found = tuple[str, Measurement | str]
"""Key of a stage, and what was measured, or why nothing was."""


def measure_stages(
    stages: Sequence[tuple[str, Experiment]], storage: str, how: Measure
) -> Iterator[Found]:
    """Measure the networks of finished stages one after the other, each kept as it is measured.

    What was measured before is not measured again. Nothing else should run on this machine.
    """
    dense: Dense = {}
    with tempfile.TemporaryDirectory(prefix="rayprune-") as folder:
        for key, experiment in stages:
            found: Measurement | str | None = read_measurement(storage, key, how)
            if found is None:
                found = _measured(key, experiment, storage, how, Path(folder), dense)
            yield key, found


def _measured(
    key: str, experiment: Experiment, storage: str, how: Measure, folder: Path, dense: Dense
) -> Measurement | str:
    try:
        network = trained_network(decode(load_content(storage, key)), experiment)
        measurement = _in_a_process(network, how, folder, dense)
        write_measurement(storage, key, how, measurement)
    except LostSnapshotError:
        return f"the snapshot of stage {key} is gone"
    except Exception as error:  # of a user's network or a library: the results are there anyway
        return failure_message(error)
    return measurement


def _in_a_process(
    network: Network, how: Measure, folder: Path, dense: Dense, deaths: int = 0
) -> Measurement:
    """A process of its own for each network: what one leaves behind slows no other."""
    try:
        with RuntimeProcess(folder) as process:
            bench = Bench(folder, process, how.threads, how.batch, dense)
            return bench.measure(network, how.runtime)
    except ProcessDiedError:
        if deaths == MAX_DEATHS:
            raise
        return _in_a_process(network, how, folder, dense, deaths + 1)


def measure_here(
    recorder: Recorder, progress: StudyProgress, on_progress: Callable[[StudyProgress], None]
) -> None:
    """Measure what is not measured yet of a study, from this process."""
    how = recorder.study.search.measure
    assert how is not None
    stages = [(key, trial.experiment) for key, trial in recorder.unmeasured]
    found = measure_stages(stages, recorder.storage, how)
    keep_measured(recorder, found, progress, on_progress)


def keep_measured(
    recorder: Recorder,
    found: Iterable[Found],
    progress: StudyProgress,
    on_progress: Callable[[StudyProgress], None],
) -> None:
    """Give what is measured to the recorder, and tell of each network as it comes."""
    stages = dict(recorder.unmeasured)
    reasons: dict[str, list[str]] = {}
    for number, (key, measured) in enumerate(found, 1):
        trial = stages[key]
        what = f"trial {trial.name}" if key == trial.key else f"the dense network of {trial.name}"
        of = f"{number} of {len(stages)}"
        if isinstance(measured, str):
            reasons.setdefault(measured, []).append(what)
            continue
        recorder.add_measured(key, measured)
        note = (
            f"measured {what} ({of}): {measured.latency_ms:.3g} ms, {measured.file_mb:.3g} MB, "
            f"{measured.measured_speedup:.1f}x as fast as dense"
        )
        on_progress(replace(progress, trials=recorder.trials, notes=[note]))
    for reason, those in reasons.items():
        more = f" and {len(those) - 1} more" if len(those) > 1 else ""
        log.warning("%s%s could not be measured: %s", those[0], more, reason)
