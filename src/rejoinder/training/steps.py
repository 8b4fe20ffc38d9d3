"""One optimizer step: scores, loss, gradient, rate."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from rejoinder.config import TrainConfig
from rejoinder.models.losses import ranking_loss
from rejoinder.models.rankers import BiEncoder, CrossEncoder, Encoded, PolyEncoder
from rejoinder.training.batches import Batch


def batch_scores(module: BiEncoder | PolyEncoder | CrossEncoder, batch: Batch) -> Tensor:
    """(B, N) scores of a batch's contexts with their candidates."""
    if isinstance(module, CrossEncoder):
        rows, columns = batch.real.shape
        owner = torch.arange(rows, device=batch.real.device).repeat_interleave(columns)
        pairs = module.score_pairs(Encoded(*batch.context), Encoded(*batch.candidates), owner)
        return pairs.view(rows, columns)
    return module.score(
        module.encode_context(*batch.context), module.encode_candidates(*batch.candidates)
    )


def loss_of(module: BiEncoder | PolyEncoder | CrossEncoder, batch: Batch, precision: str) -> Tensor:
    """Mean loss over the rows of the batch."""
    device = batch.gold.device.type
    cast = torch.autocast(device, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()
    with cast:
        scores = batch_scores(module, batch)
    return ranking_loss(scores, batch.gold, batch.real) / len(batch.gold)


# A scale is learned as its logarithm, which Adam moves by about the learning rate per step.
SCALE_RATE = 50.0


def make_optimizer(
    parameters: Iterable[nn.Parameter], config: TrainConfig
) -> torch.optim.Optimizer:
    """AdamW or Adamax over what is to be trained; scales move faster and do not decay."""
    trained = list(parameters)
    kind = {"adamw": torch.optim.AdamW, "adamax": torch.optim.Adamax}[config.optimizer]
    groups = [
        {"params": [p for p in trained if p.dim()], "factor": 1.0},
        {"params": [p for p in trained if not p.dim()], "factor": SCALE_RATE, "weight_decay": 0.0},
    ]
    return kind(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
    )


class Rate:
    """The learning rate of every step: up in `warmup` steps, then as the schedule says.

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
        if self.config.schedule == "linear":
            rest = max(1, self.steps - self.config.warmup)
            return self.config.lr * max(0.0, (self.steps - step) / rest)
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
