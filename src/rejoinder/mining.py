"""Hard negatives: wrong candidates that a ranker takes for the best, to train the next ranker on.

    mined = mine(ranker, examples, pool, MiningSettings(keep=4, margin=0.0))
    mined.lists[0]  # wrong replies to the first example, hardest first

The ranker orders the pool for every example; of equal scores the earlier candidate of the pool
comes first. From the top down, four filters leave out what may be right after all:

    right    texts equal to a right reply but for case, spaces and punctuation; right are all
             replies of the example, and those that other examples give to the same context
    skip     the first ranks of what is left: what is best of all is suspect
    margin   scores above that of the right reply minus a margin
    teacher  the same margin, by the scores of another ranker, which may be a cross-encoder

A margin is a difference of scores. All rankers are trained by cross-entropy over a softmax of their
scores, so a difference is the logarithm of odds: with margin M a candidate stays if the ranker
finds it at least exp(M) times less likely than the right reply, whatever the kind and the scale.
The relative margin of NV-Retriever (score < 0.95 * right score, arXiv:2407.15831) needs cosines;
here scores may be negative, and a constant added to all of them must change nothing.
"""

from __future__ import annotations

import math
import random
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rejoinder.batching import by_length
from rejoinder.errors import ConfigError
from rejoinder.models.rankers import Encoded
from rejoinder.ranker import BUDGET, TextRanker
from rejoinder.schema import Example

Progress = Callable[[int, int], None]
CELLS = 2**23  # numbers of one tensor of scores or products: 32 MiB, whatever the pool's size
LOOKS = 8  # a teacher reads at most so many times `keep` candidates for an example


@dataclass(frozen=True, kw_only=True)
class MiningSettings:
    """Which candidates become negatives."""

    keep: int = 4  # negatives of an example, at most
    skip: int = 0  # ranks left out at the top
    draw: int = 0  # random candidates to rank for each example; 0 = the whole pool
    margin: float | None = None  # log-odds below the right reply; None = any score, 0 for a teacher
    seed: int = 0  # of the draws

    def __post_init__(self) -> None:
        for name, least in (("keep", 1), ("skip", 0), ("draw", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected {least} or more")
        if self.draw and self.draw <= self.skip:
            raise ConfigError(
                f"draw is {self.draw} and skip is {self.skip}, which leaves nothing; expected to "
                "draw more candidates than are skipped"
            )
        if self.margin is not None and not math.isfinite(self.margin):
            raise ConfigError(f"margin is {self.margin}; expected a number, such as 0 or 2.5")


@dataclass(frozen=True, kw_only=True)
class Mined:
    """Hard negatives of every example, and how many candidates each filter left out."""

    lists: list[tuple[str, ...]]  # in the order of the examples, hardest first
    candidates: int  # of the pool, each text once
    right: int
    skipped: int
    margin: int
    teacher: int

    def as_json(self) -> dict[str, float]:
        """Sizes and counts as plain numbers; `negatives` is their mean."""
        sizes = [len(texts) for texts in self.lists]
        return {
            "examples": len(sizes),
            "candidates": self.candidates,
            "negatives": sum(sizes) / max(len(sizes), 1),
            "fewest": min(sizes, default=0),
            "without": sizes.count(0),
            "left_out_right": self.right,
            "left_out_skip": self.skipped,
            "left_out_margin": self.margin,
            "left_out_teacher": self.teacher,
        }


class Scored(NamedTuple):
    """One example: the scores of the candidates that were ranked for it, and of its reply."""

    example: int  # its number
    scores: Tensor  # (N,)
    reply: float


def mine(
    ranker: TextRanker,
    examples: Sequence[Example],
    pool: Sequence[str],
    settings: MiningSettings,
    *,
    teacher: TextRanker | None = None,
    known: Sequence[Example] = (),
    progress: Progress | None = None,
) -> Mined:
    """Find the wrong candidates of the pool that the ranker finds best for each example.

    Of texts in the pool that differ only in case, spaces and punctuation the first one counts.
    Draws hang on the seed and the example, not on its place. known: all examples, where `examples`
    are some of them: their replies to the same context are right too. progress: called for one
    stage after the other (candidates, contexts, rounds of the teacher), each counted from its
    start. Memory: a vector per candidate, the token ids of the contexts, and a few tensors of
    `CELLS`. Raises
    ConfigError for an empty pool, or a cross-encoder without `draw`.
    """
    texts = _distinct(pool)
    _check(ranker, texts, settings)
    right = _right_numbers(examples, known or examples, texts)
    columns: list[Sequence[int]] = [range(len(texts))] * len(examples)
    if settings.draw:
        columns = [_drawn(example, len(texts), settings) for example in examples]
    margin = -math.inf if settings.margin is None or teacher else settings.margin
    depth = settings.keep * (LOOKS if teacher else 1)
    ranked: list[list[str]] = [[] for _ in examples]
    rights = skipped = above = refused = 0
    with _resting(ranker):
        for number, scores, reply in _scores(ranker, examples, texts, columns, settings, progress):
            listed = columns[number]
            places = [listed.index(i) for i in right[number] if i in listed]
            rights += _leave_out(scores, torch.tensor(places, dtype=torch.long))
            skipped += _leave_out(scores, best(scores, settings.skip))
            above += _leave_out(scores, (scores > reply - margin).nonzero()[:, 0])
            ranked[number] = [texts[listed[place]] for place in best(scores, depth).tolist()]
    if teacher:
        with _resting(teacher):
            ranked, refused = _taught(teacher, examples, ranked, settings, progress)
    return Mined(
        lists=[tuple(found) for found in ranked],
        candidates=len(texts),
        right=rights,
        skipped=skipped,
        margin=above,
        teacher=refused,
    )


def key(text: str) -> str:
    """What of a text counts for being the same: no case, spaces or punctuation.

    Symbols and emoji stay; a text of nothing but punctuation stays as it is.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    kept = "".join(c for c in folded if unicodedata.category(c)[0] not in "PZC")
    return kept or text.strip()


def best(scores: Tensor, count: int) -> Tensor:
    """Places of the highest of (N,) scores, best first, of equal ones the earlier; never -inf."""
    count = min(count, len(scores))
    if not count:
        return torch.empty(0, dtype=torch.long)
    lowest = scores.topk(count).values[-1]  # topk alone would take any of several equal ones
    places = ((scores >= lowest) & (scores > -math.inf)).nonzero()[:, 0]
    order = scores[places].argsort(descending=True, stable=True)
    return places[order][:count]


def _leave_out(scores: Tensor, places: Tensor) -> int:
    """Give these places the score -inf, in place; how many they are."""
    scores[places] = -math.inf
    return len(places)


def _distinct(pool: Iterable[str]) -> list[str]:
    """Texts of different keys in the order of their first coming, blank ones left out."""
    found: dict[str, str] = {}
    for text in pool:
        if text.strip():
            found.setdefault(key(text), text)
    return list(found.values())


def _check(ranker: TextRanker, texts: Sequence[str], settings: MiningSettings) -> None:
    if not texts:
        raise ConfigError("no candidates to mine from; expected a pool of at least one text")
    if ranker.is_cross and not settings.draw:
        raise ConfigError(
            f"a cross-encoder reads every pair anew, too slow for all {len(texts)} candidates of "
            "every example; give --draw 24 to rank so many random ones, or mine with a bi- or "
            "poly-encoder and make the cross-encoder the --teacher"
        )


def _right_numbers(
    examples: Sequence[Example], known: Sequence[Example], texts: Sequence[str]
) -> list[list[int]]:
    """Numbers of the candidates that are right replies, for each example."""
    numbers = {key(text): i for i, text in enumerate(texts)}
    right: dict[object, set[int]] = {}
    for example in known:
        keys = {key(reply) for reply in example.replies}
        found = {numbers[one] for one in keys if one in numbers}
        right.setdefault(_said(example), set()).update(found)
    return [sorted(right[_said(example)]) for example in examples]


def _said(example: Example) -> tuple[object, ...]:
    """What a context is known by: who speaks and what was said."""
    context = example.context
    return context.persona, *((message.role, message.content) for message in context.messages)


def _drawn(example: Example, size: int, settings: MiningSettings) -> list[int]:
    chance = random.Random(f"{settings.seed} {_said(example)} {example.reply}")
    return sorted(chance.sample(range(size), min(size, settings.draw)))


@contextmanager
def _resting(ranker: TextRanker) -> Iterator[None]:
    """No dropout, also in the middle of a training."""
    learning = ranker.module.training
    ranker.module.eval()
    try:
        yield
    finally:
        ranker.module.train(learning)


def _scores(
    ranker: TextRanker,
    examples: Sequence[Example],
    texts: Sequence[str],
    columns: Sequence[Sequence[int]],
    settings: MiningSettings,
    progress: Progress | None,
) -> Iterator[Scored]:
    if not settings.draw:
        return _over_pool(ranker, examples, texts, progress)
    lists = [[texts[i] for i in numbers] for numbers in columns]
    return _over_lists(ranker, examples, lists, progress)


def _over_lists(
    ranker: TextRanker,
    examples: Sequence[Example],
    lists: Sequence[Sequence[str]],
    progress: Progress | None,
) -> Iterator[Scored]:
    """Scores of a list of candidates for each example."""
    asked = [[*texts, example.reply] for texts, example in zip(lists, examples, strict=True)]
    rows = ranker.score_many([example.context for example in examples], asked, progress)
    for number, row in enumerate(rows):
        yield Scored(number, row[:-1], float(row[-1]))


def _over_pool(
    ranker: TextRanker,
    examples: Sequence[Example],
    texts: Sequence[str],
    progress: Progress | None,
) -> Iterator[Scored]:
    """Scores of the whole pool for each example, contexts of like length together."""
    known = list(dict.fromkeys([*texts, *(example.reply for example in examples)]))
    numbers = {text: i for i, text in enumerate(known)}
    vectors = ranker.encode_candidates(known, progress)  # the pool first, then other replies
    contexts = [example.context for example in examples]
    lengths = [len(row) for row in ranker.tokens.contexts(contexts)]
    rows = max(1, CELLS // len(texts))
    done = 0
    for batch in by_length(lengths, BUDGET):
        encoded = ranker.encode_contexts([contexts[i] for i in batch])
        for start in range(0, len(batch), rows):
            part = Encoded(*(x[start : start + rows] for x in encoded))
            some = batch[start : start + rows]
            scores = _in_blocks(ranker, part, vectors[: len(texts)])
            replies = vectors[[numbers[examples[i].reply] for i in some]]
            own = _in_blocks(ranker, part, replies).diagonal()
            yield from map(Scored, some, scores, own.tolist())
        done += len(batch)
        if progress:
            progress(done, len(contexts))


def _in_blocks(ranker: TextRanker, context: Encoded, vectors: Tensor) -> Tensor:
    """Scores (B, M, D), (N, D) -> (B, N), in blocks whose products stay within `CELLS`."""
    rows, codes, width = context.vectors.shape
    block = max(1, CELLS // (rows * max(codes, width)))
    return torch.cat([ranker.score(context, part) for part in vectors.split(block)], 1)


def _taught(
    teacher: TextRanker,
    examples: Sequence[Example],
    ranked: Sequence[Sequence[str]],
    settings: MiningSettings,
    progress: Progress | None,
) -> tuple[list[list[str]], int]:
    """What the teacher lets through of each list, and how many it left out.

    It reads `keep` candidates of every example that still lacks some, then the next ones, so that
    few more are read than are needed.
    """
    keep, margin = settings.keep, settings.margin or 0.0
    found: list[list[str]] = [[] for _ in examples]
    refused = 0
    for start in range(0, LOOKS * keep, keep):
        unsure = [i for i, texts in enumerate(ranked) if len(found[i]) < keep and texts[start:]]
        if not unsure:
            break
        lists = [ranked[i][start : start + keep] for i in unsure]
        chosen = [examples[i] for i in unsure]
        for place, scores, reply in _over_lists(teacher, chosen, lists, progress):
            fine = (scores <= reply - margin).tolist()
            found[unsure[place]] += _where(lists[place], fine)
            refused += fine.count(False)
    return [texts[:keep] for texts in found], refused


def _where(texts: Iterable[str], fine: Iterable[bool]) -> list[str]:
    return [text for text, good in zip(texts, fine, strict=True) if good]
