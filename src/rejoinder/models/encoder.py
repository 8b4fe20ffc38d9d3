"""A pretrained encoder, ours or any `AutoModel`: token ids to one vector per token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from rejoinder.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from rejoinder.models.bert import Bert

Pooling = Literal["mean", "first", "max"]


class Encoder(nn.Module):
    """Holds the pretrained model; `width` is the size D of its vectors."""

    def __init__(self, model: Bert | PreTrainedModel) -> None:
        super().__init__()
        self.model: nn.Module = model  # or that with adapters
        self.width = int(model.config.hidden_size)

    def forward(self, ids: Tensor, mask: Tensor, positions: Tensor | None = None) -> Tensor:
        """(B, T) ids, (B, T) bool -> (B, T, D)

        Our own BERT also takes a mask (B, T, T) of query and key, and positions (B, T).
        """
        places = {} if positions is None else {"position_ids": positions}
        seen = mask.long()
        states: Tensor = self.model(input_ids=ids, attention_mask=seen, **places).last_hidden_state
        return states


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
