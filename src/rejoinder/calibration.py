"""Fit a ranker's confidence on examples it was not trained on.

Every example is asked with pools of several sizes; in half of them no right reply is present, so
that the answer "none of these" has its share. What is fitted is whether the top candidate is right.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from rejoinder.confidence import Confidence, Crowd, fit
from rejoinder.errors import DataError
from rejoinder.ranker import TextRanker
from rejoinder.schema import Example

SIZES = (20, 100, 1000, 10_000)  # candidates in a pool; those larger than the data are left out
CROSS_SIZES = (5, 10, 20)  # a cross-encoder reads every pair: small pools only
LIMIT, CROSS_LIMIT = 1000, 300  # examples that are enough, the first ones
MOST_TEXTS = 12_000  # that pools are drawn from: enough for the largest
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Asked:
    """Pools that were asked: what the scores were like, and whether the top candidate was right."""

    features: NDArray[np.float64]  # (R, 3)
    right: NDArray[np.bool_]  # (R,)
    present: NDArray[np.bool_]  # (R,) whether a right reply was in the pool at all
    sizes: NDArray[np.int64]  # (R,)


@dataclass(frozen=True)
class Calibrated:
    """A fitted confidence, and how well it does on examples that it was not fitted on."""

    confidence: Confidence
    error: float  # expected calibration error
    separation: float  # area under the ROC curve: top candidate right against wrong
    present: float  # the same for: a right reply is in the pool at all
    pools: int

    def as_json(self) -> dict[str, float]:
        """Plain values."""
        return {
            "expected_calibration_error": self.error,
            "auroc_right": self.separation,
            "auroc_present": self.present,
            "pools": self.pools,
        }


def fit_and_report(
    ranker: TextRanker,
    examples: Sequence[Example],
    *,
    others: Sequence[Example] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> Calibrated:
    """Fit on all pools; measure by fitting on one half of the examples and asking the other.

    `others` are examples whose replies only fill the pools. Raises DataError with fewer than 20
    distinct replies.
    """
    asked = ask(ranker, examples, others=others, seed=seed, progress=progress)
    half = np.arange(len(asked.right)) < len(asked.right) // 2
    trial = fit(asked.features[half], asked.right[half])
    sure = np.array([trial.of_features(row) for row in asked.features[~half]])
    return Calibrated(
        fit(asked.features, asked.right),
        expected_error(sure, asked.right[~half]),
        separation(sure, asked.right[~half]),
        separation(sure, asked.present[~half]),
        len(asked.right),
    )


def ask(
    ranker: TextRanker,
    examples: Sequence[Example],
    *,
    others: Sequence[Example] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> Asked:
    """Score pools of candidates drawn from the replies and candidates of all examples given."""
    known = _texts(examples)
    if not ranker.is_cross:  # its pools are small
        for text in _texts(others):
            if len(known) >= MOST_TEXTS:
                break
            known.setdefault(text, len(known))
    texts = list(known)
    if len(texts) < 20:
        raise DataError(
            f"{len(texts)} distinct replies are too few to calibrate on; expected 20 or more"
        )
    pools = [_pools(one, known, ranker.is_cross, seed, i) for i, one in enumerate(examples)]
    rows, right, present, sizes = [], [], [], []
    for number, (example, drawn) in enumerate(
        zip(examples, _scored(ranker, examples, pools, texts), strict=True)
    ):
        for pool, scores in drawn:
            crowd = Crowd.of(scores)
            rows.append(crowd.features())
            right.append(texts[pool[int(scores.argmax())]] in example.replies)
            present.append(any(texts[i] in example.replies for i in pool))
            sizes.append(len(pool))
        if progress:
            progress(number + 1, len(examples))
    return Asked(np.array(rows), np.array(right), np.array(present), np.array(sizes))


def _texts(examples: Sequence[Example]) -> dict[str, int]:
    """Distinct replies and candidates, with their numbers."""
    found = dict.fromkeys(text for one in examples for text in (*one.replies, *one.candidates))
    return {text: number for number, text in enumerate(found)}


def _pools(
    example: Example, known: Mapping[str, int], small: bool, seed: int, number: int
) -> list[list[int]]:
    """Candidate numbers of one example's pools, half of them without any right reply."""
    chance = random.Random(f"{seed} {number}")
    gold = known[example.reply] if chance.random() < 0.5 else None
    right = {known[reply] for reply in example.replies}
    pools = []
    for size in CROSS_SIZES if small else SIZES:
        if size > len(known):
            break
        drawn = [i for i in chance.sample(range(len(known)), size) if i not in right]
        if gold is not None:
            drawn[-1:] = [gold]
        pools.append(drawn)
    return pools


def _scored(
    ranker: TextRanker,
    examples: Sequence[Example],
    pools: Sequence[Sequence[list[int]]],
    texts: Sequence[str],
) -> Iterator[list[tuple[list[int], NDArray[np.float32]]]]:
    contexts = [example.context for example in examples]
    if ranker.is_cross:
        lists = [[texts[i] for pool in drawn for i in pool] for drawn in pools]
        found = ranker.score_many(contexts, lists)
        for drawn, scores in zip(pools, found, strict=True):
            parts = scores.split([len(pool) for pool in drawn])
            yield [(pool, part.numpy()) for pool, part in zip(drawn, parts, strict=True)]
        return
    vectors = ranker.encode_candidates(texts)
    for context, drawn in zip(contexts, pools, strict=True):
        codes = ranker.encode_contexts([context])
        yield [
            (pool, ranker.score(codes, vectors[torch.tensor(pool)])[0].numpy()) for pool in drawn
        ]


def expected_error(
    probability: NDArray[np.float64], right: NDArray[np.bool_], bins: int = 10
) -> float:
    """Expected calibration error: mean distance of confidence and accuracy over equal bins."""
    place = np.minimum((probability * bins).astype(int), bins - 1)
    total = 0.0
    for number in range(bins):
        inside = place == number
        if inside.any():
            total += inside.mean() * abs(float(probability[inside].mean() - right[inside].mean()))
    return float(total)


def separation(probability: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Area under the ROC curve: how often a positive has the higher value; ties count half."""
    high, low = probability[positive], probability[~positive]
    if not len(high) or not len(low):
        return 0.5
    ordered = np.sort(low)
    below = np.searchsorted(ordered, high, "left")
    upto = np.searchsorted(ordered, high, "right")
    return float((below + 0.5 * (upto - below)).mean() / len(low))
