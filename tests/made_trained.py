"""Networks as training leaves them, without training."""

from torch import nn


def as_trained(model: nn.Module) -> nn.Module:
    """In evaluation mode; no parameter or statistic of a batch norm is 0 or 1."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()
