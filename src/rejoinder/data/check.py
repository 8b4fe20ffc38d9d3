"""Look over a file of dialogues before training on it: what is in it, and what is odd."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path

from rejoinder.data import guess, read_numbered
from rejoinder.data.personal import mask
from rejoinder.data.tally import Tally
from rejoinder.errors import DataError
from rejoinder.text import TextFormat
from rejoinder.words import written

COUNTS = (
    "dialogues",
    "messages",
    "examples",
    "with_persona",
    "with_partner_persona",
    "with_candidates",
    "reply_among_candidates",
    "assistant_openers",
    "duplicate_dialogues",
    "duplicate_replies",
    "too_long",
    "replies_too_long",
)
LISTED = 50  # bad lines or warnings in the text form
PARTS = {"50%": 0.5, "90%": 0.9, "99%": 0.99, "all": 1.0}


def estimated_tokens(text: str) -> int:
    """Estimate the tokens of a text without a tokenizer: 1.3 for each word, as in English.

    Scripts without spaces have a word in every character.
    """
    return math.ceil(1.3 * len(written(text)))


@dataclass(frozen=True, kw_only=True)
class Check:
    """What a file holds. Lengths: the number of words that so many texts do not exceed."""

    path: str
    format: str
    dialogues: int
    messages: int
    examples: int  # assistant messages
    with_persona: int  # dialogues that describe the assistant
    with_partner_persona: int  # dialogues that describe the user
    with_candidates: int  # examples
    reply_among_candidates: int  # examples
    assistant_openers: int  # dialogues whose first message is the assistant's
    context_words: dict[str, int]
    reply_words: dict[str, int]
    duplicate_dialogues: int  # equal to an earlier one
    duplicate_replies: int  # equal to an earlier one
    max_context: int  # tokens
    too_long: int  # examples whose context has more than max_context tokens
    max_reply: int  # tokens
    replies_too_long: int  # replies of more than max_reply tokens
    samples: tuple[str, ...]
    bad: tuple[str, ...]
    warnings: tuple[str, ...]

    def as_json(self) -> str:
        """Give everything as one JSON object."""
        return json.dumps(asdict(self), ensure_ascii=False)

    def as_text(self) -> str:
        """Give everything as lines to read."""
        lines = [
            f"{self.path} ({self.format})",
            f"  {self.dialogues} dialogues, {self.messages} messages, {self.examples} examples "
            "(assistant messages)",
            f"  dialogues with a persona: {self.with_persona}, of the user: "
            f"{self.with_partner_persona}; opened by the assistant: {self.assistant_openers}",
            f"  examples with candidates: {self.with_candidates}, with the reply among them: "
            f"{self.reply_among_candidates}",
            f"  words of a context: {_percentiles(self.context_words)}",
            f"  words of a reply: {_percentiles(self.reply_words)}",
            f"  repeated: {self.duplicate_dialogues} dialogues, {self.duplicate_replies} replies",
            f"  would be cut: {self.too_long} contexts over {self.max_context} tokens, "
            f"{self.replies_too_long} replies over {self.max_reply}",
        ]
        for sample in self.samples:
            lines += ["", *(f"  | {line}" for line in sample.split("\n"))]
        lines += _section("bad lines", self.bad) + _section("warnings", self.warnings)
        return "\n".join(lines)


def _percentiles(lengths: dict[str, int]) -> str:
    return ", ".join(f"{part} have at most {length}" for part, length in lengths.items()) or "none"


def _section(title: str, items: tuple[str, ...]) -> list[str]:
    more = len(items) - LISTED
    lines = ["", f"  {title}: {len(items)}", *(f"  - {item}" for item in items[:LISTED])]
    return [*lines, f"  - and {more} more, all of them in the JSON form"] if more > 0 else lines


def check(
    path: str | PathLike[str],
    format: str | None = None,
    *,
    measure: Callable[[str], int] = estimated_tokens,
    max_context: int = TextFormat.max_context,
    max_reply: int = TextFormat.max_reply,
) -> Check:
    """Read a whole file and count; bad lines are listed, not raised.

    `measure` gives the tokens of a text, as the tokenizer of the model does. What looks personal is
    reported once, at its first place, and never shown whole.
    """
    path = Path(path)
    format = format or guess(path)
    bad: list[DataError] = []
    tally = Tally(path, measure, max_context, max_reply)
    for line, dialogue in read_numbered(path, format, bad=bad):
        tally.add(line, dialogue)
    return Check(
        path=str(path),
        format=format,
        **{name: tally.counts[name] for name in COUNTS},
        context_words=_lengths(tally.context_words),
        reply_words=_lengths(tally.reply_words),
        max_context=max_context,
        max_reply=max_reply,
        samples=tuple(tally.samples),
        bad=tuple(_without_personal(str(error), str(path)) for error in bad),
        warnings=tally.warnings(),
    )


def _lengths(words: Counter[int]) -> dict[str, int]:
    """Find for each part of the texts the length that none of them exceeds."""
    total = words.total()
    found: dict[str, int] = {}
    seen = 0
    for length in sorted(words):
        seen += words[length]
        for part, share in PARTS.items():
            if seen >= math.ceil(share * total):
                found.setdefault(part, length)
    return found


def _without_personal(message: str, path: str) -> str:
    """Mask what a message quotes, but not the path it begins with."""
    start = path if message.startswith(path) else ""
    return start + mask(message.removeprefix(start))
