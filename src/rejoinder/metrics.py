"""Numbers about rankings and replies: numpy in, floats out.

Ties count against the model: a right reply that shares its score with n wrong ones stands behind
all n. So a model that gives every candidate the same score is never right.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rejoinder.words import words

LONGEST = 4  # words of the sequences that BLEU compares


def rank_of_best(scores: ArrayLike, right: ArrayLike) -> int:
    """Place of the best right candidate, 1 = first: (N,) scores, (N,) bool -> int.

    Wrong candidates with an equal score stand before it; other right ones do not count. NaN is
    never right: it compares as neither less nor more, and what is not less stands before.
    """
    scores, right = np.asarray(scores, dtype=np.float64), np.asarray(right, dtype=bool)
    best = scores[right].max()
    return 1 + int((~(scores[~right] < best)).sum())


def hits_at(ranks: ArrayLike, k: int) -> float:
    """Share of ranks that are at most k."""
    return float((np.asarray(ranks) <= k).mean())


def reciprocal_rank(ranks: ArrayLike) -> float:
    """Mean of 1 / rank (MRR)."""
    return float((1 / np.asarray(ranks, dtype=np.float64)).mean())


def interval(values: ArrayLike, level: float = 1.96) -> tuple[float, float]:
    """95 % confidence interval of a share of ones, by Wilson's score (1927): (n,) -> low, high."""
    hits: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    n = len(hits)
    if n == 0:
        return 0.0, 1.0
    p, z = float(hits.mean()), level
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def word_f1(text: str, replies: Iterable[str]) -> float:
    """Best F1 of the words of `text` against those of any right reply; 0 without a common word."""
    return max((_f1(words(text), words(reply)) for reply in replies), default=0.0)


def _f1(guess: Sequence[str], gold: Sequence[str]) -> float:
    common = sum((Counter(guess) & Counter(gold)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(guess), common / len(gold)
    return 2 * precision * recall / (precision + recall)


def bleu(texts: Sequence[str], replies: Sequence[Sequence[str]]) -> float:
    """BLEU-4 over all texts together, each against its right replies, 0 to 1.

    Papineni et al. 2002, without smoothing, on the words that F1 counts.
    """
    right, made = [0] * LONGEST, [0] * LONGEST
    length = wanted = 0
    for text, references in zip(texts, replies, strict=True):
        guess, golds = words(text), [words(reply) for reply in references]
        length += len(guess)
        wanted += min((abs(len(gold) - len(guess)), len(gold)) for gold in golds)[1]
        for n in range(1, LONGEST + 1):
            found = Counter(grams(guess, n))
            allowed: Counter[tuple[str, ...]] = Counter()
            for gold in golds:
                allowed |= Counter(grams(gold, n))
            right[n - 1] += sum((found & allowed).values())
            made[n - 1] += sum(found.values())
    if not all(right):
        return 0.0
    shares = [math.log(hit / all_) for hit, all_ in zip(right, made, strict=True)]
    brevity = min(0.0, 1 - wanted / length)
    return math.exp(brevity + sum(shares) / LONGEST)


def distinct(texts: Iterable[str], n: int) -> float:
    """Different sequences of n words over all of them, in all texts together (Li et al. 2016)."""
    found = [gram for text in texts for gram in grams(words(text), n)]
    return len(set(found)) / len(found) if found else 0.0


def repetition(text: str, before: Iterable[str] = (), n: int = 3) -> float:
    """Share of a text's sequences of n words that stand earlier in it, or in a text before."""
    seen = {gram for earlier in before for gram in grams(words(earlier), n)}
    found = grams(words(text), n)
    again = 0
    for gram in found:
        again += gram in seen
        seen.add(gram)
    return again / len(found) if found else 0.0


def grams(parts: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """Sequences of n words, in order."""
    return [tuple(parts[i : i + n]) for i in range(len(parts) - n + 1)]
