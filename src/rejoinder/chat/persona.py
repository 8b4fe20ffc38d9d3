"""Personas as people type them, and as the chat shows them."""

from __future__ import annotations

import re
from collections.abc import Sequence

_BREAK = re.compile(r"\r?\n|\\n")  # real, or typed as a backslash and an n
_MARK = re.compile(r"\s*your persona:", re.IGNORECASE)
_SENTENCE_END = re.compile(  # behind 。 and its like no space is needed, unless a bracket closes
    r"(?<=[.!?…؟۔।॥])\s+|(?<=[。！？｡])(?![。！？｡」』）】”’)\]])\s*"
)


def is_persona_line(line: str) -> bool:
    """Tell if a line begins with `your persona:`."""
    return _MARK.match(line) is not None


def is_only_persona(text: str) -> bool:
    """Tell if a text gives a persona and no message."""
    persona, message = take_persona(text)
    return persona is not None and not message


def take_persona(text: str) -> tuple[tuple[str, ...] | None, str]:
    r"""Split a message into the persona its lines give, and the rest; None if they give none.

    A line that begins with `your persona:` is a sentence of the persona. Where there is one, a
    typed `\n` is a line break; any other message stays as it is.
    """
    lines = _BREAK.split(text)
    if not any(map(is_persona_line, lines)):
        return None, text.strip()
    about = [_MARK.sub("", line, count=1) for line in lines if is_persona_line(line)]
    rest = [line for line in lines if not is_persona_line(line)]
    return _filled(about), "\n".join(rest).strip()


def sentences(text: str) -> tuple[str, ...]:
    """Split a persona typed at once: at " | ", or at sentence ends where there is none."""
    lines = _BREAK.split(text)
    if " | " in text:
        return _filled([part for line in lines for part in line.split(" | ")])
    return _filled([part for line in lines for part in _SENTENCE_END.split(line)])


def plain_lines(text: str) -> tuple[str, ...]:
    """The lines of a text as sentences of a persona, without `your persona:` before them."""
    return _filled(_BREAK.split(text))


def _filled(parts: Sequence[str]) -> tuple[str, ...]:
    plain = (_MARK.sub("", part, count=1).strip() for part in parts)
    return tuple(part for part in plain if part)


def shown(persona: Sequence[str]) -> str:
    """Give a persona as lines to read."""
    if not persona:
        return "No persona. To give one: /persona I like tea. I am a guide."
    return "\n".join(f"I am: {sentence}" for sentence in persona)
