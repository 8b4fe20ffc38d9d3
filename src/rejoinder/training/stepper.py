"""One optimizer step: the gradients of its batches, added up, clipped, applied."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from rejoinder.config import GeneratorConfig
from rejoinder.errors import RejoinderError
from rejoinder.generator import TextGenerator
from rejoinder.ranker import TextRanker
from rejoinder.schema import Example
from rejoinder.sharded import is_piece, own_piece
from rejoinder.training.batches import Batch, listed_batch, shared_batch, written_batch
from rejoinder.training.chunks import Passes, backward
from rejoinder.training.processes import ALONE, Processes
from rejoinder.training.resume import Position
from rejoinder.training.source import Source
from rejoinder.training.steps import Rate, make_optimizer

LEAST_BUDGET = 256  # tokens: less does not hold one pair of context and reply


@dataclass
class Stepper:
    """A ranker, its optimizer, and what they learn from."""

    ranker: TextRanker | TextGenerator
    data: Source
    steps: int  # of the whole run
    say: Callable[[str], None]
    processes: Processes = ALONE
    optimizer: torch.optim.Optimizer = field(init=False)
    rate: Rate = field(init=False)
    scaler: torch.amp.GradScaler = field(init=False)  # keeps small gradients alive in fp16
    budget: int = field(init=False)  # tokens encoded at once; less where memory ran out
    told: bool = False  # that batches are encoded in parts
    negatives: float | None = None  # of an example, on average in the first batch

    def __post_init__(self) -> None:
        config = self.data.config
        self.optimizer = make_optimizer(self.trained, config)
        self.rate = Rate(config, self.steps)
        self.scaler = torch.amp.GradScaler(
            self.ranker.device.type, enabled=config.precision == "fp16"
        )
        self.scaler.scale(torch.zeros((), device=self.ranker.device))  # makes its state
        self.budget = config.max_tokens

    @property
    def trained(self) -> list[torch.nn.Parameter]:
        return [p for p in self.ranker.module.parameters() if p.requires_grad]

    def step(self, number: int) -> float:
        """Make step `number`, counted from 0; -> the mean loss of its rows.

        Raises RejoinderError where the loss is no number.
        """
        self.ranker.module.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate.at(number) * group["factor"]
        loss = self._gradients_in_memory(number)
        if not math.isfinite(loss):
            raise RejoinderError(
                f"step {number}: the loss is {loss}; lower --lr or train with --precision fp32"
            )
        self.scaler.unscale_(self.optimizer)
        if self.data.config.clip:
            clip(self.trained, self.data.config.clip, self.processes)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss

    def remember(self, position: Position) -> None:
        """Write down what a resumed run needs beside weights and moments."""
        position.rate = self.rate.state()
        position.scaler = self.scaler.state_dict()

    def restore(self, position: Position) -> None:
        """Take that up again."""
        if position.rate:
            self.rate.restore(position.rate)
        if position.scaler:
            whole = ("growth_interval", "_growth_tracker")
            kept = {n: int(x) if n in whole else x for n, x in position.scaler.items()}
            self.scaler.load_state_dict(kept)

    def _gradients_in_memory(self, number: int) -> float:
        """Gradients of the step; where memory runs out, again with half as many tokens at once."""
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            try:
                return self._gradients(number)
            except torch.OutOfMemoryError:
                if self.budget <= LEAST_BUDGET or self.processes.count > 1:
                    raise  # the others are already waiting for what this one would have sent
                self.budget //= 2
                torch.cuda.empty_cache()
                self.say(
                    f"\nout of memory: from here on {self.budget} tokens are encoded at once\n"
                )

    def _gradients(self, number: int) -> float:
        loss = torch.tensor(sum(self._parts(number)), dtype=torch.float64)
        gradients = [p.grad for p in self.trained if p.grad is not None]
        self.processes.add([gradient for gradient in gradients if not is_piece(gradient)])
        for gradient in gradients:
            if is_piece(gradient):  # FSDP takes the mean over processes where the sum is meant
                own_piece(gradient).mul_(self.processes.count)
        self.processes.add([loss])
        return loss.item()

    def _parts(self, number: int) -> Iterator[float]:
        """Sum up the gradients of the step's batches; -> each one's part of the mean loss."""
        config = self.data.config
        first = number * config.update_every
        parts = {i: self.data.batch(i) for i in range(first, first + config.update_every)}
        batches = {
            i: self._make(self.data, chosen, i, self.processes.own) for i, chosen in parts.items()
        }
        chosen = [example for examples in parts.values() for example in examples]
        weight, token, read = self._weights(chosen, list(batches.values()))
        for i, batch in batches.items():
            self._tell_if_split(batch)
            self._tell_negatives(batch)
            how = Passes(
                config.precision,
                self.budget,
                seed=config.seed * 1_000_003 + i,
                factor=self.scaler.get_scale(),
                token=token,
                read=read,
                processes=self.processes,
            )
            yield backward(self.ranker.module, _moved(batch, self.ranker.device), how, weight)

    @property
    def _make(self) -> Callable[[Source, Sequence[Example], int, slice], Batch]:
        """What makes a batch of examples."""
        settings = self.ranker.config
        if isinstance(settings, GeneratorConfig):
            return partial(written_batch, alone=not settings.mc_coef)
        return listed_batch if self.ranker.is_cross else shared_batch

    def _weights(
        self, chosen: Sequence[Example], batches: Sequence[Batch]
    ) -> tuple[float, float, float]:
        """What a row, a token of its right reply, and one of its context count in the step's loss.

        All of them are of all processes, whoever has them.
        """
        settings = self.ranker.config
        if not isinstance(settings, GeneratorConfig):
            return 1 / len(chosen), 0.0, 0.0
        rows = self.data.tokens.candidates([example.reply for example in chosen])
        tokens = sum(len(row) - 1 for row in rows)  # the first opens the reply and is given
        read = 0.0
        if settings.context_coef:
            learned = sum(int(batch.context[1][:, 1:].sum()) for batch in batches)
            count = torch.tensor(float(learned), dtype=torch.float64)
            self.processes.add([count])
            read = settings.context_coef / max(1.0, count.item())
        return settings.mc_coef / len(chosen), settings.lm_coef / tokens, read

    def _tell_if_split(self, batch: Batch) -> None:
        size = int(batch.context[1].sum())
        if size <= self.budget or self.told:
            return
        self.told = True
        self.say(
            f"a batch has {size} tokens of context, so it is encoded in parts of at most "
            f"{self.budget} (max_tokens): less memory, the same gradients\n"
        )

    def _tell_negatives(self, batch: Batch) -> None:
        if self.negatives is not None or not len(batch.gold):
            return
        self.negatives = batch.real.sum(1).double().mean().item() - 1
        self.say(f"{self.negatives:.1f} negatives per example in the first batch\n")


def clip(parameters: list[torch.nn.Parameter], limit: float, processes: Processes = ALONE) -> None:
    """Scale all gradients down together, so that their norm is at most `limit`.

    Of weights in pieces each process knows its own squares only, so those are added up.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    pieces = [own_piece(gradient) for gradient in gradients if is_piece(gradient)]
    square = _squares(pieces)
    processes.add([square])
    square = square + _squares([g for g in gradients if not is_piece(g)])
    factor = (limit / (square.sqrt() + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        own_piece(gradient).mul_(factor.to(gradient.device))


def _squares(tensors: list[Tensor]) -> Tensor:
    if not tensors:
        return torch.zeros(())
    return torch.stack([tensor.float().square().sum().cpu() for tensor in tensors]).sum()


def _moved(batch: Batch, device: torch.device) -> Batch:
    def moved(side: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        ids, mask = side
        return ids.to(device), mask.to(device)

    context, candidates = moved(batch.context), moved(batch.candidates)
    shared = [None if one is None else one.to(device) for one in (batch.owner, batch.ends)]
    return Batch(context, candidates, batch.gold.to(device), batch.real.to(device), *shared)
