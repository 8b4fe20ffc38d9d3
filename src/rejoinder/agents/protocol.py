"""What every agent is, and what all of them know of a conversation."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from rejoinder.schema import Dialogue, Reply
from rejoinder.words import folded

SHOWN = 20  # candidates that a reply carries along


class Agent(Protocol):
    """Anything that can answer."""

    def respond(self, dialogue: Dialogue) -> Reply: ...


def newest(dialogue: Dialogue, count: int) -> Dialogue:
    """The dialogue with its newest messages only; 0 = all of them."""
    return replace(dialogue, messages=dialogue.messages[-count:])


def said_in(dialogue: Dialogue) -> set[str]:
    """What was said in it, by either side, as `folded` texts."""
    return {folded(message.content) for message in dialogue.messages}
