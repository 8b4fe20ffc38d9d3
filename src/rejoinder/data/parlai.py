"""ParlAI dialogue text: numbered lines, `N text<TAB>replies<TAB>reward<TAB>candidates`.

A number that is not above the one before it opens a new dialogue. Replies and candidates are
separated by `|`; the first reply is the reply, the others are alternatives. A line without a reply
is context for the next line that has one. Context lines that begin with `your persona:` describe
the assistant, `partner's persona:` the user; all others are what the user says.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rejoinder.data.files import numbered_lines
from rejoinder.data.reports import Report, stop
from rejoinder.errors import DataError
from rejoinder.schema import Dialogue, Message

LAYOUT = "NUMBER text<TAB>reply<TAB>reward<TAB>candidate|candidate"
OWN = "your persona:"
PARTNER = "partner's persona:"


def read_parlai(path: Path, report: Report = stop) -> Iterator[tuple[int, Dialogue]]:
    """Every dialogue with the number of its first line.

    A bad line is reported and left out; the rest of its dialogue is kept.
    """
    episode, first, last = Episode(), 0, 0
    for number, line in numbered_lines(path, report):
        line = line.strip()
        if not line:
            continue
        try:
            place, text = _number(line)
            if place <= last or not first:
                yield from ended(first, episode)
                episode, first = Episode(), number
            last = place
            _add(episode, text)
        except ValueError as error:
            report(DataError(f"{path}:{number}: {error}"))
    yield from ended(first, episode)


def ended(first: int, episode: Episode) -> Iterator[tuple[int, Dialogue]]:
    """Give a dialogue and its first line, unless all of its lines were bad and nothing is left."""
    dialogue = episode.dialogue()
    if dialogue != Dialogue():
        yield first, dialogue


def _number(line: str) -> tuple[int, str]:
    """Split off the number; a line that is only a number has itself as its text."""
    number, space, text = line.partition(" ")
    if not (number.isascii() and number.isdigit()):
        raise ValueError(f"expected {LAYOUT!r}, got {line[:60]!r}; begin each line with its number")
    return int(number), text if space else number


def _add(episode: Episode, line: str) -> None:
    fields = [field.strip() for field in line.replace("\\n", "\n").split("\t")]
    if len(fields) > 4:
        raise ValueError(
            f"{len(fields)} columns, expected at most 4: {LAYOUT!r}; "
            "take out the tabs inside the text"
        )
    text, replies, reward, candidates = fields + [""] * (4 - len(fields))
    if reward and not _is_float(reward):
        raise ValueError(
            f"column 3 is {reward[:60]!r}, expected a reward (a number or nothing); "
            "candidates belong in column 4"
        )
    if candidates and not replies:
        raise ValueError(
            "candidates without a reply; expected the right reply in column 2, so add it "
            "or take the candidates out"
        )
    episode.hear(text)
    if replies:
        episode.say(_split(replies), _split(candidates))


def _split(field: str) -> list[str]:
    return field.split("|") if field else []


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class Episode:
    """A dialogue under construction, fed with ParlAI texts and replies in turn."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.persona: list[str] = []
        self.partner_persona: list[str] = []
        self.heard: list[str] = []  # lines since the last reply

    def hear(self, text: str) -> None:
        """Take in a text of one or more lines: persona sentences, and what the user says."""
        for line in text.split("\n"):
            if line.startswith(OWN):
                self._learn(self.persona, line.removeprefix(OWN).strip())
            elif line.startswith(PARTNER):
                self._learn(self.partner_persona, line.removeprefix(PARTNER).strip())
            elif not is_silence(line):
                self.heard.append(line)

    def _learn(self, persona: list[str], sentence: str) -> None:
        """Add a sentence; one that comes again in the course of the dialogue is not new."""
        if not self.messages or sentence not in persona:
            persona.append(sentence)

    def say(self, replies: list[str], candidates: list[str]) -> None:
        """Answer what was heard with the first of `replies`."""
        self._end_turn()
        self.messages.append(
            Message("assistant", replies[0], tuple(candidates), tuple(replies[1:]))
        )

    def _end_turn(self) -> None:
        text = "\n".join(self.heard)
        self.heard = []
        if text.strip():
            self.messages.append(Message("user", text))

    def dialogue(self) -> Dialogue:
        """Give all that was fed in; a text that got no reply is the user's last message."""
        self._end_turn()
        return Dialogue(tuple(self.messages), tuple(self.persona), tuple(self.partner_persona))


def is_silence(text: str) -> bool:
    """Whether a text stands for nothing said: `__SILENCE__`, also with spaces inside."""
    return "".join(text.split()).upper() == "__SILENCE__"
