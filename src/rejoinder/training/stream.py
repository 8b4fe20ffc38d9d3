"""Examples that are read while they are learned, for data larger than memory.

A first pass counts them and keeps a sample of their replies to draw negatives from. Each epoch
reads the files in a new order through a buffer: what is learned next is drawn from it at random,
and the next example read takes its place. The order is a function of seed and epoch, so a resumed
run reads up to where it was, which is fast as nothing is encoded, and goes on exactly.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rejoinder.config import TrainConfig
from rejoinder.errors import DataError
from rejoinder.schema import Example
from rejoinder.training.source import Rows, batches_per_epoch, mixed

POOL = 100_000  # replies kept to draw negatives from

Read = Callable[[Path], Iterator[Example]]


@dataclass
class Stream:
    """Files of examples as a `Source`; batches are asked for in order, or from a new start."""

    files: Sequence[Path]
    read: Read
    tokens: Rows
    config: TrainConfig
    count: int
    pool: Sequence[str]
    _next: int = -1  # number of the batch that `_left` gives next
    _left: Iterator[list[Example]] = field(default_factory=lambda: iter(()))

    def batch(self, number: int) -> list[Example]:
        """The examples of a batch. Raises DataError if the files have less than was counted."""
        epoch, place = divmod(number, batches_per_epoch(self))
        if number != self._next or place == 0:
            self._left = self._batches(epoch)
            for _ in range(place):
                next(self._left, None)
        self._next = number + 1
        found = next(self._left, None)
        if not found:
            raise DataError(
                f"{', '.join(map(str, self.files))}: fewer examples than the {self.count} that "
                "were counted at the start; the files changed, so start the training again"
            )
        return found

    def _batches(self, epoch: int) -> Iterator[list[Example]]:
        batch: list[Example] = []
        for example in self._examples(epoch):
            batch.append(example)
            if len(batch) == self.config.batch_size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _examples(self, epoch: int) -> Iterator[Example]:
        files = list(self.files)
        if not self.config.shuffle:
            return (example for file in files for example in self.read(file))
        chance = random.Random(mixed(self.config.seed, epoch, "order"))
        chance.shuffle(files)
        read = (example for file in files for example in self.read(file))
        return buffered(read, self.config.buffer, chance)


def buffered(examples: Iterator[Example], size: int, chance: random.Random) -> Iterator[Example]:
    """Every example once, in an order that is random within about `size` of them."""
    held: list[Example] = []
    for example in examples:
        if len(held) < size:
            held.append(example)
            continue
        place = chance.randrange(size)
        yield held[place]
        held[place] = example
    chance.shuffle(held)
    yield from held


def stream(
    files: Sequence[Path],
    read: Read,
    tokens: Rows,
    config: TrainConfig,
    pool: Sequence[str] = (),
) -> Stream:
    """Count the examples of some files; negatives come of `pool`, or a fair sample of replies."""
    chance = random.Random(mixed(config.seed, 0, "pool"))
    replies: list[str] = []
    count = 0
    for file in files:
        for example in read(file):
            count += 1
            if len(replies) < POOL:
                replies.append(example.reply)
            elif (place := chance.randrange(count)) < POOL:  # reservoir sampling
                replies[place] = example.reply
    return Stream(files, read, tokens, config, count, pool or list(dict.fromkeys(replies)))
