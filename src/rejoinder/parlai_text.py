"""From a dialogue to rows of ids as ParlAI's rankers read them.

    your persona: i love tea .        one entry: the persona, and the first message
    your persona: i am a guide .
    hi , how are you ?
    fine , and you ?                  an entry
    what do you do ?                  an entry

Every entry is tokenized by itself, the tokens of a line break stand between two, and of the whole
the newest are kept; start and end token come around what was kept. A candidate is cut only with its
start and end around it, so that a long one has no end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rejoinder.dictionary import NAME, Dictionary, as_json
from rejoinder.schema import Dialogue, Role
from rejoinder.text import TextFormat, fit

MOST_SEEN = 200_000  # entries kept, of about 200 bytes each


class ParlaiTokens:
    """Turns contexts and candidates into rows of token ids under one text format.

    Marks of the format stand before what they mark: `your persona:` before a sentence of the
    persona, nothing or `__p1__` before a message.
    """

    def __init__(self, dictionary: Dictionary, style: TextFormat) -> None:
        self.dictionary = dictionary
        self.style = style
        self.pad = dictionary.pad
        self._break = dictionary.encode(dictionary.words.delimiter)
        self._seen: dict[str, list[int]] = {}

    def files(self) -> Mapping[str, str]:
        """What a model's folder has of it: name of a file -> text."""
        return {NAME: as_json(self.dictionary.words)}

    def contexts(self, dialogues: Sequence[Dialogue]) -> list[list[int]]:
        """Rows of at most `max_context` ids, one per dialogue; of an empty one, none at all."""
        room = self.style.max_context - 2
        rows = []
        for dialogue in dialogues:
            if self.style.keep == "newest":
                ids = self._joined(self._entries(dialogue))
                ids = ids[max(0, len(ids) - room) :]
            else:
                ids = self._persona_first(dialogue, room)
            framed = [self.dictionary.start, *ids, self.dictionary.end]
            rows.append(framed if dialogue.persona or dialogue.messages else [])
        return rows

    def candidates(self, replies: Sequence[str]) -> list[list[int]]:
        """Rows of at most `max_reply` ids, one per reply; a long reply keeps its start."""
        first, last = self.dictionary.start, self.dictionary.end
        rows = ([first, *self._ids(reply), last] for reply in replies)
        return [row[: self.style.max_reply] for row in rows]

    def _entries(self, dialogue: Dialogue) -> list[str]:
        """The newest `max_history` entries; the persona belongs to the first message."""
        about = [_marked(self.style.persona_mark, sentence) for sentence in dialogue.persona]
        said = dialogue.messages
        first = "\n".join([*about, *(one.content for one in said[:1])])
        if not said:
            return [self._of("user", first)] if about else []
        entries = [self._of(said[0].role, first), *(self._of(m.role, m.content) for m in said[1:])]
        if self.dictionary.words.split_lines:
            entries = [line for entry in entries for line in entry.split("\n")]
        return entries[-self.style.max_history :]  # [-0:] is everything

    def _of(self, role: Role, text: str) -> str:
        marks = {
            "user": self.style.user_mark,
            "assistant": self.style.assistant_mark,
            "system": self.style.system_mark,
        }
        return _marked(marks[role], text)

    def _joined(self, entries: Sequence[str]) -> list[int]:
        ids: list[int] = []
        for place, entry in enumerate(entries):
            ids += [*(self._break if place else ()), *self._ids(entry)]
        return ids

    def _persona_first(self, dialogue: Dialogue, room: int) -> list[int]:
        """The persona stays and the oldest messages go, as with models that began here."""
        about = [_marked(self.style.persona_mark, sentence) for sentence in dialogue.persona]
        newest = dialogue.messages[-self.style.max_history :]
        said = [self._of(one.role, one.content) for one in newest]
        pieces = [[*self._ids(entry), *self._break] for entry in (*about, *said)]
        if pieces:
            pieces[-1] = pieces[-1][: len(pieces[-1]) - len(self._break)]
        return fit(pieces[: len(about)], pieces[len(about) :], room)

    def _ids(self, text: str) -> list[int]:
        found = self._seen.get(text)
        if found is None:
            if len(self._seen) > MOST_SEEN:
                self._seen.clear()
            found = self._seen[text] = self.dictionary.encode(text)
        return found


def _marked(mark: str, text: str) -> str:
    return f"{mark} {text}" if mark else text
