"""Where weights are: the processor, or a GPU that may not be there."""

from __future__ import annotations

import torch
from torch import nn

from rejoinder.errors import ConfigError


def move(module: nn.Module, device: str) -> None:
    """Move the weights, e.g. to "cuda". ConfigError if this machine has no such device."""
    try:
        torch.zeros(1, device=device).item()  # some devices can be named, but hold nothing
        module.to(device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).split("\n")[0].split(". ")[0][:120]
        raise ConfigError(
            f"--device {device}: torch finds no such device here ({reason}); expected cpu, or "
            "cuda where there is a GPU, so leave --device out to use the processor"
        ) from None
