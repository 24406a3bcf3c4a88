"""What Ray's Prometheus endpoint says of a study, and so its dashboard and Grafana."""

from __future__ import annotations

from ray.util.metrics import Gauge

from rayprune.distributed.ledger import Ledger

DESCRIPTIONS = {
    "rayprune_epochs_done": "Epochs that this start of the study has run",
    "rayprune_epochs_lost": "Of these, epochs that had to be run again",
    "rayprune_epochs_shared": "Epochs that trials were spared because another trial runs them",
    "rayprune_stages_ready": "Stages that only lack a slot",
    "rayprune_stages_running": "Stages that run",
    "rayprune_slots": "Slots whose workers live",
}


class Gauges:
    """The numbers of one study."""

    def __init__(self, study: str) -> None:
        self._gauges = {
            name: Gauge(name, description=text, tag_keys=("study",))
            for name, text in DESCRIPTIONS.items()
        }
        self._tags = {"study": study}

    def show(self, ledger: Ledger) -> None:
        """Bring them up to date."""
        values = (
            ledger.executed_epochs,
            ledger.lost_epochs,
            ledger.shared_epochs,
            ledger.num_ready,
            ledger.num_running,
            len(ledger.joined()),
        )
        for gauge, value in zip(self._gauges.values(), values, strict=True):
            gauge.set(float(value), tags=self._tags)
