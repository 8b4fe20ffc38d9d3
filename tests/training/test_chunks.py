"""The gradient of a batch: the right one, and the same in however many parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rejoinder.batching import by_length
from rejoinder.config import TrainConfig
from rejoinder.models.losses import ranking_loss
from rejoinder.models.rankers import CrossEncoder, Encoded
from rejoinder.ranker import TextRanker
from rejoinder.schema import Example
from rejoinder.training.batches import Batch, listed_batch, shared_batch
from rejoinder.training.chunks import CANDIDATES, CONTEXTS, Passes, backward
from rejoinder.training.processes import Processes
from rejoinder.training.source import listed

Make = Callable[..., TextRanker]
PLAIN = TrainConfig(drop_persona=0.0, shuffle_persona=False, negatives=3)
ROWS = [0, 5, 9, 3, 12, 7]
WHOLE = 100_000
SHAPES: dict[str, dict[str, Any]] = {
    "bi": {"kind": "bi"},
    "bi-separate": {"kind": "bi", "towers": "separate", "lora": 4},
    "poly-all": {"kind": "poly", "poly": "all"},
    "poly-codes": {"kind": "poly", "poly": "codes"},
    "poly-n_first": {"kind": "poly", "poly": "n_first"},
    "poly-multihead": {"kind": "poly", "poly": "codes", "attention": "multihead"},
    "cross": {"kind": "cross"},
    "cross-linear": {"kind": "cross", "head": "linear"},
    "cross-prefix": {"kind": "cross", "head": "prefix"},
    "cross-separate": {"kind": "cross", "head": "prefix", "towers": "separate"},
}


def batch_of(ranker: TextRanker, lessons: list[Example]) -> Batch:
    data = listed(lessons, ranker.tokens, PLAIN)
    chosen = [lessons[i] for i in ROWS]
    return (listed_batch if ranker.is_cross else shared_batch)(data, chosen, 0)


def gradient(
    ranker: TextRanker, batch: Batch, budget: int, weight: float = 1 / len(ROWS)
) -> tuple[float, Tensor]:
    """The loss, and all gradients in a row."""
    module = ranker.module
    module.zero_grad()
    loss = backward(module, batch, Passes("fp32", budget, seed=7), weight)
    trained = [p for p in module.parameters() if p.requires_grad]
    return loss, torch.cat(
        [torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in trained]
    )


def close(one: Tensor, two: Tensor) -> None:
    torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4 * float(two.abs().max()))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_loss_is_that_of_a_rankers_scores(
    make: Make, lessons: list[Example], shape: str
) -> None:
    """One batch through the training path and through the one that serves."""
    ranker = make(**SHAPES[shape])
    batch = batch_of(ranker, lessons)
    data = listed(lessons, ranker.tokens, PLAIN)
    texts = {
        tuple(row): text
        for row, text in zip(ranker.tokens.candidates(data.pool), data.pool, strict=True)
    }
    ids, mask = batch.candidates
    shown = [texts[tuple(row[real].tolist())] for row, real in zip(ids, mask, strict=True)]
    width = batch.real.shape[1]
    rows = []
    for i, number in enumerate(ROWS):
        own = shown[i * width : (i + 1) * width] if ranker.is_cross else shown
        scores = ranker.scores(lessons[number].context, own).double()[batch.real[i]]
        gold = int(batch.real[i, : batch.gold[i]].sum())
        rows.append(float(scores.logsumexp(0) - scores[gold]))
    weight = 1 / len(ROWS)
    loss = backward(ranker.module, batch, Passes("fp32", WHOLE), weight)
    assert loss == pytest.approx(sum(rows) / len(rows), rel=1e-3)
    rough = backward(ranker.module, batch, Passes("bf16", WHOLE), weight)
    assert rough == pytest.approx(loss, abs=0.3)


@pytest.mark.parametrize("budget", [1, 40, 150])
@pytest.mark.parametrize("shape", SHAPES)
def test_however_many_parts_the_gradient_is_the_same(
    make: Make, lessons: list[Example], shape: str, budget: int
) -> None:
    ranker = make(**SHAPES[shape])
    batch = batch_of(ranker, lessons)
    loss, whole = gradient(ranker, batch, WHOLE)
    again, parts = gradient(ranker, batch, budget)
    assert again == pytest.approx(loss, rel=1e-4)
    assert whole.abs().max() > 0
    close(parts, whole)


@pytest.mark.parametrize("shape", ["bi", "bi-separate", "poly-all", "poly-codes"])
def test_dropout_is_the_same_when_candidates_are_encoded_again(
    make: Make, lessons: list[Example], shape: str
) -> None:
    """Against the same chunks with the same seeds, all kept in memory for one backward pass."""
    ranker = make(**SHAPES[shape], dropout=0.3)
    ranker.module.train()
    batch, budget = batch_of(ranker, lessons), 40
    loss, cached = gradient(ranker, batch, budget)
    module = ranker.module
    assert not isinstance(module, CrossEncoder)
    module.zero_grad()
    ids, mask = batch.candidates
    vectors: dict[int, Tensor] = {}
    parts = list(by_length(mask.sum(1).tolist(), budget))
    assert len(parts) > 1
    for number, rows in enumerate(parts):
        Passes(seed=7).begin(CANDIDATES, number)
        width = int(mask[rows].sum(1).max())
        found = module.encode_candidates(ids[rows, :width], mask[rows, :width]).vectors
        vectors |= dict(zip(rows, found, strict=True))
    every = torch.stack([vectors[i] for i in range(len(ids))])
    total = torch.zeros(())
    ids, mask = batch.context
    for number, rows in enumerate(by_length(mask.sum(1).tolist(), budget)):
        Passes(seed=7).begin(CONTEXTS, number)
        width = int(mask[rows].sum(1).max())
        context = module.encode_context(ids[rows, :width], mask[rows, :width])
        scores = module.score(context, Encoded(every, batch.candidates[1]))
        total = total + ranking_loss(scores, batch.gold[rows], batch.real[rows]) / len(ROWS)
    total.backward()
    trained = [p for p in module.parameters() if p.requires_grad]
    kept = torch.cat(
        [torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in trained]
    )
    assert loss == pytest.approx(total.item(), rel=1e-5)
    close(cached, kept)
    other, _ = gradient(ranker, batch, WHOLE)
    assert other != loss  # dropout was on


def test_shares_add_up(make: Make, lessons: list[Example]) -> None:
    """Rows of a cross-encoder know nothing of each other, so halves of a batch make the whole."""
    ranker = make(kind="cross")
    batch = batch_of(ranker, lessons)
    loss, whole = gradient(ranker, batch, WHOLE)
    quarter, part = gradient(ranker, batch, WHOLE, weight=0.25 / len(ROWS))
    assert quarter == pytest.approx(loss / 4, rel=1e-5)
    close(part, whole / 4)


def test_chunks_have_seeds_of_their_own() -> None:
    drawn = set()
    for seed in range(9):
        for side in (CANDIDATES, CONTEXTS):
            for number in range(9):
                for process in range(3):
                    Passes(seed=seed, processes=Processes(process, 1)).begin(side, number)
                    drawn.add(torch.rand(1).item())
    assert len(drawn) > 0.99 * 9 * 2 * 9 * 3  # two of 24 bits may be equal by chance
