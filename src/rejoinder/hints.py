"""Replies that others gave, shown to a generator before it writes its own.

Retrieve, then refine (Weston et al. 2018, arXiv:1808.04776): a generator that sees what a ranker
found may take it up, change it, or leave it. A hint is a system message in plain words, so it goes
into every layout, and a model that was taught to follow instructions needs no training for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from rejoinder.schema import Dialogue, Message

HINT = "somebody said here: {}"


def hinted(dialogue: Dialogue, replies: Iterable[str]) -> Dialogue:
    """The dialogue with replies as hints, in the order given, before its messages."""
    shown = tuple(Message("system", HINT.format(reply)) for reply in replies)
    return replace(dialogue, messages=(*shown, *dialogue.messages))
