"""The records that everything else speaks: dialogues in, examples between, replies out.

A `Dialogue` is a persona and messages. Every assistant message in it is one `Example`: the dialogue
up to that message is the context, the message is the reply to find. Records are frozen; they hold
text only, no tensors and no behaviour beyond reading themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, get_args

Role = Literal["user", "assistant", "system"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. On an assistant message, `candidates` is the list that it was chosen from.

    The reply itself may stand anywhere in `candidates` or be absent from it. `alternatives` are
    further replies that are as right as `content` (a file format may give several).
    """

    role: Role
    content: str
    candidates: tuple[str, ...] = ()
    alternatives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Who speaks, and what was said, oldest message first.

    `persona` describes the assistant, `partner_persona` the user. An assistant may open.
    """

    messages: tuple[Message, ...] = ()
    persona: tuple[str, ...] = ()
    partner_persona: tuple[str, ...] = ()

    def before(self, turn: int) -> Dialogue:
        """The same dialogue, cut right before message number `turn`."""
        return Dialogue(self.messages[:turn], self.persona, self.partner_persona)

    def then(self, role: Role, content: str) -> Dialogue:
        """The same dialogue with one more message at its end."""
        added = (*self.messages, Message(role, content))
        return Dialogue(added, self.persona, self.partner_persona)

    def swapped(self) -> Dialogue:
        """The same dialogue from the other side: user and assistant change places."""
        roles: dict[Role, Role] = {"user": "assistant", "assistant": "user", "system": "system"}
        turned = tuple(Message(roles[message.role], message.content) for message in self.messages)
        return Dialogue(turned, self.partner_persona, self.persona)


@dataclass(frozen=True, slots=True)
class Example:
    """A context and the reply that was given to it.

    `replies` are all right replies, the given one first; `candidates` may be empty.
    """

    context: Dialogue
    replies: tuple[str, ...]
    candidates: tuple[str, ...] = ()

    @property
    def reply(self) -> str:
        return self.replies[0]


def examples(dialogues: Iterable[Dialogue]) -> Iterator[Example]:
    """Every assistant message of every dialogue, in order, as an `Example`."""
    for dialogue in dialogues:
        for turn, message in enumerate(dialogue.messages):
            if message.role == "assistant":
                replies = (message.content, *message.alternatives)
                yield Example(dialogue.before(turn), replies, message.candidates)


@dataclass(frozen=True, slots=True)
class Ranking:
    """Scores of one context's candidates, in the order given, and the best first.

    `confidence` is the probability that the first of `order` is right, None where the model has
    not been calibrated.
    """

    scores: tuple[float, ...]
    order: tuple[int, ...]
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Scored:
    """One candidate and its score; higher is better, only comparable within one answer."""

    text: str
    score: float
    origin: str = ""  # where it comes from, if an agent has several sources


@dataclass(frozen=True, slots=True)
class Reply:
    """What an agent says, how sure it is, and what else it thought of, best first.

    `meaning` says what the confidence is of, as that differs from agent to agent.
    """

    text: str
    confidence: float | None = None
    considered: tuple[Scored, ...] = field(default=())
    meaning: str = ""
