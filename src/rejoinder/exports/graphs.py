"""What is written as ONNX: token ids in, vectors or scores out, nothing that Python has to decide.

B contexts, N candidates, P pairs, T tokens, M codes, D width. Masks that come in are whole numbers,
as tokenizers give them; 0 is padding. Scales are in the vectors of a bi-encoder, so that a score is
their product.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rejoinder.exports.joined import Joined
from rejoinder.models.attention import attend
from rejoinder.models.encoder import Encoder, pool
from rejoinder.models.rankers import BiEncoder, CrossEncoder, Encoded, PolyEncoder, TwoTowers


class Known(nn.Module):
    """Ids that are none of the ranker's become the unknown one: (B, T) -> (B, T)."""

    def __init__(self, text: Joined | None) -> None:
        super().__init__()
        self.text = text if text and text.more else None

    def forward(self, ids: Tensor) -> Tensor:
        if self.text is None:
            return ids
        return torch.where(ids < self.text.known, ids, self.text.unknown)


class ContextVector(nn.Module):
    """(B, T) ids and mask -> (B, D), of a bi-encoder's context, times the root of its scale."""

    def __init__(self, module: BiEncoder, text: Joined | None) -> None:
        super().__init__()
        self.module, self.known = module, Known(text)
        self.factor = root_of_scale(module)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        found = self.module.encode_context(self.known(input_ids), attention_mask.bool())
        return found.vectors[:, 0] * self.factor


class CandidateVector(nn.Module):
    """(N, T) ids and mask -> (N, D), of a candidate; a bi-encoder's times the root of its scale."""

    def __init__(self, module: TwoTowers, text: Joined | None) -> None:
        super().__init__()
        self.module, self.known = module, Known(text)
        self.factor = root_of_scale(module) if isinstance(module, BiEncoder) else 1.0

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        found = self.module.encode_candidates(self.known(input_ids), attention_mask.bool())
        return found.vectors * self.factor


class ContextCodes(nn.Module):
    """(B, T) ids and mask -> codes (B, M, D) and their mask (B, M), of a poly-encoder's context."""

    def __init__(self, module: PolyEncoder, text: Joined | None) -> None:
        super().__init__()
        self.module, self.known = module, Known(text)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        found = self.module.encode_context(self.known(input_ids), attention_mask.bool())
        return found.vectors, found.mask.long()


class CodeScore(nn.Module):
    """Codes (B, M, D) and mask (B, M), candidates (N, D) -> scores (B, N) of a poly-encoder."""

    def __init__(self, module: PolyEncoder) -> None:
        super().__init__()
        self.module = module

    def forward(self, codes: Tensor, codes_mask: Tensor, candidates: Tensor) -> Tensor:
        module, mask = self.module, codes_mask.bool()
        if module.multihead is not None:
            everywhere = torch.ones_like(candidates[:, :1], dtype=torch.bool)
            return module.score(Encoded(codes, mask), Encoded(candidates, everywhere))
        found = late(codes @ candidates.T, mask, module.attention_scale())
        scores: Tensor = module.scale() * found
        return scores


class Sides(NamedTuple):
    """A pair in a row: which tokens are the context's, which the candidate's, and its places."""

    left: Tensor  # (P, W) bool
    right: Tensor  # (P, W) bool
    begins: Tensor  # (P, 1) column of the candidate's first token


class PairScore(nn.Module):
    """(P, W) ids, mask, and types that are 1 on the candidate -> scores (P,) of a cross-encoder.

    A row is a context and right behind it a candidate, each with its own start and end.
    """

    def __init__(self, module: CrossEncoder, text: Joined | None) -> None:
        super().__init__()
        self.module, self.known = module, Known(text)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        ids, mask = self.known(input_ids), attention_mask.bool()
        right = mask & token_type_ids.bool()
        left = mask & ~right
        sides = Sides(left, right, left.sum(1, keepdim=True))
        if self.module.head == "linear":
            scores: Tensor = self.module.linear(self._pooled(self._read(ids, mask, right), mask))
            return scores[:, 0]
        if self.module.head == "prefix":
            return self._behind(ids, sides)
        states = self._read(ids, mask, right)
        product = _mean(states, left) * _mean(states, right)
        return self._together(ids, sides, self._pooled(states, mask), product, None)

    def _read(self, ids: Tensor, mask: Tensor, right: Tensor) -> Tensor:
        states: Tensor = self.module.encoder(ids, mask, second=right)
        return states

    def _pooled(self, states: Tensor, mask: Tensor) -> Tensor:
        return self.module.encoder.pooled(states, mask, self.module.pooling)

    def _behind(self, ids: Tensor, sides: Sides) -> Tensor:
        """Candidates see their context, which does not see them; both begin at place 0."""
        column = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        places = torch.where(sides.right, column - sides.begins, column)
        seen = sides.left[:, None] | (sides.right[:, :, None] & sides.right[:, None])
        states = self.module.encoder(ids, seen, places.clamp(min=0))
        alone = F.normalize(states, dim=-1)
        if self.module.pooling == "first":
            pooled = _at(states, sides.begins)[:, 0]
        else:
            pooled = pool(states, sides.right, self.module.pooling)
        right = _mean(states, sides.right)
        query, sharp = right[:, None], self.module.sharpness()
        looked = attend(query, alone, sides.left, sharp)[:, 0]  # (P, D)
        return self._together(ids, sides, pooled, looked * right, states)

    def _together(
        self, ids: Tensor, sides: Sides, pooled: Tensor, product: Tensor, alone: Tensor | None
    ) -> Tensor:
        """What was read together, and what the two say read apart."""
        module = self.module
        product = product * math.sqrt(product.shape[-1])
        joint: Tensor = module.linear(torch.cat([pooled, product], -1))[:, 0]
        if alone is None or module.apart_encoder is not module.encoder:
            alone = module.apart_encoder(ids, sides.left)
        states = F.normalize(alone, dim=-1)  # (P, W, D)
        right = self._candidate_alone(ids, sides, module.apart_encoder)
        dots = states @ right[:, :, None]  # (P, W, 1)
        found: Tensor = joint + module.scale() * late(dots, sides.left, module.sharpness())[:, 0]
        return found

    def _candidate_alone(self, ids: Tensor, sides: Sides, encoder: Encoder) -> Tensor:
        """(P, D): the candidate moved to the front of its row, as if nothing were before it."""
        column = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        mask = column < sides.right.sum(1, keepdim=True)
        return _mean(encoder(_at(ids, sides.begins + column), mask), mask)


def late(dots: Tensor, mask: Tensor, scale: float | Tensor) -> Tensor:
    """Poly score from dot products, as `late_score` has it: (B, M, N), (B, M) bool -> (B, N).

    That one looks at what is in the mask before it decides how to go on, which no graph can.
    """
    mask = mask[:, :, None]
    logits = (scale * dots).masked_fill(~mask, torch.finfo(dots.dtype).min)
    return (logits.softmax(1) * dots.masked_fill(~mask, 0.0)).sum(1)


def root_of_scale(module: TwoTowers) -> float:
    """What each side of a product brings along of its scale."""
    return math.sqrt(float(module.scale().detach()))


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    return F.normalize(pool(states, mask, "mean"), dim=-1)


def _at(rows: Tensor, columns: Tensor) -> Tensor:
    """(P, W) or (P, W, D) at columns (P, K) -> (P, K) or (P, K, D); beyond the end the last one."""
    columns = columns.clamp(max=rows.shape[1] - 1)
    if rows.dim() == 3:
        columns = columns[:, :, None].expand(-1, -1, rows.shape[2])
    return rows.gather(1, columns)
