"""Replies out of logs, for a person to approve: count them, put near-duplicates together, propose.

Texts that are equal but for blanks at their ends are one reply. Replies are taken in a fixed order:
those that need a look last, then the most said first, then by text. A reply whose cosine with an
earlier leader is at least `likeness` joins the nearest one (the earlier of two equally near ones),
any other is a leader itself (leader clustering, Hartigan 1975). So no chain of small steps joins
what is unlike, and neither the order of the logs nor the size of the blocks changes anything.

Shapes: N distinct replies, L leaders, D width.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from rejoinder.data.approval import Proposal
from rejoinder.data.personal import mask, personal
from rejoinder.data.tally import PLACEHOLDER
from rejoinder.schema import Dialogue

Vectors: TypeAlias = NDArray[np.float32]
Numbers: TypeAlias = NDArray[np.int64]

BLOCK = 512  # replies compared at once
PART = 16384  # leaders they are compared with at once: 32 MB of products
EXAMPLES = 3  # contexts in a row, and wordings
WIDTH = 200  # characters of a context


@dataclass(frozen=True)
class Said:
    """One distinct reply: how often it was said, and the last user message before it."""

    text: str
    warning: str  # why a person has to look at it; empty if nothing is odd
    contexts: Counter[str] = field(default_factory=Counter)  # "" where there was none

    @property
    def count(self) -> int:
        return self.contexts.total()

    @property
    def rank(self) -> tuple[bool, int]:
        """What decides who may lead: the smaller the better."""
        return bool(self.warning), -self.count


@dataclass(frozen=True)
class Log:
    """Distinct replies in the order in which they may lead, and how many were read."""

    said: list[Said]
    replies: int
    blocked: int  # of them


def listen(dialogues: Iterable[Dialogue], stopped: Callable[[str], bool] = lambda _: False) -> Log:
    """Count the assistant's replies; those that are `stopped` are left out."""
    found: dict[str, Said | None] = {}  # None: blocked
    replies = blocked = 0
    for dialogue in dialogues:
        asked = ""
        for message in dialogue.messages:
            if message.role == "user":
                asked = _short(message.content)
            text = _clean(message.content) if message.role == "assistant" else ""
            if not text:
                continue
            replies += 1
            if text not in found:
                found[text] = None if stopped(text) else Said(text, warning(text))
            said = found[text]
            if said is None:
                blocked += 1
            else:
                said.contexts[asked] += 1
    kept = [said for said in found.values() if said]
    return Log(sorted(kept, key=lambda said: (said.rank, said.text)), replies, blocked)


def _clean(text: str) -> str:
    """A reply as a table can hold it: plain line feeds, no zero bytes, no blanks at its ends."""
    return re.sub("\r\n?", "\n", text).replace("\0", "").strip()


def _short(text: str) -> str:
    """A text in one line, its private parts hidden, that is only to be looked at."""
    line = mask(" ".join(text.replace("\0", "").split()))
    return line if len(line) <= WIDTH else line[:WIDTH] + "..."


def warning(text: str) -> str:
    """What looks private in a reply or was left open, its middle hidden; empty if nothing."""
    found = [f"{finding.kind}: {finding.masked}" for finding in personal(text)]
    if PLACEHOLDER.search(text):
        found.append("a name left open")
    return "; ".join(dict.fromkeys(found))


def suggest(
    said: Sequence[Said],
    encode: Callable[[Sequence[str]], Vectors],
    likeness: float,
) -> list[Proposal]:
    """One proposal for each cluster, the most said first.

    said: in the order of `listen`. encode: texts -> (N, D), not yet of length one. likeness: cosine
    from which two replies are near-duplicates.
    """
    if not said:
        return []
    vectors = unit(encode([one.text for one in said]))
    members: dict[int, list[int]] = {}
    for number, leader in enumerate(cluster(vectors, likeness).tolist()):
        members.setdefault(leader, []).append(number)
    found = [_proposal([said[i] for i in group], vectors[group]) for group in members.values()]
    return sorted(found, key=lambda proposal: (-proposal.count, proposal.text))


def unit(vectors: Vectors) -> Vectors:
    """Rows of length one; a row of zeros stays: (N, D) -> (N, D)"""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Vectors = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32, copy=False)
    return scaled


def cluster(vectors: Vectors, likeness: float) -> Numbers:
    """Number of the leader of each row, its own if it leads: (N, D) of length one -> (N,)

    In blocks: beside the vectors and as much again for those of the leaders, it needs some 40 MB.
    """
    owner = np.arange(len(vectors))
    leaders, who, count = np.empty_like(vectors), np.empty_like(owner), 0
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK]
        cosine, nearest = _nearest(block, leaders[:count])
        within = block @ block.T
        new: list[int] = []  # leaders in this block
        for row in range(len(block)):
            best, leader = cosine[row], who[nearest[row]] if count else 0
            if new and (near := within[row, new]).max() > best:
                best, leader = near.max(), start + new[int(near.argmax())]
            if best >= likeness:
                owner[start + row] = leader
            else:
                new.append(row)
        leaders[count : count + len(new)] = block[new]
        who[count : count + len(new)] = start + np.array(new, dtype=np.int64)
        count += len(new)
    return owner


def _nearest(block: Vectors, leaders: Vectors) -> tuple[Vectors, Numbers]:
    """Best cosine and place of the leader that has it: (B, D), (L, D) -> (B,), (B,)"""
    best = np.full(len(block), -np.inf, dtype=np.float32)
    place = np.zeros(len(block), dtype=np.int64)
    for start in range(0, len(leaders), PART):
        products = block @ leaders[start : start + PART].T
        first = products.argmax(1)
        value = products[np.arange(len(block)), first]
        better = value > best  # of equals the earlier stays
        best[better], place[better] = value[better], start + first[better]
    return best, place


def _proposal(members: Sequence[Said], vectors: Vectors) -> Proposal:
    """The most typical reply of a cluster, whose members come in the order of `listen`.

    It is the most said one; of several, the nearest to the centre of all that was said. One that
    needs a look is taken only where all do.
    """
    counts = np.array([one.count for one in members], dtype=np.float32)
    close = vectors @ (counts @ vectors)  # (N,), the centre's length changes no order
    ties = sum(one.rank == members[0].rank for one in members)
    chosen = int(close[:ties].argmax())
    like = vectors @ vectors[chosen]
    unlike = [i for i in like.argsort(kind="stable").tolist() if i != chosen]
    contexts = sum((one.contexts for one in members), Counter[str]())
    del contexts[""]
    most = sorted(contexts, key=lambda text: (-contexts[text], text))
    return Proposal(
        members[chosen].text,
        int(counts.sum()),
        tuple(most[:EXAMPLES]),
        members[chosen].warning,
        len(members),
        tuple(_short(members[i].text) for i in unlike[:EXAMPLES]),
    )
