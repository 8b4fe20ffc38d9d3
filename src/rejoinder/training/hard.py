"""Hard negatives in the middle of a training: searched again and again, kept with the run's state.

They go through `data.hard` as numbers of the pool's texts, so that they are saved with the weights
and a resumed run learns from the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rejoinder.mining import Mined, MiningSettings, mine
from rejoinder.ranker import TextRanker
from rejoinder.training.processes import Processes
from rejoinder.training.source import Listed

NONE = -1  # fills rows that have fewer


def search(data: Listed, ranker: TextRanker, processes: Processes) -> Mined:
    """Give every example a new list; each process searches for its share. -> own counts."""
    config = data.config
    settings = MiningSettings(
        keep=config.mine_keep, draw=config.mine_draw, margin=config.mine_margin, seed=config.seed
    )
    own = data.examples[processes.own]
    mined = mine(ranker, own, data.pool, settings, known=data.examples)
    number = {text: i for i, text in enumerate(data.pool)}
    lists = [tuple(number[text] for text in texts) for texts in mined.lists]
    data.hard[:] = processes.collect(lists)
    return mined


def as_tensor(lists: Sequence[Sequence[int]], width: int) -> Tensor:
    """Lists of numbers as one table (examples, width), the rest of a row NONE."""
    rows = [[*numbers, *[NONE] * (width - len(numbers))] for numbers in lists]
    return torch.tensor(rows, dtype=torch.int32)


def from_tensor(table: Tensor) -> list[tuple[int, ...]]:
    """What `as_tensor` was given."""
    return [tuple(i for i in row if i != NONE) for row in table.tolist()]
