"""Ray Train's trainer as slots use it: nothing beside its workers but what they need.

Ray Train starts four more processes for each run, a second or more of CPU time and .2 GB each, one
of them on the head: a controller, a cleaner of placement groups, a holder of data sets and a place
where ranks meet. Of these only the last is left: the controller runs where ``fit`` is called.
"""

from __future__ import annotations

import asyncio
from typing import Any

from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

# Whoever gives a slot up removes its placement group, and workers read their data themselves.
UNUSED = ("PlacementGroupCleanerCallback", "DatasetsCallback")


class SlotTrainer(DataParallelTrainer):
    """Ray Train's base of all trainers, whose ``fit`` runs the controller in its own thread."""

    def _create_default_callbacks(self) -> list[Any]:
        callbacks: list[Any] = super()._create_default_callbacks()
        return [callback for callback in callbacks if type(callback).__name__ not in UNUSED]

    def _initialize_and_run_controller(self, **parts: Any) -> Any:
        parts["scaling_policy"] = _AsPlaced(parts["scaling_policy"].scaling_config)
        controller = TrainController(**parts)
        asyncio.run(controller.run())
        return controller.get_result()


class OwnGroup(BackendConfig):
    """Workers make their process group themselves, so that only they need torch."""

    backend: str = ""

    @property
    def backend_cls(self) -> type[Backend]:
        return _OwnGroupBackend


class _OwnGroupBackend(Backend):
    share_cuda_visible_devices = True  # as Ray Train does for torch


class _AsPlaced(FixedScalingPolicy):
    """Always all workers; the demand that an autoscaler sees is their placement group alone."""

    def after_controller_start(self, train_run_context: Any) -> None:
        """Ask no coordinator."""

    def _maybe_send_resource_request(self) -> None:
        """Ask no coordinator."""
