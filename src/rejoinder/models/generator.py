"""Write a reply token by token, and score given replies: a causal model with two heads.

The first head is the base's own, tied to its word vectors: what comes next. The second is one
linear layer on the state of a reply's last token: is this the reply that follows? (TransferTransfo,
Wolf et al. 2019, arXiv:1901.08149.) Where two tokens say who speaks, every token is read as the sum
of its vector and that of its type: the one of the two that came last.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rejoinder.models.causal import Cache, Causal
from rejoinder.models.packing import MOST, pack
from rejoinder.models.past import causal

SPREAD = 0.02  # standard deviation of fresh vectors, as in GPT


class Rows(NamedTuple):
    """Token ids (B, T) and mask (B, T), padded on the right; types (B, T) if not as usual."""

    ids: Tensor
    mask: Tensor
    types: Tensor | None = None

    def part(self, rows: Tensor | slice) -> Rows:
        """Some of them."""
        types = None if self.types is None else self.types[rows]
        return Rows(self.ids[rows], self.mask[rows], types)


class Generator(nn.Module):
    """A causal base, vectors for `added` tokens that it does not have, and the two heads.

    Ids count the base's V tokens first, then the added ones. speakers: the two that open a turn,
    the assistant's first, which is also the type of what comes before any turn. With `rank` the
    base's word vectors are read, and written by, with a product of two small matrices added to
    them, as adapters are to layers (Hu et al. 2021, arXiv:2106.09685).
    """

    def __init__(
        self,
        body: Causal,
        *,
        added: int = 0,
        speakers: tuple[int, int] | None = None,
        rank: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.body = body
        self.speakers = speakers
        self.added = nn.Parameter(torch.randn(added, body.width) * SPREAD)
        self.shift_in: nn.Parameter | None = None
        self.shift_out: nn.Parameter | None = None
        if rank:
            self.shift_in = nn.Parameter(torch.randn(rank, body.width) * SPREAD)
            self.shift_out = nn.Parameter(torch.zeros(len(body.words), rank))
        self.dropout = nn.Dropout(dropout)  # of what the second head sees
        self.choice = nn.Linear(body.width, 1)
        nn.init.normal_(self.choice.weight, std=SPREAD)
        nn.init.zeros_(self.choice.bias)

    def tokens(self, left: Tensor, right: Tensor, count: Tensor) -> Tensor:
        """How many are read for contexts of `left` tokens and `count` replies of `right` in all."""
        return -(-count // MOST) * left + right

    def embed(self, rows: Rows) -> Tensor:
        """What the base reads: (B, T) ids and types -> (B, T, D)"""
        words = self._look_up(rows.ids)
        types = self.types(rows.ids) if rows.types is None else rows.types
        return words if types is None else words + self._look_up(types)

    def types(self, ids: Tensor) -> Tensor | None:
        """(B, T) -> (B, T), of each token the speaker that came last; None without speakers."""
        if self.speakers is None:
            return None
        first, second = self.speakers
        places = torch.arange(ids.shape[1], device=ids.device)
        latest = places.where((ids == first) | (ids == second), -1).cummax(1).values
        return ids.gather(1, latest.clamp(min=0)).where(latest >= 0, first)

    @property
    def words(self) -> Tensor:
        """(V, D) vectors of the base's tokens, with what was learned on top of them."""
        if self.shift_in is None or self.shift_out is None:
            return self.body.words
        return self.body.words + (self.shift_out @ self.shift_in).to(self.body.words)

    @torch.no_grad()
    def merge_words(self) -> None:
        """Add what was learned on top of the base's word vectors to them, for good."""
        self.body.words.copy_(self.words)
        self.shift_in = self.shift_out = None

    def _look_up(self, ids: Tensor) -> Tensor:
        words = self.words
        if not len(self.added):
            return F.embedding(ids, words)
        known = ids < len(words)
        new = F.embedding((ids - len(words)).clamp(min=0), self.added)
        return torch.where(known[..., None], F.embedding(ids.where(known, 0), words), new)

    def next_tokens(self, states: Tensor) -> Tensor:
        """Scores of the token that follows: (..., D) -> (..., V + added)"""
        out = self.words if self.body.out is self.body.words else self.body.out
        scores = states @ out.T.to(states)
        if not len(self.added):
            return scores
        return torch.cat([scores, states @ self.added.T.to(states)], -1)

    def follows(self, states: Tensor) -> Tensor:
        """Score of a reply as the one that follows, by its last token's state: (P, D) -> (P,)"""
        found: Tensor = self.choice(self.dropout(states))[:, 0]
        return found

    def forward(self, rows: Rows) -> Tensor:
        """States of whole rows: -> (B, T, D)"""
        return self.read(rows, None)

    def read(self, rows: Rows, past: Cache | None, before: Tensor | None = None) -> Tensor:
        """States of the tokens that follow what is in `past`, to which they are added.

        before: (B, K) bool, which of the tokens in `past` are real.
        """
        mask = rows.mask if before is None else torch.cat([before, rows.mask], 1)
        positions = mask.cumsum(1)[:, -rows.ids.shape[1] :] - 1
        seen = causal(mask, rows.ids.shape[1])
        seen[..., 0] |= ~seen.any(-1)  # padding sees something, so that nothing is divided by zero
        found: Tensor = self.body(self.embed(rows), seen, positions.clamp(min=0), past)
        return found

    def behind(self, contexts: Rows, replies: Rows, owner: Tensor) -> Tensor:
        """States of replies, each behind its context: (P, L, D); owner (P,) is its context's row.

        A context is read once for all of its replies, which cannot see one another.
        """
        return self.together(contexts, replies, owner)[1]

    def together(
        self, contexts: Rows, replies: Rows, owner: Tensor, ends: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """States of the contexts (B, T, D) too, and of the replies behind them (P, L, D).

        ends (P,): behind how many tokens of its context a reply stands, all if not given.
        """
        size = contexts.ids.numel()
        slots = torch.arange(size + replies.ids.numel(), device=owner.device)
        left, right = slots[:size].view_as(contexts.ids), slots[size:].view_as(replies.ids)
        both = (left, contexts.mask), (right, replies.mask)
        packed = pack(*both, owner, causal=True, ends=ends)
        words = torch.cat([self.embed(rows).flatten(0, 1) for rows in (contexts, replies)])
        states = self.body(words[packed.ids], packed.seen, packed.positions)
        width = contexts.ids.shape[1]
        return states[packed.lead, :width], states[packed.row[:, None], packed.place]


def last(states: Tensor, mask: Tensor) -> Tensor:
    """The state of each row's last real token: (B, T, D), (B, T) -> (B, D)"""
    places = torch.arange(mask.shape[1], device=mask.device)
    return states[torch.arange(len(states)), (places * mask).argmax(1)]


def log_likelihood(generator: Generator, states: Tensor, replies: Rows) -> Tensor:
    """How likely each token of a row is after those before it: (P, L, D) -> (P, L - 1).

    The first token, such as the one that opens a reply, is given. Padding has 0.
    """
    real = replies.mask[:, 1:]
    scores = generator.next_tokens(states[:, :-1][real]).float()  # of padding none is made
    found = -F.cross_entropy(scores, replies.ids[:, 1:][real], reduction="none")
    return torch.zeros_like(real, dtype=found.dtype).masked_scatter(real, found)
