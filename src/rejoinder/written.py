"""Measure what a generator writes, beside what it makes of given replies.

Everything drawn is drawn from the seed, so a measurement can be repeated to the last digit, except
for speeds.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from rejoinder import evaluation, metrics, perplexity
from rejoinder.decoding import Decoding
from rejoinder.evaluation import Report
from rejoinder.generator import TextGenerator
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue, Example
from rejoinder.words import words

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Written(Report):
    """The numbers of one evaluation of a generator; shares are 0 to 1.

    Those of a `Report` are of the next-utterance head, but for f1 and bleu, which are of written
    replies against the right ones. likelihood: hits@1 of candidates by the mean likelihood of their
    tokens. repetition: mean share of a reply's three-word sequences that it, or its speaker before,
    has said already. length: words. persona_use: share of replies nearer to their own persona than
    to another's; None without any.
    """

    likelihood: float
    word_perplexity: float
    parlai_perplexity: float
    bleu: float
    distinct_1: float
    distinct_2: float
    repetition: float
    length: float
    tokens_per_second: float
    persona_use: float | None

    def as_json(self) -> dict[str, Any]:
        """Plain values under the names that papers use."""
        own = {
            "hits@1_likelihood": self.likelihood,
            "word_perplexity": self.word_perplexity,
            "parlai_perplexity": self.parlai_perplexity,
            "bleu": self.bleu,
            "distinct-1": self.distinct_1,
            "distinct-2": self.distinct_2,
            "repetition": self.repetition,
            "length": self.length,
            "tokens_per_second": self.tokens_per_second,
            "persona_use": self.persona_use,
        }
        return {**super().as_json(), **own}


def evaluate(
    generator: TextGenerator,
    examples: Sequence[Example],
    ranking: Report,
    how: Decoding,
    *,
    encoder: TextRanker | None = None,
    counts: Mapping[str, int] | None = None,
    progress: Progress | None = None,
) -> Written:
    """Measure a generator on examples that have candidates.

    ranking: what `evaluation.evaluate` says of it on them. encoder: compares replies with personas;
    None leaves that out. counts: ParlAI's dictionary; the words of the examples themselves if not
    given. Raises DataError as `evaluation.judge` does.
    """
    started = time.perf_counter()
    done = _Stages(len(examples), 4, progress)
    likely = evaluation.evaluate(ByLikelihood(generator), examples, done.next())
    token, word = perplexity.per_token_and_word(generator, examples, done.next())
    known = perplexity.counted(_all_texts(examples)) if counts is None else counts
    dictionary = perplexity.of_dictionary(generator, examples, known, done.next())
    begun = time.perf_counter()
    replies = generator.write([one.context for one in examples], how, done.next())
    spent = time.perf_counter() - begun
    tokens = sum(len(generator.layout.reply(reply)) for reply in replies)
    return Written(
        **vars(ranking)
        | {"perplexity": token, "seconds": ranking.seconds + time.perf_counter() - started}
        | of_texts(replies, examples),
        likelihood=likely.hits_at_1,
        word_perplexity=word,
        parlai_perplexity=dictionary,
        tokens_per_second=tokens / spent,
        persona_use=persona_use(encoder, replies, examples, how.seed) if encoder else None,
    )


def of_texts(replies: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    """f1, bleu, distinct_1, distinct_2, repetition and length of replies, whoever wrote them."""
    pairs = list(zip(replies, examples, strict=True))
    said = [
        [message.content for message in one.context.messages if message.role == "assistant"]
        for one in examples
    ]
    again = [metrics.repetition(text, before) for text, before in zip(replies, said, strict=True)]
    return {
        "f1": float(np.mean([metrics.word_f1(text, one.replies) for text, one in pairs])),
        "bleu": metrics.bleu(replies, [one.replies for one in examples]),
        "distinct_1": metrics.distinct(replies, 1),
        "distinct_2": metrics.distinct(replies, 2),
        "repetition": float(np.mean(again)),
        "length": float(np.mean([len(words(text)) for text in replies])),
    }


def persona_use(
    encoder: TextRanker, replies: Sequence[str], examples: Sequence[Example], seed: int = 0
) -> float | None:
    """Share of replies nearer to their own persona than to another example's, drawn at random.

    Near is the nearest sentence's vector, by `encoder`; 0.5 is chance, equal ones count half. None
    where fewer than two personas differ.
    """
    personas = [one.context.persona for one in examples]
    distinct = list(dict.fromkeys(persona for persona in personas if persona))
    if len(distinct) < 2:
        return None
    sentences = list(dict.fromkeys(text for persona in distinct for text in persona))
    place = {text: i for i, text in enumerate(sentences)}
    known = encoder.encode_candidates(sentences)
    won = []
    for number, (persona, vector) in enumerate(
        zip(personas, encoder.encode_candidates(list(replies)), strict=True)
    ):
        if persona:
            chance = random.Random(f"{seed} {number} persona")
            other = chance.choice([one for one in distinct if one != persona])
            own, others = (
                float((known[[place[text] for text in texts]] @ vector).max())
                for texts in (persona, other)
            )
            won.append(1.0 if own > others else 0.5 if own == others else 0.0)
    return float(np.mean(won))


class ByLikelihood:
    """Ranks candidates by how likely they are to be written."""

    def __init__(self, generator: TextGenerator) -> None:
        self.generator = generator

    def score_many(
        self,
        dialogues: Sequence[Dialogue],
        lists: Sequence[Sequence[str]],
        progress: Progress | None = None,
    ) -> list[Tensor]:
        return self.generator.likelihoods(dialogues, lists, progress)


class _Stages:
    """One bar for several passes over the same examples."""

    def __init__(self, count: int, stages: int, progress: Progress | None) -> None:
        self.count, self.stages, self.progress = count, stages, progress
        self.begun = -1

    def next(self) -> Progress | None:
        self.begun += 1
        if self.progress is None:
            return None
        told, before = self.progress, self.begun * self.count
        return lambda done, _: told((before + done) // self.stages, self.count)


def _all_texts(examples: Sequence[Example]) -> list[str]:
    """Each text of the examples once: replies, messages, personas."""
    found: dict[str, None] = {}
    for one in examples:
        found.update(dict.fromkeys([*one.replies, *one.context.persona]))
        found.update((message.content, None) for message in one.context.messages)
    return list(found)
