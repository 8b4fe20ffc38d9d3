"""From a dialogue to what an encoder reads: marks, order, and what goes when it is too long.

A context is one line of pieces. Each piece opens with a mark that tells the encoder what it is:

    # i love tea.  # i am a guide.  > hi , how are you ?  < fine , and you ?  > what do you do ?
    persona        persona          user                  assistant           user

and a candidate is one more assistant piece, `< i show people round a museum .` The marks are plain
characters that every tokenizer knows, so any encoder can be used without new embeddings; they are
part of the checkpoint. A message that contains a mark is not dangerous, only less clear.

Too long a context loses its oldest messages first and keeps the persona. `keep="newest"` gives the
behaviour of older systems: one string, cut at its left end, so that the persona goes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rejoinder.errors import ConfigError
from rejoinder.schema import Dialogue

SPEAKERS = ("<bos>", "<eos>", "<speaker1>", "<speaker2>", "<pad>")  # of a language model, in order


@dataclass(frozen=True, kw_only=True)
class TextFormat:
    """How text is laid out for the encoder; saved in the checkpoint."""

    persona_mark: str = "#"
    """Opens each sentence of the persona."""
    user_mark: str = ">"
    """Opens each user message."""
    assistant_mark: str = "<"
    """Opens each assistant message and each candidate."""
    system_mark: str = "|"
    """Opens each system message."""
    max_context: int = 160
    """Tokens of a context, the encoder's own first and last token included."""
    max_reply: int = 40
    """Tokens of a candidate, likewise."""
    max_history: int = 0
    """Newest messages to read; 0 = all of them."""
    keep: Literal["persona", "newest"] = "persona"
    """What survives when a context is too long."""

    def __post_init__(self) -> None:
        for name in ("max_context", "max_reply"):
            if getattr(self, name) < 8:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected at least 8 tokens")
        if self.max_history < 0:
            raise ConfigError(f"max_history is {self.max_history}; expected 0 (all) or more")
        if self.keep not in ("persona", "newest"):
            raise ConfigError(f"keep is {self.keep!r}; expected 'persona' or 'newest'")


def persona_pieces(dialogue: Dialogue, style: TextFormat) -> list[str]:
    """The persona's sentences with their mark."""
    return [f"{style.persona_mark} {sentence}" for sentence in dialogue.persona]


def turn_pieces(dialogue: Dialogue, style: TextFormat) -> list[str]:
    """The newest `max_history` messages with their marks, oldest first."""
    marks = {
        "user": style.user_mark,
        "assistant": style.assistant_mark,
        "system": style.system_mark,
    }
    messages = dialogue.messages[-style.max_history :]  # [-0:] is everything
    return [f"{marks[message.role]} {message.content}" for message in messages]


def candidate_piece(reply: str, style: TextFormat) -> str:
    """A candidate as the encoder reads it."""
    return f"{style.assistant_mark} {reply}"


def render(dialogue: Dialogue, style: TextFormat) -> str:
    """The whole context as one readable line, nothing cut off."""
    return "  ".join(persona_pieces(dialogue, style) + turn_pieces(dialogue, style))


def fit(
    persona: Sequence[list[int]],
    turns: Sequence[list[int]],
    room: int,
    keep: Literal["persona", "newest"] = "persona",
) -> list[int]:
    """Join pieces of token ids into at most `room` tokens.

    keep="persona": the newest message has at least half of the room (its end survives), the persona
    what it needs of the rest, sentence by sentence, and older messages stay whole or go.
    keep="newest": everything in one row, cut at the left.
    """
    if keep == "newest":
        whole = [token for piece in (*persona, *turns) for token in piece]
        return whole[max(0, len(whole) - room) :]
    newest = list(turns[-1]) if turns else []
    limit = room - min(len(newest), room // 2)
    about: list[int] = []
    for sentence in persona:
        if len(about) + len(sentence) > limit:
            break
        about += sentence
    newest = newest[max(0, len(newest) - (room - len(about))) :]
    left = room - len(about) - len(newest)
    older: list[list[int]] = []
    for turn in reversed(turns[:-1]):
        if len(turn) > left:
            break
        older.append(turn)
        left -= len(turn)
    return [*about, *(token for turn in reversed(older) for token in turn), *newest]
