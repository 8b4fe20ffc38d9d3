"""The gradient of a batch, a few rows at a time: memory hangs on the chunk, not on the batch.

Every context is scored against all candidates of the batch, so a chunk of contexts needs the
vectors of all candidates, but of no other context. A batch is therefore done in three steps
(gradient caching, Gao et al. 2021, arXiv:2101.06983): encode the candidates, keeping vectors alone;
encode the contexts chunk by chunk, take the loss, and collect its gradient at every candidate;
encode the candidates again, now for gradients, and push that gradient through. Only candidates,
which are short, are encoded twice, and not even they if they fit into one chunk. Dropout is the
same both times: each chunk has a seed of its own.

Several processes (`Processes`) encode their own contexts and candidates; the vectors of all
candidates and the gradients at them go round. All encode equally many chunks, some of them a
row that counts nothing, since sharded weights are put together anew for each.

A cross-encoder has a row's candidates in that row only, so its chunks need nothing twice. Nor do
those of a generator, which learns the right reply's tokens beside the choice; a context that
another one begins with is read only there, each reply behind its part of it.

Rows of like length share a chunk, and its padding is cut: mixed lengths cost little.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rejoinder.batching import by_length
from rejoinder.models.generator import Generator, Rows, last, log_likelihood
from rejoinder.models.losses import ranking_loss
from rejoinder.models.rankers import BiEncoder, CrossEncoder, Encoded, PolyEncoder
from rejoinder.training.batches import Batch
from rejoinder.training.processes import ALONE, Processes

Module = BiEncoder | PolyEncoder | CrossEncoder | Generator
Precision = Literal["bf16", "fp16", "fp32"]
CANDIDATES, CONTEXTS = 0, 1  # the two sides have seeds of their own


@dataclass(frozen=True)
class Passes:
    """How a batch goes through the encoders."""

    precision: Precision = "fp32"
    budget: int = 8192  # tokens encoded at once, padding included; one row if it has more
    seed: int = 0  # of dropout
    factor: float = 1.0  # on the loss before it goes backwards, for fp16
    token: float = 0.0  # what a token of the right reply weighs, where one is written
    read: float = 0.0  # what a token of the context weighs, where those are learned too
    processes: Processes = ALONE

    def chunks(self, lengths: Sequence[int]) -> list[tuple[int, list[int]]]:
        """Numbered chunks of rows of like length, as many in all processes; some may be empty."""
        found = list(by_length(lengths, self.budget))
        found += [[] for _ in range(self.processes.most(len(found)) - len(found))]
        return list(enumerate(found))

    def begin(self, side: int, number: int) -> None:
        """Dropout of a chunk, the same whenever it is encoded."""
        torch.manual_seed(hash((self.seed, side, number, self.processes.number)))

    def backward(self, loss: Tensor) -> float:
        """Gradients of `factor` times the loss; -> the loss."""
        (loss * self.factor).backward()
        return loss.item()


def backward(module: Module, batch: Batch, how: Passes, weight: float) -> float:
    """Add the gradient of `weight` times the batch's summed loss to the weights; -> that value.

    With several processes value and gradients are this process's part: their sum is the whole.
    """
    if isinstance(module, Generator):
        return sum(_each_context_once(module, batch, how, weight))
    if isinstance(module, CrossEncoder):
        return sum(_each_row_its_own(module, batch, how, weight))
    return sum(_all_rows_together(module, batch, how, weight))


def _all_rows_together(
    module: BiEncoder | PolyEncoder, batch: Batch, how: Passes, weight: float
) -> Iterator[float]:
    ids, mask = batch.candidates

    def encoded(number: int, rows: list[int]) -> Tensor:
        how.begin(CANDIDATES, number)
        with cast(ids, how.precision):
            return module.encode_candidates(*_part(batch.candidates, rows)).vectors

    chunks = how.chunks(mask.sum(1).tolist())
    with torch.set_grad_enabled(len(chunks) == 1):  # one chunk is kept whole, for its gradients
        kept = [encoded(*chunk) for chunk in chunks]
    own = torch.empty(len(ids), kept[0].shape[1], device=ids.device)  # (n, D)
    for (_, rows), some in zip(chunks, kept, strict=True):
        own[rows] = some[: len(rows)].detach().float()
    vectors = how.processes.gather(own, batch.real.shape[1])  # (N, D)
    vectors.requires_grad_()
    everywhere = torch.ones(len(vectors), 1, dtype=torch.bool, device=ids.device)
    for number, rows in how.chunks(batch.context[1].sum(1).tolist()):
        how.begin(CONTEXTS, number)
        with cast(ids, how.precision):
            context = module.encode_context(*_part(batch.context, rows))
            scores = module.score(context, Encoded(vectors, everywhere))
        yield how.backward(_loss(scores, batch, rows, weight))
    assert vectors.grad is not None
    how.processes.add([vectors.grad])
    pull = vectors.grad[how.processes.own]
    for number, rows in chunks:
        again = kept[0] if len(chunks) == 1 else encoded(number, rows)
        wanted = torch.zeros_like(again)
        wanted[: len(rows)] = pull[rows].to(again.dtype)
        again.backward(wanted)


def _each_row_its_own(
    module: CrossEncoder, batch: Batch, how: Passes, weight: float
) -> Iterator[float]:
    columns = batch.real.shape[1]
    left, right = batch.context[1].sum(1), batch.candidates[1].sum(1).view(-1, columns).amax(1)
    places = torch.arange(len(batch.gold) * columns).view(-1, columns)  # (B, K)
    for number, rows in how.chunks(module.tokens(left, right, columns).tolist()):
        how.begin(CONTEXTS, number)
        context = Encoded(*_part(batch.context, rows))
        replies = Encoded(*_part(batch.candidates, places[rows].flatten().tolist()))
        owner = torch.arange(len(context.mask), device=context.mask.device)
        owner = owner.repeat_interleave(len(replies.mask) // len(owner))
        with cast(context.mask, how.precision):
            scores = module.score_pairs(context, replies, owner).view(len(context.mask), -1)
            loss = _loss(scores, batch, rows, weight)
        yield how.backward(loss)


def _each_context_once(
    module: Generator, batch: Batch, how: Passes, weight: float
) -> Iterator[float]:
    assert batch.owner is not None
    columns = batch.real.shape[1]
    long = batch.candidates[1].sum(1).view(-1, columns).amax(1) * columns  # (E,)
    lengths = batch.context[1].sum(1)  # (G,)
    none = torch.zeros_like(lengths)
    count = none.index_add(0, batch.owner, torch.full_like(long, columns))
    right = none.index_add(0, batch.owner, long)
    for number, groups in how.chunks(module.tokens(lengths, right, count).tolist()):
        how.begin(CONTEXTS, number)
        with cast(lengths, how.precision):
            loss = _written(module, batch, groups, how, weight)
        yield how.backward(loss)


def _written(
    module: Generator, batch: Batch, groups: list[int], how: Passes, weight: float
) -> Tensor:
    """Loss of some contexts and what follows them: choosing the replies, writing them, reading."""
    assert batch.owner is not None
    assert batch.ends is not None
    columns = batch.real.shape[1]
    contexts = Rows(*_part(batch.context, groups))
    if not groups:  # read for the others' sake
        states = module(contexts)
        likely = log_likelihood(module, states, contexts)
        return 0.0 * (module.follows(states[:, -1]).sum() + likely.sum())
    place = torch.full((len(batch.context[0]),), -1, device=batch.owner.device)
    place[groups] = torch.arange(len(groups), device=batch.owner.device)
    rows = (place[batch.owner] >= 0).nonzero()[:, 0]  # examples, (E,)
    of_rows = rows[:, None] * columns + torch.arange(columns, device=rows.device)
    replies = Rows(*_part(batch.candidates, of_rows.flatten().tolist()))
    owner = place[batch.owner[rows]].repeat_interleave(columns)
    ends = batch.ends[rows].repeat_interleave(columns)
    before, states = module.together(contexts, replies, owner, ends)
    scores = module.follows(last(states, replies.mask)).view(len(rows), columns)
    gold = batch.gold[rows] + torch.arange(len(rows), device=scores.device) * columns
    likely = log_likelihood(module, states[gold], replies.part(gold))
    loss = _loss(scores, batch, rows.tolist(), weight) - how.token * likely.sum()
    if how.read:
        loss = loss - how.read * log_likelihood(module, before, contexts).sum()
    return loss


def _loss(scores: Tensor, batch: Batch, rows: list[int], weight: float) -> Tensor:
    if not rows:  # encoded for the others' sake
        return 0.0 * scores.sum()
    return weight * ranking_loss(scores, batch.gold[rows], batch.real[rows])


def _part(side: tuple[Tensor, Tensor], rows: list[int]) -> tuple[Tensor, Tensor]:
    """Some rows; where there are none, two tokens, so that all weights have a part in the loss."""
    ids, mask = side
    if not rows:
        return ids.new_zeros(1, 2), mask.new_ones(1, 2)
    return _trimmed(ids[rows], mask[rows])


def _trimmed(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Without the columns that are padding in all rows."""
    width = max(1, int(mask.sum(1).max()))
    return ids[:, :width], mask[:, :width]


def cast(like: Tensor, precision: Precision) -> AbstractContextManager[object]:
    """Products in `precision`, on the device of a tensor."""
    if precision == "fp32":
        return nullcontext()
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(like.device.type, dtype=dtype)
