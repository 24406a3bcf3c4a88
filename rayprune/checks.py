"""What can be known of a study before anything runs: one place for all checks but its syntax."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec

from rayprune.config import ConfigError, Data, Experiment, Model, OwnTask, Study
from rayprune.config.goals import lower_is_better
from rayprune.results.earlier import check_same, read_earlier
from rayprune.results.files import default_storage, study_folder
from rayprune.trials import TrialPlan, check_space


def check(study: Study, trials: Sequence[TrialPlan], *, ray: bool = True) -> None:
    """What can be known before any GPU is taken. Raises ``ValueError``."""
    check_words(study, ray=ray)
    check_parts(study, trials)


def check_words(study: Study, *, ray: bool) -> None:
    """What needs no library: whether the study can run where it is to run."""
    if ray and not _is_connected():
        from rayprune.distributed.scaling import check_scaling

        check_scaling(study.scaling)
    mistakes = [] if ray else list(_of_ray(study))
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    if not study.search.algorithm.is_listed:
        check_space(study)


def _of_ray(study: Study) -> Iterator[str]:
    """What a study that is to run without Ray may not have."""
    search = study.search
    if not search.algorithm.is_listed:
        yield (
            f"search.algorithm {search.algorithm.name} is Ray Tune's, and this study is to run "
            f"without Ray. Write search.algorithm=random, or run with Ray"
        )
    if search.scheduler is not None:
        yield (
            "search.scheduler is Ray Tune's, and this study is to run without Ray. Leave it out "
            "(search.scheduler=null), or run with Ray"
        )
    if study.tracking:
        names = ", ".join(tracker.name for tracker in study.tracking)
        yield (
            f"tracking: {names} listens to Ray Tune, and this study is to run without Ray. Leave "
            f"it out (tracking=[]), or run with Ray"
        )


def check_parts(study: Study, trials: Sequence[TrialPlan]) -> None:
    """Its data, networks, searcher, scheduler and trackers."""
    from rayprune.data import check_data
    from rayprune.models import check_model

    experiments = [trial.experiment for trial in trials] or [study.experiment]
    for data in dict.fromkeys(experiment.data for experiment in experiments):
        check_data(data)
    for model in dict.fromkeys(experiment.model for experiment in experiments):
        fields = {"weights": model.weights, "weights_key": model.weights_key}
        check_model(model.name, target=model.target, new_head=model.new_head, **fields)
    _check_measure(study, experiments)
    _check_sizes(experiments)
    _check_tasks(experiments)
    _check_coupling(experiments)
    check_brought(experiments)
    if study.search.scheduler is not None or not study.search.algorithm.is_listed:
        from rayprune.distributed.searchers import check_search

        check_search(study)
    if study.tracking:
        from rayprune.distributed.tracking import check_tracking

        check_tracking(study.tracking)


def _check_measure(study: Study, experiments: Sequence[Experiment]) -> None:
    """What networks are measured in is installed."""
    measure = study.search.measure
    if measure is None:
        return
    from rayprune.exporting.process import missing

    if reason := missing(measure.runtime):
        raise ConfigError(f"search.measure.runtime {measure.runtime} {reason}")
    lose_filters = any(each.prune.pattern == "filter" for each in experiments)
    if lose_filters and (reason := missing("small")):
        raise ConfigError(f"search.measure of prune.pattern: filter {reason}")


def _check_sizes(experiments: Sequence[Experiment]) -> None:
    """What images are to be resized to is known where weights are to say it."""
    from rayprune.data import with_size
    from rayprune.models import trained_preprocessing

    pairs = dict.fromkeys((each.model, each.data) for each in experiments)
    for model, data in pairs:
        if data.resize == "auto":
            with_size(data, trained_preprocessing(model))


def _check_tasks(experiments: Sequence[Experiment]) -> None:
    """Tasks are there, and are tasks; what a user's own measures shows once it has counted."""
    from rayprune.training.task import make_task

    for task in dict.fromkeys(experiment.task for experiment in experiments):
        make_task(task)
        lower_is_better(task)


def _check_coupling(experiments: Sequence[Experiment]) -> None:
    """What finds coupled filters is an extra, and can read each network on its data."""
    coupling = [experiment for experiment in experiments if experiment.prune.couple_filters]
    if coupling and find_spec("torch_pruning") is None:
        raise ConfigError(
            "experiment.prune.couple_filters: true follows channels with torch-pruning, which is "
            "not installed. Run: pip install rayprune[small], or write false"
        )
    networks = {
        (each.model, each.data): not isinstance(each.task, OwnTask)
        for each in coupling
        if each.data.target is None  # what a user's function gives, only a run of it could tell
    }
    for (model, data), has_classes in networks.items():
        _check_channels(model, data, has_classes)


def _check_channels(model: Model, data: Data, has_classes: bool) -> None:
    """Trace the network once, with any weights, here rather than after a dense run."""
    import torch

    from rayprune.data import open_sources, with_size
    from rayprune.data.reading import how_to_read
    from rayprune.models import build_model, trained_preprocessing
    from rayprune.pruning.coupled import channel_graph

    data = with_size(data, trained_preprocessing(model))
    sources = open_sources(data, has_classes=has_classes)
    image, _ = how_to_read(data, sources, has_classes).example
    with torch.random.fork_rng(devices=[]):  # a caller's random numbers are his own
        try:
            network = build_model(
                model.name,
                target=model.target,
                kwargs=model.kwargs,
                weights=model.weights,
                weights_key=model.weights_key,
                new_head=model.new_head,
                num_classes=len(sources.classes or ()) or None,
                in_channels=image.shape[1],
                is_filled=False,
            )
        except (ValueError, OSError):
            raise
        except Exception:  # of a user's function: the run says it at its beginning
            return
        try:
            channel_graph(network.requires_grad_(True), image)
        except ValueError as error:
            raise ConfigError(
                f"experiment.prune.couple_filters: true cannot be, {error}. Write false"
            ) from error


def check_brought(experiments: Sequence[Experiment]) -> None:
    """Load every network's trained weights once, here rather than on each worker."""
    from rayprune.models import check_weights

    seen: dict[Data, tuple[int, int] | None] = {}
    brought = [experiment for experiment in experiments if experiment.model.weights is not None]
    for experiment in brought:
        _check_masks(experiment)
    for model, data in dict.fromkeys((each.model, each.data) for each in brought):
        if data not in seen:
            seen[data] = _classes_and_channels(data)
        num_classes, channels = seen[data] or (None, data.channels)
        check_weights(
            model, num_classes=num_classes, in_channels=channels, is_certain=seen[data] is not None
        )


def _check_masks(experiment: Experiment) -> None:
    """Methods that sparsify make their own masks, and would let pruned weights come back."""
    from rayprune.models import read_masks

    weights, sparsify = experiment.model.weights, experiment.dense.sparsify
    if sparsify is not None and weights is not None and read_masks(weights):
        raise ConfigError(
            f"experiment.dense.sparsify: {sparsify.method} starts from a dense network, and "
            f"{weights} is a pruned one. Take the folder dense/ beside it, or leave sparsify out"
        )


def _classes_and_channels(data: Data) -> tuple[int, int] | None:
    """How many the data has; None where only a run of the user's function could tell."""
    if data.target is not None:
        return None
    from rayprune.data.dataset import open_sources
    from rayprune.data.reading import NUM_FIRST
    from rayprune.data.sources import BadSampleError

    sources = open_sources(data)
    if sources.classes is None:
        return None
    for row in range(min(NUM_FIRST, len(sources.train))):
        with suppress(BadSampleError):  # the run says what is wrong with it
            image, _ = sources.train[row]
            return len(sources.classes), data.channels or image.shape[0]
    return None


def check_folder(study: Study, trials: Sequence[TrialPlan]) -> None:
    """Raises ``ConfigError`` if the results that lie in the study's folder are another study's."""
    folder = study_folder(default_storage(study), study.name)
    check_same(folder, read_earlier(folder).begun_study, study, trials)


def _is_connected() -> bool:
    """Whether this process uses a Ray already; asks without importing it."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())
