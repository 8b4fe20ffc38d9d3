"""Examples to the tensors of one batch.

Everything random here (dropped personas, drawn negatives) is a function of the seed and the number
of the batch, never of what was drawn before: a resumed run sees what an unbroken one would have
seen, with no random state to save, and several processes agree with no word exchanged.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from rejoinder.batching import pad
from rejoinder.config import TrainConfig
from rejoinder.evaluation import dialogue_numbers
from rejoinder.hints import hinted
from rejoinder.schema import Dialogue, Example
from rejoinder.training.source import Source, mixed
from rejoinder.words import caseless

NEGATIVES = 3  # drawn for each context of a cross-encoder where the settings do not say
EVERY = slice(None)


class Batch(NamedTuple):
    """Contexts, candidates, and which of them count; or one process's share of them.

    Bi- and poly-encoder: own contexts (B, T) against all N candidates, of which own ones (n, L) are
    here; real (B, N). Cross-encoder: own contexts (B, T) with their candidates (B * K, L), row by
    row; real (B, K). gold: (B,) column of the right reply. With one process all are its own.

    Generator: as a cross-encoder, but contexts (G, T) that begin alike are one: owner (B,) says
    whose context each row has, ends (B,) how many of its tokens.
    """

    context: tuple[Tensor, Tensor]
    candidates: tuple[Tensor, Tensor]
    gold: Tensor
    real: Tensor
    owner: Tensor | None = None
    ends: Tensor | None = None


def shared_batch(data: Source, chosen: Sequence[Example], number: int, own: slice = EVERY) -> Batch:
    """Columns for all rows, each text once: replies, then their lists, then drawn ones.

    `batch`: replies and drawn ones count for every row. `inline`: a row's own list alone, all
    columns for a row without one. `batch-all`: all columns. `batch-hard`: as `batch`, and a row's
    own list. `fixed`: the drawn ones, which are the whole fixed set where none are drawn, and the
    row's reply.
    """
    config = data.config
    chance = random.Random(mixed(config.seed, number, "batch"))
    replies = [example.reply for example in chosen]
    with_lists = config.candidates in ("inline", "batch-all", "batch-hard")
    lists = [text for example in chosen for text in example.candidates] if with_lists else []
    drawn = _drawn(data, chance)
    columns = list(dict.fromkeys([*replies, *lists, *drawn]))
    place = {text: i for i, text in enumerate(columns)}
    for_all = {"batch": [*replies, *drawn], "batch-hard": [*replies, *drawn], "fixed": drawn}
    counted = torch.zeros(len(columns), dtype=torch.bool)
    counted[[place[text] for text in for_all.get(config.candidates, columns)]] = True
    rows = chosen[own]
    gold = torch.tensor([place[example.reply] for example in rows], dtype=torch.long)
    real = counted.repeat(len(rows), 1)
    for row, example in enumerate(rows):
        if with_lists and example.candidates:
            real[row] &= config.candidates != "inline"
            real[row, [place[text] for text in example.candidates]] = True
        _hide_other_right(real[row], columns, example)
        real[row, gold[row]] = True
    contexts = _contexts(data, chosen, chance, own)
    return Batch(contexts, _candidates(data, columns[own]), gold, real)


def listed_batch(data: Source, chosen: Sequence[Example], number: int, own: slice = EVERY) -> Batch:
    """A list of its own for every row: the right reply first, then its candidates or drawn ones."""
    chance = random.Random(mixed(data.config.seed, number, "batch"))
    every = [[example.reply, *_negatives(data, example, chance)] for example in chosen]
    lists = every[own]
    width = max(map(len, every))
    real = torch.zeros(len(lists), width, dtype=torch.bool)
    for row, texts in enumerate(lists):
        real[row, : len(texts)] = True
        texts += [texts[0]] * (width - len(texts))
    gold = torch.zeros(len(lists), dtype=torch.long)
    flat = [text for texts in lists for text in texts]
    return Batch(_contexts(data, chosen, chance, own), _candidates(data, flat), gold, real)


def written_batch(
    data: Source,
    chosen: Sequence[Example],
    number: int,
    own: slice = EVERY,
    *,
    alone: bool = False,
) -> Batch:
    """As `listed_batch`, with contexts of one beginning put together; `alone`: no candidates.

    Which process has an example follows its context, so that these are the same however many
    processes there are.
    """
    chance = random.Random(mixed(data.config.seed, number, "batch"))
    lists = [[one.reply, *([] if alone else _negatives(data, one, chance))] for one in chosen]
    width = max(map(len, lists))
    seen = _varied_alike(chosen, data.config, chance)
    rows = data.tokens.contexts(
        [_hinted(*one, data.config, chance) for one in zip(seen, chosen, strict=True)]
    )
    groups = list(_beginning_alike(rows).items())[own]
    examples = [(group, i) for group, (_, members) in enumerate(groups) for i in members]
    real = torch.zeros(len(examples), width, dtype=torch.bool)
    flat = []
    for row, (_, i) in enumerate(examples):
        real[row, : len(lists[i])] = True
        flat += lists[i] + [lists[i][0]] * (width - len(lists[i]))
    return Batch(
        pad([rows[longest] for longest, _ in groups], data.tokens.pad),
        _candidates(data, flat),
        torch.zeros(len(examples), dtype=torch.long),
        real,
        torch.tensor([group for group, _ in examples], dtype=torch.long),
        torch.tensor([len(rows[i]) for _, i in examples], dtype=torch.long),
    )


def _beginning_alike(rows: Sequence[Sequence[int]]) -> dict[int, list[int]]:
    """Row -> the rows that it begins with, itself among them; each row is in one list."""
    found: dict[int, list[int]] = {}
    for i in sorted(range(len(rows)), key=lambda i: (-len(rows[i]), i)):
        size = len(rows[i])
        longest = next((j for j in found if rows[j][:size] == rows[i]), i)
        found.setdefault(longest, []).append(i)
    return found


def _varied_alike(
    chosen: Sequence[Example], config: TrainConfig, chance: random.Random
) -> list[Dialogue]:
    """`_varied` contexts, those of one dialogue with one and the same persona."""
    personas: dict[int, tuple[str, ...]] = {}
    for number, example in zip(dialogue_numbers(chosen), chosen, strict=True):
        if number not in personas:
            personas[number] = _varied(example.context, config, chance).persona
    return [
        replace(example.context, persona=personas[number])
        for number, example in zip(dialogue_numbers(chosen), chosen, strict=True)
    ]


def _hinted(
    context: Dialogue, example: Example, config: TrainConfig, chance: random.Random
) -> Dialogue:
    """Now and then with some of its own candidates as hints, now and then the right reply among."""
    right = {caseless(reply) for reply in example.replies}
    wrong = [text for text in example.candidates if caseless(text) not in right]
    if not config.hints or not wrong or chance.random() >= config.hint_share:
        return context
    shown = chance.sample(wrong, min(config.hints, len(wrong)))
    if chance.random() < config.hint_right:
        shown[chance.randrange(len(shown))] = example.reply
    return hinted(context, shown)


def _drawn(data: Source, chance: random.Random) -> list[str]:
    if data.config.candidates == "fixed" and not data.config.negatives:
        return list(data.pool)
    return chance.sample(data.pool, min(data.config.negatives, len(data.pool)))


def _negatives(data: Source, example: Example, chance: random.Random) -> list[str]:
    """What stands against a row's reply: all of its own list or some, drawn ones, or both."""
    right = {caseless(reply) for reply in example.replies}
    config = data.config
    count = config.negatives or NEGATIVES
    hard = []
    if config.candidates in ("inline", "batch-hard"):
        hard = [text for text in example.candidates if caseless(text) not in right]
    if config.candidates == "inline" and example.candidates:
        return chance.sample(hard, min(count, len(hard))) if config.negatives else hard
    drawn = chance.sample(data.pool, min(count + len(right), len(data.pool)))
    return hard + [text for text in drawn if caseless(text) not in right][:count]


def _hide_other_right(real: Tensor, columns: Sequence[str], example: Example) -> None:
    right = {caseless(reply) for reply in example.replies}
    for column, text in enumerate(columns):
        if caseless(text) in right:
            real[column] = False


def _contexts(
    data: Source, chosen: Sequence[Example], chance: random.Random, own: slice
) -> tuple[Tensor, Tensor]:
    seen = [_varied(example.context, data.config, chance) for example in chosen]
    return pad(data.tokens.contexts(seen[own]), data.tokens.pad)


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
