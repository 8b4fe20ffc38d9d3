"""One context and many candidates in a row of tokens, so that the context is read once.

The tokens of the context see one another; those of a candidate see the context and their own
candidate, never another one. So a row of a context and K candidates says, for each, what that
candidate says behind the context alone (a prefix language model's mask, Dong et al. 2019,
arXiv:1905.03197), and costs T + K L tokens instead of K (T + L). With `causal` each token sees
only those before it, as in any language model.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

MOST = 24  # candidates of a row: attention grows with the square of its length


class Packed(NamedTuple):
    """Rows (R, S) of a context and candidates behind it.

    ids and positions (R, S), the latter counted from 0 in each text, or on from the context's end
    where a model is causal; seen (R, S, S): query, key.
    lead (B,): a row that has context b. row (P,) and place (P, L): where candidate p stands; place
    of its padding is that of its first token.
    """

    ids: Tensor
    positions: Tensor
    seen: Tensor
    lead: Tensor
    row: Tensor
    place: Tensor


def pack(
    context: tuple[Tensor, Tensor],
    candidates: tuple[Tensor, Tensor],
    owner: Tensor,
    most: int = MOST,
    *,
    causal: bool = False,
    ends: Tensor | None = None,
) -> Packed:
    """(B, T) and (P, L) ids and masks, padded on the right; owner (P,) = context of each candidate.

    A context with more than `most` candidates has several rows; every context needs one candidate.
    ends (P,): how many of its context's tokens a candidate stands behind and sees, all if not
    given; of use where a model is causal, as the tokens of a context do not see what follows then.
    """
    (left, left_mask), (right, right_mask) = context, candidates
    device = owner.device
    lengths = right_mask.sum(1)  # (P,)
    rank = _before(owner, torch.ones_like(owner))
    key = owner * (len(owner) // most + 1) + rank // most
    found, row = key.unique(return_inverse=True)
    of_row = found.new_zeros(len(found)).scatter(0, row, owner)  # (R,) context of each row
    lead = of_row.new_zeros(len(left)).scatter(0, owner, row)
    begin = left_mask.sum(1)[owner] + _before(row, lengths)  # (P,)
    width = int((begin + lengths).max())
    width = max(width, left.shape[1])

    ids = left.new_zeros(len(found), width)
    ids[:, : left.shape[1]] = left[of_row]
    text = torch.full_like(ids, -1)  # whose token it is: 0 the context's, p + 1 a candidate's
    text[:, : left.shape[1]] = torch.where(left_mask[of_row], 0, -1)
    positions = torch.arange(width, device=device).repeat(len(found), 1)
    positions.clamp_(max=left.shape[1] - 1)  # of padding, which nobody sees
    number, step = right_mask.nonzero(as_tuple=True)
    rows, columns = row[number], begin[number] + step
    ids[rows, columns] = right[number, step]
    text[rows, columns] = number + 1
    sees = left_mask.sum(1)[owner] if ends is None else ends  # (P,)
    positions[rows, columns] = step + (sees[number] if causal else 0)

    before = (text == 0)[:, None, :].expand(-1, width, -1)
    if ends is not None:
        reach = torch.full_like(ids, width)
        reach[rows, columns] = ends[number]
        before = before & (torch.arange(width, device=device) < reach[:, :, None])
    seen = before | ((text[:, :, None] == text[:, None, :]) & (text > 0)[:, None])
    if causal:
        seen &= torch.ones(width, width, dtype=torch.bool, device=device).tril()
    place = begin[:, None] + torch.arange(right.shape[1], device=device) * right_mask
    return Packed(ids, positions, seen, lead, row, place)


def _before(group: Tensor, amount: Tensor) -> Tensor:
    """(P,), (P,) -> what earlier members of each one's group have together."""
    order = group.argsort(stable=True)
    total = amount[order].cumsum(0) - amount[order]
    sorted_group = group[order]
    first = torch.searchsorted(sorted_group, sorted_group)  # where its group begins
    return torch.empty_like(total).scatter(0, order, total - total[first])
