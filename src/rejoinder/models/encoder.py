"""An encoder, ours or any `AutoModel`: token ids to one vector per token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from rejoinder.errors import ConfigError
from rejoinder.models.transformer import Transformer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from rejoinder.models.bert import Bert

Pooling = Literal["mean", "first", "max"]


class Encoder(nn.Module):
    """Holds the model; `width` is the size D of its vectors."""

    def __init__(self, model: Bert | Transformer | PreTrainedModel) -> None:
        super().__init__()
        self.model: nn.Module = model  # or that with adapters
        if isinstance(model, Transformer):
            self.width = model.width
        else:
            self.width = int(model.config.hidden_size)

    @property
    def native(self) -> Transformer | None:
        """The model, if it is our native transformer."""
        return self.model if isinstance(self.model, Transformer) else None

    def forward(
        self,
        ids: Tensor,
        mask: Tensor,
        positions: Tensor | None = None,
        second: Tensor | None = None,
    ) -> Tensor:
        """(B, T) ids, (B, T) bool -> (B, T, D)

        Our own BERT also takes a mask (B, T, T) of query and key, and positions (B, T). `second`
        (B, T) is True where a second text stands, which our native encoder is told.
        """
        more = {} if positions is None else {"position_ids": positions}
        if second is not None and self.native is not None:
            more["token_type_ids"] = second.long()
        seen = mask.long()
        states: Tensor = self.model(input_ids=ids, attention_mask=seen, **more).last_hidden_state
        return states

    def reads_padding(self, how: Pooling) -> bool:
        """Whether the width to which a row is padded changes its pooled vector."""
        return self.native is not None and self.native.reads_padding(how)

    def pooled(self, states: Tensor, mask: Tensor, how: Pooling) -> Tensor:
        """(B, T, D), (B, T) bool -> (B, D)"""
        if self.native is not None and self.native.reads_padding(how):
            return self.native.pool(states, mask, how)
        return pool(states, mask, how)


def pool(states: Tensor, mask: Tensor, how: Pooling) -> Tensor:
    """(B, T, D), (B, T) bool -> (B, D). Padding never counts, whichever way."""
    if how == "first":
        return states[:, 0]
    if how == "mean":
        weights = mask.unsqueeze(-1).to(states.dtype)  # (B, T, 1)
        return (states * weights).sum(1) / weights.sum(1).clamp(min=1)
    if how == "max":
        return states.masked_fill(~mask.unsqueeze(-1), torch.finfo(states.dtype).min).amax(1)
    raise ConfigError(f"pooling is {how!r}; expected mean, first or max")
