"""Score candidate replies with a bi-, poly- or cross-encoder.

Every ranker turns contexts and candidates into scores (B, N), higher is better, in three steps that
a caller can keep apart: `encode_context`, `encode_candidates`, `score`. Bi- and poly-encoder encode
a candidate without seeing the context, so its vector can be computed once and kept; the
cross-encoder reads both together in every layer, so its encoding steps only hand the tokens on.

Paper: Humeau et al. 2020, "Poly-encoders", arXiv:1905.01969.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rejoinder.errors import ConfigError
from rejoinder.models.attention import (
    MultiheadAttention,
    all_real,
    attend,
    late_score,
    sqrt_scale,
)
from rejoinder.models.encoder import Encoder, Pooling, pool
from rejoinder.models.packing import MOST, pack

Tokens = TypeVar("Tokens", int, Tensor)
Codes = Literal["codes", "n_first", "all"]
Attention = Literal["basic", "sqrt", "multihead"]
Head = Literal["both", "linear", "prefix"]
SHARPNESS = 3.0  # where the learned scale inside the attention of normalised codes starts
MAX_LOG_SCALE = math.log(100)  # a learned scale beyond 100 only overflows


class Encoded(NamedTuple):
    """One side of a score.

    vectors: (B, M, D) for contexts, (N, D) for candidates; a cross-encoder keeps token ids in their
    place, (B, T) and (N, L). mask: (B, M) or (N, L) bool.
    """

    vectors: Tensor
    mask: Tensor


class Scale(nn.Module):
    """A factor on scores, learned as its logarithm or fixed."""

    def __init__(self, start: float, learned: bool) -> None:
        super().__init__()
        value = torch.tensor(math.log(start))
        if learned:
            self.log = nn.Parameter(value)
        else:
            self.register_buffer("log", value)

    def forward(self) -> Tensor:
        return self.log.clamp(max=MAX_LOG_SCALE).exp()


class TwoTowers(nn.Module):
    """What bi- and poly-encoder share: an encoder for each side, pooling, and the score's scale."""

    def __init__(
        self,
        context_encoder: Encoder,
        candidate_encoder: Encoder,
        *,
        pooling: Pooling = "mean",
        normalise: bool = True,
        scale: float = 20.0,
        learn_scale: bool = True,
        mlp: bool = False,
    ) -> None:
        super().__init__()
        self.context_encoder = context_encoder
        self.candidate_encoder = candidate_encoder  # the same object where towers are shared
        width = candidate_encoder.width
        layers = (nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)) if mlp else ()
        self.mlp = nn.Sequential(*layers) if layers else None
        self.pooling: Pooling = pooling
        self.normalise = normalise
        self.scale = Scale(scale, learn_scale and normalise)

    def encode_candidates(self, ids: Tensor, mask: Tensor) -> Encoded:
        """(N, L) ids and mask -> vectors (N, D)"""
        states = self.candidate_encoder(ids, mask)
        vectors = self.candidate_encoder.pooled(states, mask, self.pooling)  # (N, D)
        if self.mlp is not None:
            vectors = self.mlp(vectors)
        return Encoded(self._length_one(vectors), mask)

    @property
    def reads_padding(self) -> bool:
        """Whether the width to which rows are padded changes their vectors."""
        return self.candidate_encoder.reads_padding(self.pooling)

    def _length_one(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1) if self.normalise else vectors


class BiEncoder(TwoTowers):
    """One vector for the context, one for the candidate; the score is their product.

    `mlp` puts two linear layers behind a candidate's vector, which tell it from a context where one
    encoder reads both, as in ParlAI.
    """

    def encode_context(self, ids: Tensor, mask: Tensor) -> Encoded:
        """(B, T) ids and mask -> vectors (B, 1, D)"""
        states = self.context_encoder(ids, mask)
        pooled = self.context_encoder.pooled(states, mask, self.pooling)
        vectors = self._length_one(pooled)[:, None]
        return Encoded(vectors, all_real(vectors))

    def score(self, context: Encoded, candidates: Encoded) -> Tensor:
        """(B, 1, D), (N, D) -> (B, N)"""
        return self.scale() * dots(context, candidates)[:, 0]

    def attention_scale(self) -> float:
        """One code needs no attention."""
        return 1.0


class PolyEncoder(TwoTowers):
    """M vectors stand for the context; each candidate attends over them, then multiplies.

    kind: `codes`, M learned queries over the context's states; `n_first`, its first M states;
    `all`, every state. attention: `basic` without scale as in the paper (a learned one with
    normalised vectors, where products are at most 1), `sqrt`, or `multihead`. code_attention: how
    the learned codes look at the states, likewise. dropout: of the weights of multihead attention.
    """

    def __init__(
        self,
        context_encoder: Encoder,
        candidate_encoder: Encoder,
        *,
        kind: Codes = "codes",
        codes: int = 64,
        attention: Attention = "basic",
        heads: int = 4,
        code_attention: Attention = "basic",
        code_heads: int = 4,
        dropout: float = 0.0,
        pooling: Pooling = "mean",
        normalise: bool = True,
        scale: float = 20.0,
        learn_scale: bool = True,
    ) -> None:
        super().__init__(
            context_encoder,
            candidate_encoder,
            pooling=pooling,
            normalise=normalise,
            scale=scale,
            learn_scale=learn_scale,
        )
        width = context_encoder.width
        if kind not in ("codes", "n_first", "all"):
            raise ConfigError(f"poly-encoder type is {kind!r}; expected codes, n_first or all")
        if attention not in ("basic", "sqrt", "multihead"):
            raise ConfigError(f"attention is {attention!r}; expected basic, sqrt or multihead")
        self.kind = kind
        self.attention = attention
        self.n_codes = codes
        self.codes: nn.Parameter | None = None
        if kind == "codes":
            self.codes = nn.Parameter(torch.randn(codes, width) * width**-0.5)
        several = attention == "multihead"
        self.multihead = MultiheadAttention(width, heads, dropout) if several else None
        self.code_attention = code_attention
        own = kind == "codes" and code_attention == "multihead"
        self.code_multihead = MultiheadAttention(width, code_heads, dropout) if own else None
        start = SHARPNESS if normalise and attention == "basic" else 1.0
        self.sharpness = Scale(start, learn_scale and normalise and attention == "basic")

    def encode_context(self, ids: Tensor, mask: Tensor) -> Encoded:
        """(B, T) ids and mask -> vectors (B, M, D), mask (B, M)"""
        states = self.context_encoder(ids, mask)
        if self.codes is not None:
            queries = self.codes.to(states.dtype).expand(ids.shape[0], -1, -1)
            if self.code_multihead is not None:
                vectors = self.code_multihead(queries, states, mask)
            else:
                width = self.context_encoder.width
                scale = sqrt_scale(width) if self.code_attention == "sqrt" else 1.0
                vectors = attend(queries, states, mask, scale)
            return Encoded(self._length_one(vectors), all_real(vectors))
        if self.kind == "n_first":
            states, mask = states[:, : self.n_codes], mask[:, : self.n_codes]
        return Encoded(self._length_one(states), mask)

    def attention_scale(self) -> float | Tensor:
        """The factor inside the softmax of `basic` and `sqrt` attention."""
        if self.attention == "sqrt":
            return sqrt_scale(self.context_encoder.width)
        return self.sharpness()

    def score(self, context: Encoded, candidates: Encoded) -> Tensor:
        """(B, M, D), (N, D) -> (B, N)"""
        if self.multihead is not None:
            queries = candidates.vectors.expand(context.vectors.shape[0], -1, -1)
            seen = self.multihead(queries, context.vectors, context.mask)  # (B, N, D)
            return self.scale() * (seen * candidates.vectors).sum(-1)
        return self.scale() * late_score(
            dots(context, candidates), context.mask, self.attention_scale()
        )


class CrossEncoder(nn.Module):
    """Context and candidate in one sequence, each seeing the other in every layer.

    head="linear" is the paper's: a linear function of the pooled states of the pair. head="both"
    adds to it what the same encoder says of the two read apart, as a poly-encoder of type `all`
    does, and lets the linear function also see the products of the two sides' mean states. Started
    from such a poly-encoder it ranks as that one does, and learns only what reading together adds.

    head="prefix" is the same with a context that does not see the candidates, while they see it in
    every layer: it is read once for all of them (see `packing`), so for 20 candidates a quarter of
    the tokens is read. The linear function sees the products of a candidate's mean state with what
    that state attends to in the context. The base must be a BERT, since others do not take such a
    mask.

    With an `apart_encoder` the two are read apart by that one, so that what is learned about
    reading together cannot disturb it.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        apart_encoder: Encoder | None = None,
        head: Head = "both",
        pooling: Pooling = "mean",
        scale: float = 20.0,
        learn_scale: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.apart_encoder = apart_encoder or encoder  # the same object where towers are shared
        self.head = head
        self.pooling: Pooling = pooling
        self.scale = Scale(scale, learn_scale)
        self.sharpness = Scale(SHARPNESS, learn_scale)
        self.linear = nn.Linear(encoder.width * (1 if head == "linear" else 2), 1)
        if head != "linear":  # nothing is added before something is learned
            nn.init.zeros_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)

    def encode_context(self, ids: Tensor, mask: Tensor) -> Encoded:
        """Hands the tokens on: (B, T)"""
        return Encoded(ids, mask)

    def encode_candidates(self, ids: Tensor, mask: Tensor) -> Encoded:
        """Hands the tokens on: (N, L)"""
        return Encoded(ids, mask)

    def score(self, context: Encoded, candidates: Encoded) -> Tensor:
        """(B, T), (N, L) token ids -> (B, N): every context with every candidate."""
        rows, columns = len(context.vectors), len(candidates.vectors)
        owner = torch.arange(rows, device=context.mask.device).repeat_interleave(columns)
        repeated = Encoded(*(x.repeat(rows, 1) for x in candidates))
        return self.score_pairs(context, repeated, owner).view(rows, columns)

    @property
    def reads_padding(self) -> bool:
        """Whether the width to which rows are padded changes their scores."""
        return self.encoder.reads_padding(self.pooling)

    def tokens(self, left: Tokens, right: Tokens, count: int) -> Tokens:
        """How many tokens are read for a context of `left` with `count` candidates of `right`."""
        if self.head == "prefix":
            alone = 0 if self.apart_encoder is self.encoder else left
            return -(-count // MOST) * left + 2 * count * right + alone
        return count * (left + right)

    def score_pairs(self, context: Encoded, candidates: Encoded, owner: Tensor) -> Tensor:
        """(B, T) and (P, L) token ids, owner (P,) = row of each candidate's context -> (P,)"""
        if self.head == "prefix":
            return self._behind_their_context(context, candidates, owner)
        pairs = Encoded(*(x[owner] for x in context))
        ids, mask, second = join(pairs, candidates, padded=self.reads_padding)
        states = self.encoder(ids, mask, second=second)
        pooled = self.encoder.pooled(states, mask, self.pooling)
        if self.head == "linear":
            return self.linear(pooled)[:, 0]
        left, right = pool(states, mask & ~second, "mean"), pool(states, mask & second, "mean")
        left, right = F.normalize(left, dim=-1), F.normalize(right, dim=-1)
        alone = self.apart_encoder(*context)
        apart = self._apart(alone, context.mask, candidates, owner)
        return self._together(pooled, left * right) + self.scale() * apart

    def _behind_their_context(self, context: Encoded, candidates: Encoded, owner: Tensor) -> Tensor:
        packed = pack(context, candidates, owner)
        states = self.encoder(packed.ids, packed.seen, packed.positions)  # (R, S, D)
        alone = states[packed.lead, : context.mask.shape[1]]  # (B, T, D)
        behind = states[packed.row[:, None], packed.place]  # (P, L, D)
        right = pool(behind, candidates.mask, "mean")
        pooled = right if self.pooling == "mean" else pool(behind, candidates.mask, self.pooling)
        left, right = F.normalize(alone, dim=-1)[owner], F.normalize(right, dim=-1)
        right = right.to(left)
        seen = attend(right[:, None], left, context.mask[owner], self.sharpness())[:, 0]  # (P, D)
        if self.apart_encoder is not self.encoder:
            alone = self.apart_encoder(*context)
        apart = self._apart(alone, context.mask, candidates, owner)
        return self._together(pooled, seen * right) + self.scale() * apart

    def _together(self, pooled: Tensor, product: Tensor) -> Tensor:
        """The linear function of what was read together: twice (P, D) -> (P,)"""
        product = product * math.sqrt(product.shape[-1])  # entries of about one
        return self.linear(torch.cat([pooled, product.to(pooled)], -1))[:, 0]

    def _apart(self, left: Tensor, mask: Tensor, candidates: Encoded, owner: Tensor) -> Tensor:
        """Poly score of the two sides, each read alone: states (B, T, D) of contexts -> (P,)"""
        states = F.normalize(left, dim=-1)[owner]  # (P, T, D)
        right = pool(self.apart_encoder(*candidates), candidates.mask, "mean")
        products = states @ F.normalize(right, dim=-1).to(states)[:, :, None]  # (P, T, 1)
        return late_score(products, mask[owner], self.sharpness())[:, 0]


def dots(context: Encoded, candidates: Encoded) -> Tensor:
    """Products of every code with every candidate: (B, M, D), (N, D) or (B, N, D) -> (B, M, N)."""
    vectors = candidates.vectors
    return context.vectors @ (vectors.mT if vectors.dim() == 3 else vectors.T)


def join(
    context: Encoded, candidates: Encoded, *, padded: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Put each candidate right behind its context's last real token.

    (P, T), (P, L) -> ids (P, W), mask (P, W), second (P, W) True on the candidate; W is the longest
    pair, or with `padded` T + L. The gap that padding leaves in the middle is closed, so padding
    changes nothing.
    """
    ids = torch.cat([context.vectors, candidates.vectors], 1)
    mask = torch.cat([context.mask, candidates.mask], 1)
    second = torch.cat([torch.zeros_like(context.mask), candidates.mask], 1)
    order = (~mask).to(torch.int8).argsort(dim=1, stable=True)
    width = mask.shape[1] if padded else int(mask.sum(1).max())
    take = order[:, :width]
    return ids.gather(1, take), mask.gather(1, take), second.gather(1, take)
