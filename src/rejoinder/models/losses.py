"""The loss as a pure function of scores; the caller divides by the rows of the optimizer step."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def ranking_loss(scores: Tensor, gold: Tensor, real: Tensor) -> Tensor:
    """Summed cross-entropy of the right candidate among those that count.

    scores: (B, N). gold: (B,) column of each row's right reply. real: (B, N) bool, False where a
    column does not count for the row: padding, or another right reply of it. Whether the columns
    are the batch's replies, drawn ones or each row's own list makes no difference here.
    """
    counted = scores.float().masked_fill(~real, float("-inf"))
    return F.cross_entropy(counted, gold, reduction="sum")
