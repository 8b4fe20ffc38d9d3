"""Measure a ranker on examples that have candidates: hits@k, MRR, F1, with their uncertainty.

Only order counts here, and ties count against the model, so shuffling the candidates of an example
never changes a number.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from rejoinder import metrics
from rejoinder.errors import DataError
from rejoinder.schema import Dialogue, Example
from rejoinder.words import composed

Progress = Callable[[int, int], None]


class Scorer(Protocol):
    """Anything that scores candidates: a ranker, or a baseline."""

    def score_many(
        self,
        dialogues: Sequence[Dialogue],
        lists: Sequence[Sequence[str]],
        progress: Progress | None = None,
    ) -> list[Tensor]: ...


@dataclass(frozen=True)
class Judged:
    """One example after scoring: where the best right reply came, and what stood first."""

    example: Example
    candidates: int  # how many there were
    rank: int
    top: str
    score: float  # of what stood first
    margin: float  # of the best right reply over the best wrong candidate; inf without a wrong one


@dataclass(frozen=True)
class Report:
    """The numbers of one evaluation. Times are in seconds, the rest are shares or places."""

    hits_at_1: float
    hits_at_5: float
    hits_at_10: float
    mrr: float
    mean_rank: float
    f1: float
    low: float  # 95 % confidence interval of hits@1
    high: float
    examples: int
    candidates: float  # mean number per example
    seconds: float
    perplexity: float | None = None  # of the right replies' tokens, where they can be written

    def as_json(self) -> dict[str, Any]:
        """Plain values under the names that papers use."""
        return {
            "hits@1": self.hits_at_1,
            "hits@5": self.hits_at_5,
            "hits@10": self.hits_at_10,
            "mrr": self.mrr,
            "mean_rank": self.mean_rank,
            "f1": self.f1,
            "hits@1_interval": [self.low, self.high],
            "examples": self.examples,
            "candidates": self.candidates,
            "seconds": self.seconds,
            "examples_per_second": self.examples / self.seconds if self.seconds else 0.0,
            **({} if self.perplexity is None else {"perplexity": self.perplexity}),
        }


def evaluate(
    scorer: Scorer, examples: Sequence[Example], progress: Progress | None = None
) -> Report:
    """Score every example's candidates and sum up; see `judge` for what is refused."""
    return summarise(*timed(scorer, examples, progress))


def timed(
    scorer: Scorer, examples: Sequence[Example], progress: Progress | None = None
) -> tuple[list[Judged], float]:
    """`judge`, and the seconds that it took."""
    started = time.perf_counter()
    judged = judge(scorer, examples, progress)
    return judged, time.perf_counter() - started


def rank_among(scores: Tensor, right: Sequence[int]) -> int:
    """Place of the best right candidate among all: (N,) scores, its numbers -> 1 = first."""
    mask = np.zeros(len(scores), dtype=bool)
    mask[list(right)] = True
    return metrics.rank_of_best(scores.numpy(), mask)


def judge(
    scorer: Scorer, examples: Sequence[Example], progress: Progress | None = None
) -> list[Judged]:
    """Score every example's candidates, in order.

    A right reply that is missing from the candidates is added. Raises DataError where there are no
    examples, or one without candidates.
    """
    if not examples:
        raise DataError("nothing to evaluate: no assistant message in the data")
    lists = []
    for number, example in enumerate(examples, 1):
        if not example.candidates:
            raise DataError(
                f"example {number} ({example.reply[:40]!r}) has no candidates; give some with "
                "--candidates FILE, or draw replies of other examples with --candidates re-drawn:20"
            )
        known: dict[str, str] = {}  # each text once, in the order given
        for text in example.candidates:
            known.setdefault(composed(text), text)
        if not any(composed(reply) in known for reply in example.replies):
            known[composed(example.reply)] = example.reply
        lists.append(list(known.values()))
    scores = scorer.score_many([example.context for example in examples], lists, progress)
    return [_judge_one(*one) for one in zip(examples, lists, scores, strict=True)]


def _judge_one(example: Example, candidates: list[str], scores: Tensor) -> Judged:
    values = scores.double().numpy()
    replies = set(map(composed, example.replies))
    right = np.array([composed(text) in replies for text in candidates])
    rank = metrics.rank_of_best(values, right)
    best = np.flatnonzero(~(values < values.max())).tolist()  # all of them if one is NaN
    wrong = [i for i in best if not right[i]]
    top = min(candidates[i] for i in wrong or best)
    margin = float(values[right].max() - values[~right].max(initial=-np.inf))
    return Judged(example, len(candidates), rank, top, float(values.max()), margin)


def summarise(judged: Sequence[Judged], seconds: float) -> Report:
    """Judged examples to numbers."""
    ranks = np.array([one.rank for one in judged])
    low, high = metrics.interval(ranks == 1)
    return Report(
        hits_at_1=metrics.hits_at(ranks, 1),
        hits_at_5=metrics.hits_at(ranks, 5),
        hits_at_10=metrics.hits_at(ranks, 10),
        mrr=metrics.reciprocal_rank(ranks),
        mean_rank=float(ranks.mean()),
        f1=float(np.mean([metrics.word_f1(one.top, one.example.replies) for one in judged])),
        low=low,
        high=high,
        examples=len(judged),
        candidates=float(np.mean([one.candidates for one in judged])),
        seconds=seconds,
    )


def redraw(examples: Sequence[Example], count: int, seed: int = 0) -> list[Example]:
    """New candidates for every example: its own reply and others' drawn at random, `count` in all.

    The right reply stands at a random place. Raises DataError if there are too few other replies.
    """
    pool = list(dict.fromkeys(example.reply for example in examples))
    if len(pool) < 2:
        raise DataError(
            f"{len(pool)} distinct replies in the data, so there is nothing to draw candidates "
            "from; expected 2 or more"
        )
    if count < 2 or len(pool) < count:
        raise DataError(
            f"{count} candidates are wanted of {len(pool)} distinct replies in the data; "
            f"expected 2 to {len(pool)}"
        )
    drawn = []
    for number, example in enumerate(examples):
        chance = random.Random(f"{seed} {number}")
        sample = chance.sample(pool, min(len(pool), count + len(example.replies)))
        others = [text for text in sample if text not in example.replies][: count - 1]
        if len(others) < count - 1:
            raise DataError(
                f"example {number + 1} has {len(example.replies)} right replies, which leaves "
                f"{len(others)} wrong ones in the data; expected {count - 1}"
            )
        listed = [example.reply, *others]
        chance.shuffle(listed)
        drawn.append(Example(example.context, example.replies, tuple(listed)))
    return drawn


def dialogue_numbers(examples: Sequence[Example]) -> list[int]:
    """Which dialogue each example is of: it goes on as long as messages are only added."""
    numbers = [0] * len(examples)
    for i in range(1, len(examples)):
        before, now = examples[i - 1].context, examples[i].context
        start = now.messages[: len(before.messages)]
        goes_on = (now.persona, start) == (before.persona, before.messages)
        numbers[i] = numbers[i - 1] + (not goes_on or len(now.messages) == len(start))
    return numbers


def without_persona(examples: Sequence[Example]) -> list[Example]:
    """The same examples with nothing known about who speaks."""
    return [
        Example(Dialogue(example.context.messages), example.replies, example.candidates)
        for example in examples
    ]
