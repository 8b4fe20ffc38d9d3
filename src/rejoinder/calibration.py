"""Fit a ranker's confidence on examples it was not trained on.

Every example is asked with pools of several sizes; in half of them no right reply is present, so
that the answer "none of these" has its share. What is fitted is whether the top candidate is right.

The fit is measured crosswise: one fitted on the first half of the examples answers for the second,
and the other way round, so that no example is measured by a fit that saw it.
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
from rejoinder.reliability import Bin, bins_of, expected_error, risk_over_coverage, separation
from rejoinder.schema import Example

SIZES = (20, 100, 1000, 10_000)  # candidates in a pool; those larger than the data are left out
CROSS_SIZES = (5, 10, 20)  # a cross-encoder reads every pair: small pools only
LIMIT, CROSS_LIMIT = 1000, 300  # examples that are enough, the first ones
MOST_TEXTS = 12_000  # that pools are drawn from: enough for the largest
POINTS = 200  # of a curve of risk over coverage that are kept
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Asked:
    """Pools that were asked: what the scores were like, and whether the top candidate was right."""

    features: NDArray[np.float64]  # (R, 3)
    right: NDArray[np.bool_]  # (R,)
    present: NDArray[np.bool_]  # (R,) whether a right reply was in the pool at all
    sizes: NDArray[np.int64]  # (R,) as asked for; a pool may hold one candidate less
    examples: NDArray[np.int64]  # (R,) the number of the example that was asked


@dataclass(frozen=True)
class AtSize:
    """How well a confidence does in pools of one size."""

    size: int  # candidates
    error: float  # expected calibration error
    separation: float  # area under the ROC curve: top candidate right against wrong
    present: float  # the same for: a right reply is in the pool at all
    right: float  # share of pools whose top candidate is right
    pools: int


@dataclass(frozen=True)
class Calibrated:
    """A fitted confidence, and how well it does on examples that it was not fitted on."""

    confidence: Confidence
    error: float  # expected calibration error
    separation: float  # area under the ROC curve: top candidate right against wrong
    present: float  # the same for: a right reply is in the pool at all
    pools: int
    sizes: tuple[AtSize, ...]
    bins: tuple[Bin, ...]  # of the reliability diagram
    risk: tuple[tuple[float, float], ...]  # coverage and the share of wrong answers there
    area: float  # under that curve: the mean risk over all coverages
    best_area: float  # what it would be if every right answer were surer than every wrong one

    def as_json(self) -> dict[str, float]:
        """Plain values; those of one size of pools under name@size."""
        found = {
            "expected_calibration_error": self.error,
            "auroc_right": self.separation,
            "auroc_present": self.present,
            "risk_coverage_area": self.area,
            "pools": self.pools,
        }
        for one in self.sizes:
            found[f"expected_calibration_error@{one.size}"] = one.error
            found[f"auroc_present@{one.size}"] = one.present
        return found


def fit_and_report(
    ranker: TextRanker,
    examples: Sequence[Example],
    *,
    others: Sequence[Example] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> Calibrated:
    """Fit on all pools; measure crosswise, by the fit of the half that an example is not in.

    `others` are examples whose replies only fill the pools. Raises DataError with fewer than 20
    distinct replies.
    """
    asked = ask(ranker, examples, others=others, seed=seed, progress=progress)
    sure = _crosswise(asked)
    risk = risk_over_coverage(sure, asked.right)
    count = len(risk)
    kept = np.unique(np.linspace(1, count, min(count, POINTS)).round().astype(int))
    return Calibrated(
        fit(asked.features, asked.right),
        expected_error(sure, asked.right),
        separation(sure, asked.right),
        separation(sure, asked.present),
        count,
        tuple(_at_size(asked, sure, size) for size in np.unique(asked.sizes).tolist()),
        tuple(bins_of(sure, asked.right)),
        tuple((float(k / count), float(risk[k - 1])) for k in kept),
        float(risk.mean()),
        float(risk_over_coverage(asked.right.astype(float), asked.right).mean()),
    )


def _crosswise(asked: Asked) -> NDArray[np.float64]:
    """The confidence of every pool by the fit of the half that its example is not in: -> (R,)"""
    first = asked.examples < (asked.examples.max() + 1) // 2
    sure = np.empty(len(asked.right))
    for half in (first, ~first):
        if not half.any():  # a single example has no other half
            return np.full(len(asked.right), float(asked.right.mean()))
        trial = fit(asked.features[half], asked.right[half])
        sure[~half] = [trial.of_features(row) for row in asked.features[~half]]
    return sure


def _at_size(asked: Asked, sure: NDArray[np.float64], size: int) -> AtSize:
    here = asked.sizes == size
    return AtSize(
        size,
        expected_error(sure[here], asked.right[here]),
        separation(sure[here], asked.right[here]),
        separation(sure[here], asked.present[here]),
        float(asked.right[here].mean()),
        int(here.sum()),
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
    wanted = CROSS_SIZES if ranker.is_cross else SIZES
    rows, right, present, sizes, numbers = [], [], [], [], []
    for number, (example, drawn) in enumerate(
        zip(examples, _scored(ranker, examples, pools, texts), strict=True)
    ):
        for size, (pool, scores) in zip(wanted, drawn, strict=False):  # the largest may be left out
            crowd = Crowd.of(scores)
            rows.append(crowd.features())
            right.append(texts[pool[int(scores.argmax())]] in example.replies)
            present.append(any(texts[i] in example.replies for i in pool))
            sizes.append(size)
            numbers.append(number)
        if progress:
            progress(number + 1, len(examples))
    return Asked(*(np.array(column) for column in (rows, right, present, sizes, numbers)))


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
