"""How far a trial answers the question "how sparse within a loss of dense?", as one number."""

from __future__ import annotations


def goal_of(sparsity: float, gain: float, within: float) -> float:
    """The sparsity in [0, 1) where the loss is tolerated, else how much too large it is, below 0.

    `gain` is the metric minus that of the dense run, turned so that more is better. So every trial
    that keeps the metric is better than every one that does not, whatever their sparsity.
    """
    too_much = -within - gain
    return sparsity if too_much <= 0 else -too_much
