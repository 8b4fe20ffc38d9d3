"""The gradient of a batch, a few rows at a time: memory hangs on the chunk, not on the batch.

Every context is scored against all candidates of the batch, so a chunk of contexts needs the
vectors of all candidates, but of no other context. A batch is therefore done in three steps
(gradient caching, Gao et al. 2021, arXiv:2101.06983): encode the candidates, keeping vectors alone;
encode the contexts chunk by chunk, take the loss, and collect its gradient at every candidate;
encode the candidates again, now for gradients, and push that gradient through. Only candidates,
which are short, are encoded twice, and not even they if they fit into one chunk. Dropout is the
same both times: each chunk has a seed of its own.

A cross-encoder has a row's candidates in that row only, so its chunks need nothing twice.

Rows of like length share a chunk, and its padding is cut: mixed lengths cost little.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor

from rejoinder.batching import by_length
from rejoinder.models.losses import ranking_loss
from rejoinder.models.rankers import BiEncoder, CrossEncoder, Encoded, PolyEncoder
from rejoinder.training.batches import Batch

Module = BiEncoder | PolyEncoder | CrossEncoder
Precision = Literal["bf16", "fp32"]


def backward(
    module: Module, batch: Batch, precision: Precision, budget: int, seed: int, share: float = 1.0
) -> float:
    """Add the gradient of `share` times the batch's mean loss to the weights; -> that value.

    At most `budget` tokens, padding included, are encoded at once, or one row. `seed` is that of
    dropout.
    """
    weight = share / len(batch.gold)
    if isinstance(module, CrossEncoder):
        losses = _each_row_its_own(module, batch, precision, budget, seed, weight)
    else:
        losses = _all_rows_together(module, batch, precision, budget, seed, weight)
    return sum(losses)


def _all_rows_together(
    module: BiEncoder | PolyEncoder,
    batch: Batch,
    precision: Precision,
    budget: int,
    seed: int,
    weight: float,
) -> Iterator[float]:
    ids, mask = batch.candidates

    def encoded(number: int, rows: list[int]) -> Tensor:
        torch.manual_seed(_mixed(seed, 0, number))
        with cast(ids, precision):
            return module.encode_candidates(*_trimmed(ids[rows], mask[rows])).vectors

    chunks = list(enumerate(by_length(mask.sum(1).tolist(), budget)))
    with torch.set_grad_enabled(len(chunks) == 1):  # one chunk is kept whole, for its gradients
        kept = [encoded(*chunk) for chunk in chunks]
    vectors = torch.empty(len(ids), kept[0].shape[1], device=ids.device)  # (N, D)
    for (_, rows), some in zip(chunks, kept, strict=True):
        vectors[rows] = some.detach().float()
    vectors.requires_grad_()
    for number, rows in enumerate(by_length(batch.context[1].sum(1).tolist(), budget)):
        torch.manual_seed(_mixed(seed, 1, number))
        with cast(ids, precision):
            context = module.encode_context(*_trimmed(*(x[rows] for x in batch.context)))
            scores = module.score(context, Encoded(vectors, mask))
        yield _backward(weight * ranking_loss(scores, batch.gold[rows], batch.real[rows]))
    assert vectors.grad is not None
    for number, rows in chunks:
        again = kept[0] if len(chunks) == 1 else encoded(number, rows)
        again.backward(vectors.grad[rows].to(again.dtype))


def _each_row_its_own(
    module: CrossEncoder,
    batch: Batch,
    precision: Precision,
    budget: int,
    seed: int,
    weight: float,
) -> Iterator[float]:
    columns = batch.real.shape[1]
    left, right = batch.context[1].sum(1), batch.candidates[1].sum(1).view(-1, columns).amax(1)
    candidates = [x.unflatten(0, (-1, columns)) for x in batch.candidates]  # (B, K, L)
    for number, rows in enumerate(by_length((columns * (left + right)).tolist(), budget)):
        torch.manual_seed(_mixed(seed, 1, number))
        context = Encoded(*_trimmed(*(x[rows] for x in batch.context)))
        replies = Encoded(*_trimmed(*(x[rows].flatten(0, 1) for x in candidates)))
        owner = torch.arange(len(rows), device=context.mask.device).repeat_interleave(columns)
        with cast(context.mask, precision):
            scores = module.score_pairs(context, replies, owner).view(-1, columns)
        yield _backward(weight * ranking_loss(scores, batch.gold[rows], batch.real[rows]))


def _trimmed(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Without the columns that are padding in all rows."""
    width = max(1, int(mask.sum(1).max()))
    return ids[:, :width], mask[:, :width]


def _mixed(*numbers: int) -> int:
    """One seed from several numbers; the hash of numbers is the same in every process."""
    return hash(numbers)


def _backward(loss: Tensor) -> float:
    loss.backward()
    return loss.item()


def cast(like: Tensor, precision: Precision) -> AbstractContextManager[object]:
    """Products in `precision`, on the device of a tensor."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(like.device.type, dtype=torch.bfloat16)
