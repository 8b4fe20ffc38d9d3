"""How a candidate attends over the codes of a context (Humeau et al. 2020, section 4.4).

`basic` and `sqrt` have no projections, so a score is a softmax-weighted mean of the dot products
s_i = code_i . candidate, and one matrix product gives everything (`late_score`). `multihead` has
projections and needs a vector per candidate and context.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rejoinder.errors import ConfigError


def attend(query: Tensor, keys: Tensor, mask: Tensor, scale: float | Tensor = 1.0) -> Tensor:
    """Dot-product attention, keys are the values: (B, Q, D), (B, K, D), (B, K) -> (B, Q, D)."""
    logits = scale * (query @ keys.transpose(1, 2))  # (B, Q, K)
    weights = logits.masked_fill(~mask[:, None], torch.finfo(logits.dtype).min).softmax(-1)
    return weights.to(keys.dtype) @ keys


def late_score(dots: Tensor, mask: Tensor, scale: float | Tensor) -> Tensor:
    """Poly score from dot products: (B, M, N), (B, M) bool -> (B, N).

    score = sum_i softmax(scale * s)_i s_i, which equals attending with `scale` and multiplying with
    the candidate again. With one code it is s itself.
    """
    if dots.shape[1] == 1:
        return dots[:, 0]
    if len(dots) == 1 and bool(mask.all()):  # a search: without padding it takes half the time
        return ((scale * dots).softmax(1) * dots).sum(1)
    logits = scale * dots
    logits = logits.masked_fill(~mask[:, :, None], torch.finfo(logits.dtype).min)
    return (logits.softmax(1) * dots.masked_fill(~mask[:, :, None], 0.0)).sum(1)


class MultiheadAttention(nn.Module):
    """Attention with projections: queries over keys that are also the values.

    dropout: share of its weights that are set to zero while learning.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(
                f"heads is {heads}; expected a number that divides the width, {width}"
            )
        self.heads, self.dropout = heads, dropout
        self.q_lin = nn.Linear(width, width)
        self.k_lin = nn.Linear(width, width)
        self.v_lin = nn.Linear(width, width)
        self.out_lin = nn.Linear(width, width)
        for layer in (self.q_lin, self.k_lin, self.v_lin, self.out_lin):
            nn.init.xavier_normal_(layer.weight)

    def forward(self, query: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """(B, Q, D), (B, K, D), (B, K) bool -> (B, Q, D), in the type of the weights.

        Where nothing is real, all is seen alike. Kept vectors may be bf16 while the weights are
        fp32, or the other way round.
        """
        query, keys = query.to(self.q_lin.weight), keys.to(self.q_lin.weight)
        mask = mask | ~mask.any(1, keepdim=True)
        q, k, v = (self._split(f(x)) for f, x in self._projected(query, keys))
        rate = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, mask[:, None, None], rate)
        joined: Tensor = self.out_lin(out.transpose(1, 2).flatten(2))
        return joined

    def _projected(self, query: Tensor, keys: Tensor) -> list[tuple[nn.Module, Tensor]]:
        return [(self.q_lin, query), (self.k_lin, keys), (self.v_lin, keys)]

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, *, D/H)


def sqrt_scale(width: int) -> float:
    """The scale of `sqrt` attention: over the whole width, not a head's."""
    return 1 / math.sqrt(width)


def all_real(codes: Tensor) -> Tensor:
    """A mask for codes that are all there: (B, M, D) -> (B, M)."""
    return torch.ones(codes.shape[:2], dtype=torch.bool, device=codes.device)
