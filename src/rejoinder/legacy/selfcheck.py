"""What an imported model makes of three plain prompts: a look at whether all belongs together.

Sizes, tied weights and special tokens are checked on importing, which refuses what does not fit.
A vocabulary of the right size but of another model shows only here: in unknown words, or in replies
that are none.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rejoinder.batching import pad
from rejoinder.decoding import Decoding
from rejoinder.generator import TextGenerator
from rejoinder.layouts import Layout
from rejoinder.models.decoding import Meaning, write
from rejoinder.models.generator import Rows
from rejoinder.parlai_text import ParlaiTokens
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue, Message

PROMPTS = ("hello , how are you ?", "what do you do for a living ?", "do you have any pets ?")
LENGTH = 20  # tokens of a reply, as the old chat wrote at most


@dataclass(frozen=True)
class SelfCheck:
    """What a generator answers to PROMPTS (nothing of a ranker), and what looks wrong."""

    replies: tuple[str, ...]
    warnings: tuple[str, ...]


def check_ranker(ranker: TextRanker) -> SelfCheck:
    """Whether its dictionary knows plain words."""
    tokens = ranker.tokens
    unknown = tokens.dictionary.unknown if isinstance(tokens, ParlaiTokens) else None
    rows = tokens.candidates(PROMPTS)
    odd = [prompt for prompt, row in zip(PROMPTS, rows, strict=True) if unknown in row]
    return SelfCheck((), tuple(_unread(prompt) for prompt in odd))


def check_generator(generator: TextGenerator) -> SelfCheck:
    """Its greedy replies, with any token allowed that it likes best."""
    layout = generator.layout
    pieces = layout.pieces.ids(PROMPTS)
    unknown = layout.tokenizer.token_to_id("<unk>")
    warnings = [
        _unread(prompt) for prompt, ids in zip(PROMPTS, pieces, strict=True) if unknown in ids
    ]
    replies = []
    for prompt, ids in zip(PROMPTS, _greedy(generator, layout), strict=True):
        text = layout.text(ids)
        replies.append(text)
        odd = [i for i in ids if i in layout.never]
        if odd or not text:
            what = f"has the token {odd[0]}, which is no text" if odd else "shows nothing"
            warnings.append(
                f"the greedy reply to {prompt!r} {what}: vocabulary, special tokens and weights "
                "may not belong together"
            )
    return SelfCheck(tuple(replies), tuple(warnings))


def _greedy(generator: TextGenerator, layout: Layout) -> list[list[int]]:
    dialogues = [Dialogue((Message("user", prompt),)) for prompt in PROMPTS]
    ids, mask = pad([layout.context(dialogue) for dialogue in dialogues])
    rows = Rows(ids.to(generator.device), mask.to(generator.device))
    room = generator.module.body.limit - ids.shape[1]
    how = Decoding(greedy=True, max_length=max(1, min(LENGTH, room)))
    meaning = Meaning(layout.stop, never=frozenset())
    found: list[list[int]] = [[] for _ in dialogues]
    with torch.inference_mode():
        for step in write(generator.module, rows, meaning, how, [0] * len(dialogues)):
            for row, token in step.items():
                found[row].append(token)
    return found


def _unread(prompt: str) -> str:
    return (
        f"{prompt!r} is read with unknown words: the vocabulary may be another than the model was "
        "trained with"
    )
