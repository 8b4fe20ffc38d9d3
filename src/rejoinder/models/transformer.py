"""A transformer encoder of our own, wired as ParlAI's (Humeau et al. 2020 used it in all rankers).

    x = words(ids) [* sqrt(D)] + places(0, 1, 2 ...) [+ segments(0 or 1)]
    xlm             x = norm(x), then in each layer x = norm(x + part(x)) for both parts
    aiayn           the same without the first norm (Vaswani et al. 2017)
    prelayernorm    x = x + part(norm(x)), and one norm behind the last layer
    states = output_scaling * x

Padding is set to zero before the first layer and behind every one, as there. Three things of it can
still be felt in a pooled vector: zeros take part in a maximum, and behind the last norm of
prelayernorm padding is that norm's bias, which takes part in maximum and mean. Models that learned
so score so; `reads_padding` says which.

Weights carry ParlAI's names. Tests hold it equal to scores that ParlAI gave.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rejoinder.models.bert import Dropout, States, fused_attention
from rejoinder.shape import Shape

EPS = 1e-5  # of all norms


class Transformer(nn.Module):
    """Token ids to one vector per token."""

    def __init__(self, shape: Shape, dropout: Dropout | None = None) -> None:
        super().__init__()
        self.shape = shape
        rates = dropout or Dropout()
        width = shape.embedding_size
        self.embeddings = nn.Embedding(shape.vocabulary, width)
        self.position_embeddings = nn.Embedding(shape.n_positions, width)
        self.segment_embeddings = (
            nn.Embedding(shape.n_segments, width) if shape.n_segments else None
        )
        self.norm_embeddings = nn.LayerNorm(width, EPS) if shape.variant != "aiayn" else None
        self.layers = nn.ModuleList(Layer(shape, rates) for _ in range(shape.n_layers))
        self.dropout = nn.Dropout(rates.states)
        self._begin()

    @property
    def width(self) -> int:
        """D, the size of a state."""
        return self.shape.embedding_size

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings

    def set_input_embeddings(self, given: nn.Embedding) -> None:
        self.embeddings = given

    def reads_padding(self, pooling: str) -> bool:
        """Whether the width to which a row is padded changes its pooled vector."""
        return pooling == "max" or (pooling == "mean" and self.shape.variant == "prelayernorm")

    def pool(self, states: Tensor, mask: Tensor, how: str) -> Tensor:
        """(B, T, D), (B, T) bool -> (B, D): maximum or mean, over padding too, as ParlAI does."""
        if how == "max":
            return states.amax(1)
        return states.sum(1) / mask.sum(1, keepdim=True).clamp(min=1).to(states)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> States:
        """(B, T) ids, (B, T) with 0 on padding, (B, T) segments -> states (B, T, D)"""
        real = attention_mask.bool()
        there = real[:, :, None]  # (B, T, 1)
        # a row without any token sees all of its padding, so that nothing is divided by zero
        seen = (real | ~real.any(1, keepdim=True))[:, None, None]  # (B, 1, 1, T)
        states = self.dropout(self._embedded(input_ids, real, token_type_ids)) * there
        for layer in self.layers:
            states = layer(states, seen) * there
        if self.shape.variant == "prelayernorm" and self.norm_embeddings is not None:
            states = self.norm_embeddings(states)
        return States(states * self.shape.output_scaling)

    def _embedded(self, ids: Tensor, real: Tensor, segments: Tensor | None) -> Tensor:
        places = (real.cumsum(1) - 1).clamp(min=0)  # of padding that of the last token
        states: Tensor = self.embeddings(ids)
        if self.shape.embeddings_scale:
            states = states * math.sqrt(self.width)
        states = states + self.position_embeddings(places)
        if self.segment_embeddings is not None:
            kinds = torch.zeros_like(ids) if segments is None else segments
            states = states + self.segment_embeddings(kinds)
        if self.shape.variant == "xlm" and self.norm_embeddings is not None:
            states = self.norm_embeddings(states)
        return states

    def _begin(self) -> None:
        """Fresh weights as ParlAI draws them."""
        if self.embeddings.weight.is_meta:
            return  # saved ones follow; drawing there takes a second, as torch loads what it needs
        for table in (self.embeddings, self.position_embeddings, self.segment_embeddings):
            if table is not None:
                nn.init.normal_(table.weight, std=self.width**-0.5)
        if not self.shape.learn_positional_embeddings:
            self.position_embeddings.requires_grad_(False)
            with torch.no_grad():
                self.position_embeddings.weight.copy_(sinusoids(self.shape.n_positions, self.width))
        for layer in self.layers:
            assert isinstance(layer, Layer)
            for linear in layer.attention.children():
                nn.init.xavier_normal_(linear.weight)  # type: ignore[arg-type]
            for linear in (layer.ffn.lin1, layer.ffn.lin2):
                nn.init.xavier_uniform_(linear.weight)


class Layer(nn.Module):
    """Attention, then two linear layers; each added to what came, and normalised."""

    def __init__(self, shape: Shape, rates: Dropout) -> None:
        super().__init__()
        width = shape.embedding_size
        self.first = shape.variant == "prelayernorm"
        self.attention = Attention(width, shape.n_heads, rates.attention)
        self.norm1 = nn.LayerNorm(width, EPS)
        self.ffn = FeedForward(width, shape.ffn_size, shape.activation, rates.activation)
        self.norm2 = nn.LayerNorm(width, EPS)
        self.dropout = nn.Dropout(rates.states)

    def forward(self, states: Tensor, seen: Tensor) -> Tensor:
        """(B, T, D), seen (B, 1, 1, T) -> (B, T, D)"""
        if self.first:
            states = states + self.dropout(self.attention(self.norm1(states), seen))
            return states + self.dropout(self.ffn(self.norm2(states)))
        states = self.norm1(states + self.dropout(self.attention(states, seen)))
        return self.norm2(states + self.dropout(self.ffn(states)))


class Attention(nn.Module):
    """Every token attends to the real ones of its row."""

    def __init__(self, width: int, heads: int, rate: float) -> None:
        super().__init__()
        self.heads, self.rate = heads, rate
        self.q_lin = nn.Linear(width, width)
        self.k_lin = nn.Linear(width, width)
        self.v_lin = nn.Linear(width, width)
        self.out_lin = nn.Linear(width, width)

    def forward(self, states: Tensor, seen: Tensor) -> Tensor:
        q, k, v = (
            lin(states).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for lin in (self.q_lin, self.k_lin, self.v_lin)
        )
        mixed = fused_attention(q, k, v, seen, self.rate if self.training else 0.0)
        joined: Tensor = self.out_lin(mixed.transpose(1, 2).flatten(2))
        return joined


class FeedForward(nn.Module):
    """lin2(dropout(activation(lin1(x))))"""

    def __init__(self, width: int, inner: int, activation: str, rate: float) -> None:
        super().__init__()
        self.lin1 = nn.Linear(width, inner)
        self.lin2 = nn.Linear(inner, width)
        self.activation = F.relu if activation == "relu" else F.gelu  # the exact one
        self.rate = rate

    def forward(self, states: Tensor) -> Tensor:
        inner = F.dropout(self.activation(self.lin1(states)), self.rate, self.training)
        outer: Tensor = self.lin2(inner)
        return outer


def sinusoids(count: int, width: int) -> Tensor:
    """(count, width): of place p sin(p / 10000^(2j / width)) at column 2j, the cosine at 2j + 1."""
    rates = 10000.0 ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(count, dtype=torch.float64)[:, None] / rates  # (count, width / 2)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1).float()
