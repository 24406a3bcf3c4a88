"""Records of stages for tests that need some."""

from rayprune.results.record import StageRecord


def record(**fields):
    """A record with every number set, and these fields changed."""
    numbers = dict.fromkeys(["num_parameters", "num_nonzero", "flops", "flops_nonzero"], 7)
    ratios = dict.fromkeys(["compression", "theoretical_speedup", "goal_sparsity"], 1.5)
    return StageRecord(
        **{
            **dict(key="k", cycle=0, epochs=2, schedule="allr", lr_peak=0.1),
            **dict(d1=None, d2=0.25, d=1 / 3, sparsity=0.5, metrics={"val_loss": 0.1}),
            **dict(emptied_layers=("a", "b")),
            **numbers,
            **ratios,
            **fields,
        }
    )
