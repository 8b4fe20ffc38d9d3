"""Examples to the tensors of one optimizer step.

Everything random here (order, dropped personas, drawn negatives) is a function of the seed and the
number of the epoch or step, never of what was drawn before: a resumed run sees what an unbroken one
would have seen, with no random state to save.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rejoinder.batching import pad
from rejoinder.config import TrainConfig
from rejoinder.schema import Dialogue, Example
from rejoinder.tokens import Tokens

NEGATIVES = 3  # drawn for each context of a cross-encoder where the settings do not say


class Batch(NamedTuple):
    """Contexts, candidates, and which of them count.

    Bi- and poly-encoder: contexts (B, T) against all N candidates (N, L); real (B, N).
    Cross-encoder: contexts (B, T), candidates (B * K, L), row by row; real (B, K).
    gold: (B,) column of the right reply.
    """

    context: tuple[Tensor, Tensor]
    candidates: tuple[Tensor, Tensor]
    gold: Tensor
    real: Tensor


@dataclass(frozen=True)
class Source:
    """Examples and all that is needed to make batches of them again and again."""

    examples: Sequence[Example]
    tokens: Tokens
    config: TrainConfig
    pool: Sequence[str]  # distinct replies that negatives are drawn from

    @property
    def batches_per_epoch(self) -> int:
        return -(-len(self.examples) // self.config.batch_size)

    def steps_in(self, epochs: float) -> int:
        """Optimizer steps of so many epochs, at least one."""
        return max(1, round(epochs * self.batches_per_epoch / self.config.update_every))

    def epoch(self, number: int) -> list[list[int]]:
        """The batches of one epoch, as example numbers."""
        size = self.config.batch_size
        if not self.config.shuffle:
            count = len(self.examples)
            return [list(range(i, min(i + size, count))) for i in range(0, count, size)]
        generator = torch.Generator().manual_seed(_mix(self.config.seed, number, "order"))
        order = torch.randperm(len(self.examples), generator=generator).tolist()
        return [order[i : i + size] for i in range(0, len(order), size)]


def source(examples: Sequence[Example], tokens: Tokens, config: TrainConfig) -> Source:
    """Collect the replies."""
    pool = list(dict.fromkeys(example.reply for example in examples))
    return Source(examples, tokens, config, pool)


def shared_batch(data: Source, numbers: Sequence[int], step: int) -> Batch:
    """In-batch candidates: every row's reply is a candidate for all rows, each text once."""
    chance = random.Random(_mix(data.config.seed, step, "batch"))
    chosen = [data.examples[i] for i in numbers]
    columns = [example.reply for example in chosen]
    if data.config.candidates == "inline":
        columns += [text for example in chosen for text in example.candidates]
    columns += chance.sample(data.pool, min(data.config.negatives, len(data.pool)))
    columns = list(dict.fromkeys(columns))
    place = {text: i for i, text in enumerate(columns)}
    gold = torch.tensor([place[example.reply] for example in chosen])
    real = torch.ones(len(chosen), len(columns), dtype=torch.bool)
    for row, example in enumerate(chosen):
        if data.config.candidates == "inline" and example.candidates:
            real[row] = False
            real[row, [place[text] for text in example.candidates]] = True
        _hide_other_right(real[row], columns, example)
        real[row, gold[row]] = True
    return Batch(_contexts(data, chosen, chance), _candidates(data, columns), gold, real)


def listed_batch(data: Source, numbers: Sequence[int], step: int) -> Batch:
    """A list of its own for every row: the right reply first, then its candidates or drawn ones."""
    chance = random.Random(_mix(data.config.seed, step, "batch"))
    chosen = [data.examples[i] for i in numbers]
    lists = [[example.reply, *_negatives(data, example, chance)] for example in chosen]
    width = max(map(len, lists))
    real = torch.zeros(len(lists), width, dtype=torch.bool)
    for row, texts in enumerate(lists):
        real[row, : len(texts)] = True
        texts += [texts[0]] * (width - len(texts))
    gold = torch.zeros(len(lists), dtype=torch.long)
    flat = [text for texts in lists for text in texts]
    return Batch(_contexts(data, chosen, chance), _candidates(data, flat), gold, real)


def _negatives(data: Source, example: Example, chance: random.Random) -> list[str]:
    right = {_key(reply) for reply in example.replies}
    count = data.config.negatives or NEGATIVES
    if data.config.candidates == "inline" and example.candidates:
        wrong = [text for text in example.candidates if _key(text) not in right]
        return chance.sample(wrong, min(count, len(wrong))) if data.config.negatives else wrong
    drawn = chance.sample(data.pool, min(count + len(right), len(data.pool)))
    return [text for text in drawn if _key(text) not in right][:count]


def _hide_other_right(real: Tensor, columns: Sequence[str], example: Example) -> None:
    right = {_key(reply) for reply in example.replies}
    for column, text in enumerate(columns):
        if _key(text) in right:
            real[column] = False


def _contexts(
    data: Source, chosen: Sequence[Example], chance: random.Random
) -> tuple[Tensor, Tensor]:
    seen = [_varied(example.context, data.config, chance) for example in chosen]
    return pad(data.tokens.contexts(seen), data.tokens.pad)


def _candidates(data: Source, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    return pad(data.tokens.candidates(texts), data.tokens.pad)


def _varied(context: Dialogue, config: TrainConfig, chance: random.Random) -> Dialogue:
    """Now and then no persona, and never the order of its sentences twice."""
    persona = list(context.persona)
    if chance.random() < config.drop_persona:
        persona = []
    if config.shuffle_persona:
        chance.shuffle(persona)
    return Dialogue(context.messages, tuple(persona), context.partner_persona)


def _key(text: str) -> str:
    return text.strip().lower()


def _mix(seed: int, number: int, use: str) -> int:
    """One number from three, the same on every machine and run."""
    return random.Random(f"{seed} {number} {use}").getrandbits(62)
