"""Where a run's examples come from, batch by batch, in an order that the seed alone decides."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import torch

from rejoinder.config import TrainConfig
from rejoinder.evaluation import dialogue_numbers
from rejoinder.schema import Dialogue, Example


class Rows(Protocol):
    """Texts as rows of token ids: `Tokens` of a ranker, the layout of a generator."""

    @property
    def pad(self) -> int: ...
    def contexts(self, dialogues: Sequence[Dialogue]) -> list[list[int]]: ...
    def candidates(self, replies: Sequence[str]) -> list[list[int]]: ...


class Source(Protocol):
    """What a run needs of its data."""

    @property
    def tokens(self) -> Rows: ...
    @property
    def config(self) -> TrainConfig: ...
    @property
    def pool(self) -> Sequence[str]:
        """Distinct texts that negatives are drawn from."""

    @property
    def count(self) -> int:
        """Examples of an epoch."""

    def batch(self, number: int) -> list[Example]:
        """The examples of a batch, counted from the start of the run."""


def batches_per_epoch(data: Source) -> int:
    """The last one may be smaller."""
    return -(-data.count // data.config.batch_size)


def steps_in(data: Source, epochs: float) -> int:
    """Optimizer steps of so many epochs, at least one."""
    return max(1, round(epochs * batches_per_epoch(data) / data.config.update_every))


@dataclass(frozen=True)
class Listed:
    """Examples that fit in memory."""

    examples: Sequence[Example]
    tokens: Rows
    config: TrainConfig
    pool: Sequence[str]
    hard: list[tuple[int, ...]] = field(default_factory=list)  # mined: numbers of the pool's texts
    _order: dict[int, list[int]] = field(default_factory=dict)  # of the running epoch

    @property
    def count(self) -> int:
        return len(self.examples)

    def batch(self, number: int) -> list[Example]:
        epoch, place = divmod(number, batches_per_epoch(self))
        size = self.config.batch_size
        return [self._example(i) for i in self._epoch(epoch)[place * size : (place + 1) * size]]

    def _example(self, number: int) -> Example:
        example = self.examples[number]
        if not self.hard:
            return example
        texts = tuple(self.pool[i] for i in self.hard[number])
        return Example(example.context, example.replies, texts)

    def _epoch(self, number: int) -> list[int]:
        if number not in self._order:
            self._order.clear()
            self._order[number] = self._shuffled(number)
        return self._order[number]

    def _shuffled(self, epoch: int) -> list[int]:
        if not self.config.shuffle:
            return list(range(self.count))
        generator = torch.Generator().manual_seed(mixed(self.config.seed, epoch, "order"))
        order: list[int]
        if self.config.by_dialogue:
            count = len(self._dialogues)
            order = torch.randperm(count, generator=generator).tolist()
            return [i for number in order for i in self._dialogues[number]]
        order = torch.randperm(self.count, generator=generator).tolist()
        return order

    @cached_property
    def _dialogues(self) -> list[list[int]]:
        """The examples of each dialogue, in order."""
        numbers = dialogue_numbers(self.examples)
        found: list[list[int]] = [[] for _ in range(numbers[-1] + 1)]
        for i, number in enumerate(numbers):
            found[number].append(i)
        return found


def listed(
    examples: Sequence[Example], tokens: Rows, config: TrainConfig, pool: Sequence[str] = ()
) -> Listed:
    """Examples with the texts that negatives are drawn from: `pool`, or their own replies."""
    drawn = pool or list(dict.fromkeys(example.reply for example in examples))
    return Listed(examples, tokens, config, drawn)


def mixed(seed: int, number: int, use: str) -> int:
    """One number from three, the same on every machine and run."""
    return random.Random(f"{seed} {number} {use}").getrandbits(62)
