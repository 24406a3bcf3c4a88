"""A slot: one long-lived Ray Train worker group that runs stage after stage.

Starting a Ray Train run costs seconds, so it is paid once a slot and not once a trial.
"""

from __future__ import annotations

from typing import Any

import ray.train
import ray.train.torch

from rayprune.config import Scaling


def run_slot(slot: int, *, ledger: Any, scaling: Scaling, storage: str, ray_folder: str) -> None:
    """Serve the ledger until it says stop; returns then. Raises what Ray Train raises."""
    trainer = ray.train.torch.TorchTrainer(
        _train_function,
        train_loop_config={
            "slot": slot,
            "ledger": ledger,
            "storage": storage,
            "threads": scaling.cpus_per_worker,
        },
        scaling_config=ray.train.ScalingConfig(
            num_workers=scaling.workers,
            use_gpu=scaling.gpus_per_worker > 0,
            resources_per_worker={
                "CPU": scaling.cpus_per_worker,
                **({"GPU": scaling.gpus_per_worker} if scaling.gpus_per_worker else {}),
            },
        ),
        run_config=ray.train.RunConfig(
            name=f"slot-{slot}",
            storage_path=ray_folder,
            failure_config=ray.train.FailureConfig(max_failures=scaling.max_failures),
        ),
    )
    trainer.fit()


def _train_function(config: dict[str, Any]) -> None:
    # Ray Train's controller loads this module too: only the workers need torchvision and the rest.
    from rayprune.distributed.serve import serve

    serve(**config)
