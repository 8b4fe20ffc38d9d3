"""What a conversation remembers: the dialogue, and how each answer in it came about.

No terminal here and no commands: a `Session` can be driven from a notebook as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from rejoinder.chat.persona import take_persona
from rejoinder.chat.readable import readable
from rejoinder.errors import ConfigError
from rejoinder.schema import Dialogue, Reply


class Responder(Protocol):
    """Anything that can answer; the chat knows nothing else about an agent."""

    def respond(self, dialogue: Dialogue) -> Reply:
        """Answer the last message of a dialogue."""
        ...


@dataclass(frozen=True, kw_only=True)
class ChatOptions:
    """How a chat begins, and when it would rather not answer."""

    persona: tuple[str, ...] = ()
    min_confidence: float = 0.0  # below it the fallback is said; 0 = never
    fallback: str = "I am not sure what to say to that."
    title: str = ""  # the model and its number of candidates, shown once

    def __post_init__(self) -> None:
        if not 0 <= self.min_confidence <= 1:
            raise ConfigError(
                f"min_confidence is {self.min_confidence}; expected a probability, 0 to 1"
            )
        if not self.fallback.strip():
            raise ConfigError("fallback is empty; expected what to say below min_confidence")


@dataclass(frozen=True, slots=True)
class Answer:
    """What was said, and what the agent had in mind."""

    said: str  # the agent's text, or the fallback
    reply: Reply
    fallback: bool  # the fallback was said, as the agent was not sure enough
    seconds: float  # that the agent took


@dataclass(frozen=True, slots=True)
class _Exchange:
    before: Dialogue
    after: Dialogue
    answer: Answer


class Session:
    """One conversation with an agent, and the way back through it.

    A persona set with `set_persona` stays; one that a message brings lasts until `reset`.
    """

    def __init__(
        self, agent: Responder, options: ChatOptions, heard: Callable[[str], None] | None = None
    ) -> None:
        self.agent = agent
        self.options = options
        self.heard = heard  # is told each piece of a reply, by agents that can `stream`
        self._persona = tuple(map(readable, options.persona))  # each conversation begins with it
        self.dialogue = Dialogue(persona=self._persona)
        self._exchanges: list[_Exchange] = []

    @property
    def last(self) -> Answer | None:
        """The newest answer of the dialogue."""
        return self._exchanges[-1].answer if self._exchanges else None

    def say(self, text: str) -> Answer | None:
        """Send a message and keep the answer; None if `text` holds no more than a persona.

        If the agent fails, the dialogue stays as it was.
        """
        persona, message = take_persona(readable(text))
        before = self.dialogue
        asked = before if persona is None else replace(before, persona=persona)
        if not message:
            self.dialogue = asked
            return None
        asked = asked.then("user", message)
        answer = self._answer(asked)
        self.dialogue = asked.then("assistant", answer.said)
        self._exchanges.append(_Exchange(before, self.dialogue, answer))
        return answer

    def _answer(self, asked: Dialogue) -> Answer:
        start = time.perf_counter()
        stream = getattr(self.agent, "stream", None)
        if self.heard and stream and not self.options.min_confidence:
            reply = stream(asked, self.heard)
        else:  # below a minimum something else is said, so nothing may be heard before
            reply = self.agent.respond(asked)
        seconds = time.perf_counter() - start
        unsure = reply.confidence is not None and reply.confidence < self.options.min_confidence
        return Answer(self.options.fallback if unsure else reply.text, reply, unsure, seconds)

    def undo(self) -> str | None:
        """Take back the newest exchange and give the user's message in it; None if there is none.

        The persona goes back as well if it was that very message that brought it.
        """
        if not self._exchanges:
            return None
        exchange = self._exchanges.pop()
        persona = self.dialogue.persona
        if persona == exchange.after.persona:
            persona = exchange.before.persona
        self.dialogue = replace(exchange.before, persona=persona)
        return exchange.after.messages[-2].content

    def reset(self) -> None:
        """Begin a new conversation."""
        self.dialogue = Dialogue(persona=self._persona)
        self._exchanges.clear()

    def set_persona(self, persona: tuple[str, ...]) -> None:
        """Be somebody else from now on, in this conversation and the next."""
        self._persona = persona
        self.dialogue = replace(self.dialogue, persona=persona)
