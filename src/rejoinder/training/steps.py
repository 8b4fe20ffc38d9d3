"""How weights move: the optimizer and the learning rate of every step."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from rejoinder.config import TrainConfig
from rejoinder.sharded import is_piece

# A scale is learned as its logarithm, which Adam moves by about the learning rate per step.
SCALE_RATE = 50.0


def make_optimizer(
    parameters: Iterable[nn.Parameter], config: TrainConfig
) -> torch.optim.Optimizer:
    """The optimizer over what is to be trained; scales move faster and do not decay."""
    trained = list(parameters)
    weights = [p for p in trained if p.dim()]
    groups = [
        {"params": [p for p in weights if not is_piece(p)], "factor": 1.0},
        {"params": [p for p in weights if is_piece(p)], "factor": 1.0},  # not to be mixed with them
        {"params": [p for p in trained if not p.dim()], "factor": SCALE_RATE, "weight_decay": 0.0},
    ]
    used = [group for group in groups if group["params"]]
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            used, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )
    kind = {"adamw": torch.optim.AdamW, "adamax": torch.optim.Adamax}[config.optimizer]
    return kind(
        used,
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
    )


class Rate:
    """The learning rate of every step: up in `warmup` steps, then as the schedule says.

    `linear` and `cosine` end at 0, `inverse-sqrt` falls as 1 / sqrt(step) from the end of warm-up.
    `plateau` keeps its state in `factor`, `waited` and `best`, which are saved with the run.
    """

    def __init__(self, config: TrainConfig, steps: int) -> None:
        self.config = config
        self.steps = steps
        self.factor = 1.0
        self.waited = 0
        self.best = math.inf

    def at(self, step: int) -> float:
        """Learning rate of step number `step`, counted from 0."""
        if step < self.config.warmup:
            return self.config.lr * (step + 1) / self.config.warmup
        left = max(0.0, (self.steps - step) / max(1, self.steps - self.config.warmup))
        if self.config.schedule == "linear":
            return self.config.lr * left
        if self.config.schedule == "cosine":
            return self.config.lr * (1 - math.cos(math.pi * left)) / 2
        if self.config.schedule == "inverse-sqrt":
            return self.config.lr * math.sqrt(max(1, self.config.warmup) / (step + 1))
        return self.config.lr * self.factor

    def validated(self, loss: float) -> None:
        """Tell a `plateau` schedule the dev loss; it lowers the rate after `patience` bad ones."""
        if self.config.schedule != "plateau":
            return
        if loss < self.best * (1 - 1e-4):
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.waited > self.config.patience:
            self.factor, self.waited = self.factor * self.config.decay, 0

    def state(self) -> dict[str, float]:
        """What a resumed run needs."""
        return {"factor": self.factor, "waited": self.waited, "best": self.best}

    def restore(self, state: dict[str, float]) -> None:
        """Take up a saved state."""
        self.factor, self.best = float(state["factor"]), float(state["best"])
        self.waited = int(state["waited"])
