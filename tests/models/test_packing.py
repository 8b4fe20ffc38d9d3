"""Contexts and candidates packed into rows, against the same by hand."""

from __future__ import annotations

import pytest
import torch

from rejoinder.batching import pad
from rejoinder.models.packing import pack

CONTEXTS = [[1, 2, 3], [4], [5, 6]]
CANDIDATES = [[10, 11], [12], [13, 14, 15], [16], [17, 18], [19]]
OWNERS = [1, 0, 1, 2, 1, 0]  # in no order


@pytest.mark.parametrize("most", [1, 2, 3, 24])
@pytest.mark.parametrize("extra", [0, 4])
def test_every_token_stands_in_its_row_and_sees_its_text(most: int, extra: int) -> None:
    left, right = pad([*CONTEXTS, [7] * (3 + extra)]), pad([*CANDIDATES, [8] * (3 + extra)])
    packed = pack(left, right, torch.tensor([*OWNERS, 3]), most)
    rows = len(packed.ids)
    assert rows == sum(-(-OWNERS.count(i) // most) for i in range(3)) + 1
    for b, lead in enumerate(packed.lead[:3].tolist()):
        assert packed.ids[lead, : len(CONTEXTS[b])].tolist() == CONTEXTS[b]
    taken: set[tuple[int, int]] = set()
    for p, (owner, candidate) in enumerate(zip(OWNERS, CANDIDATES, strict=True)):
        row, size = int(packed.row[p]), len(CONTEXTS[owner])
        place = packed.place[p, : len(candidate)].tolist()
        assert packed.ids[row, :size].tolist() == CONTEXTS[owner]
        assert packed.positions[row, :size].tolist() == list(range(size))
        assert packed.ids[row, place].tolist() == candidate
        assert packed.positions[row, place].tolist() == list(range(len(candidate)))
        assert packed.place[p, len(candidate) :].unique().tolist() in ([], [place[0]])
        for query in range(size):
            assert packed.seen[row, query].nonzero()[:, 0].tolist() == list(range(size))
        for query in place:
            assert packed.seen[row, query].nonzero()[:, 0].tolist() == [*range(size), *place]
        assert not taken & {(row, column) for column in place}
        taken |= {(row, column) for column in place}
    assert packed.seen.any(-1).all()  # padding sees something, so that nothing is divided by zero
    assert packed.row.bincount().max() <= most
    assert packed.positions.max() < max(left[0].shape[1], right[0].shape[1])
