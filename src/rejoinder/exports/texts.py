"""A context as one string, for libraries whose tokenizers read strings and not dialogues.

    # i love tea . > hi , how are you ? < fine , and you ?

The string holds what the ranker itself would read of a dialogue: what is too long is already cut.
The tokenizer that an export has makes of it the ids that the ranker makes of the dialogue, to the
last one, unless a cut goes through a word: then the string begins at the next word.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from tokenizers import Tokenizer, pre_tokenizers

from rejoinder.dictionary import Dictionary
from rejoinder.errors import ConfigError
from rejoinder.parlai_text import ParlaiTokens
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue
from rejoinder.text import candidate_piece, fit, persona_pieces, turn_pieces
from rejoinder.tokens import Pieces, Rows, Tokens

BLANK = " "
UNREADABLE = "\ufffd"
BREAK = "\x1e"  # the sign that separates records: no keyboard has it, and no message
WORD = re.compile(r"\s*(?:\w+|[^\w\s])")  # with what is before it, as some tokenizers count blanks
Read = Callable[[str], list[int]]  # a text's tokens


@dataclass(frozen=True)
class Line:
    """A context as a string, and whether its tokens are the ranker's own to the last one."""

    text: str
    exact: bool = True


def context_text(ranker: TextRanker, dialogue: Dialogue) -> str:
    """What the ranker reads of a dialogue, as one string for the tokenizer of an export.

    Raises ConfigError for an empty dialogue and a ranker from ParlAI, where it is no row at all.
    """
    return context_line(ranker.tokens, dialogue).text


def candidate_text(ranker: TextRanker, reply: str) -> str:
    """What the ranker reads of a candidate, its mark included; a long one ends at a word."""
    return candidate_line(ranker.tokens, reply).text


def context_line(tokens: Rows, dialogue: Dialogue) -> Line:
    """A context as a string. Raises ConfigError as `context_text` does."""
    if isinstance(tokens, ParlaiTokens):
        return _from_parlai(tokens, dialogue)
    assert isinstance(tokens, Tokens)  # the two ways there are
    read = _reader(tokens)
    pieces = [*persona_pieces(dialogue, tokens.style), *turn_pieces(dialogue, tokens.style)]
    sizes = [len(read(piece)) for piece in pieces]
    # every token gets a number in place of its id, and whose it is: fit minds neither
    owners = [place for place, size in enumerate(sizes) for _ in range(size)]
    ends = [*accumulate(sizes)]
    numbers = [[*range(end - size, end)] for end, size in zip(ends, sizes, strict=True)]
    about = len(dialogue.persona)
    room = tokens.style.max_context - len(tokens.prefix) - len(tokens.suffix)
    kept = fit(numbers[:about], numbers[about:], room, tokens.style.keep)
    left = Counter(owners[number] for number in kept)
    parts = [_end(pieces[one], left[one], read) for one in sorted(left)]
    text = joint(tokens.tokenizer).join(part.text for part in parts)
    return Line(_whole(text, "?"), all(part.exact for part in parts))


def candidate_line(tokens: Rows, reply: str) -> Line:
    """A candidate as a string."""
    if isinstance(tokens, ParlaiTokens):
        room = tokens.style.max_reply - 2
        return _start(_whole(reply, UNREADABLE), room, tokens.dictionary.encode)
    assert isinstance(tokens, Tokens)
    room = tokens.style.max_reply - len(tokens.prefix) - len(tokens.suffix)
    return _start(_whole(candidate_piece(reply, tokens.style), "?"), room, _reader(tokens))


def joint(tokenizer: Tokenizer) -> str:
    """What stands between the pieces of a context, so that each is read as if it stood alone.

    A blank where words are cut at blanks before anything else is done; else a sign of its own.
    """
    first = tokenizer.pre_tokenizer
    if isinstance(first, pre_tokenizers.Sequence):
        first = first[0]
    at_blanks = (
        pre_tokenizers.BertPreTokenizer,
        pre_tokenizers.Whitespace,
        pre_tokenizers.WhitespaceSplit,
    )
    return BLANK if isinstance(first, at_blanks) else BREAK


def _reader(tokens: Tokens) -> Read:
    pieces = Pieces(tokens.tokenizer, (*tokens.prefix, *tokens.suffix))
    return lambda text: pieces.ids([text])[0]


def _end(text: str, room: int, read: Read) -> Line:
    """The end of a text that has at most `room` tokens, from the first word on."""
    ids = read(text)
    if len(ids) == room:
        return Line(text)
    starts = [word.start() for word in WORD.finditer(text)]
    place = bisect_left(starts, True, key=lambda at: len(read(text[at:])) <= room)
    found = text[starts[place] :] if place < len(starts) else ""
    return Line(found, read(found) == ids[len(ids) - room :])


def _start(text: str, room: int, read: Read) -> Line:
    """The start of a text that has at most `room` tokens, to the end of a word."""
    if len(read(text)) <= room:
        return Line(text)
    ends = [word.end() for word in WORD.finditer(text)]
    place = bisect_left(ends, True, key=lambda at: len(read(text[:at])) > room)
    return Line(text[: ends[place - 1]] if place else "", exact=False)


def _whole(text: str, other: str) -> str:
    """The text with another sign for every half of a character, which no tokenizer can read."""
    return re.sub("[\ud800-\udfff]", other, text)


def _from_parlai(tokens: ParlaiTokens, dialogue: Dialogue) -> Line:
    numbers = _Numbers(tokens.dictionary)
    (row,) = ParlaiTokens(numbers, tokens.style).contexts([dialogue])
    if not row:
        raise ConfigError(
            "an empty dialogue is no row at all for a ranker from ParlAI, and a string always is "
            "one; give it a message or a persona"
        )
    parts = [_end(*one, numbers.inner.encode) for one in numbers.texts(row[1:-1])]
    # blanks mean nothing to these dictionaries, and a line break stands for itself
    text = BLANK.join(part.text for part in parts).replace(" \n ", "\n")
    return Line(_whole(text, UNREADABLE), all(part.exact for part in parts))


class _Numbers(Dictionary):
    """Gives every token of every text a number, which shows what a row of them consists of."""

    def __init__(self, dictionary: Dictionary) -> None:
        self.inner = dictionary
        self.words = dictionary.words
        self.start, self.end, self.pad = -1, -2, -3
        self._given: list[tuple[str, int, int]] = []  # of a number: text, place in it, its size

    def encode(self, text: str) -> list[int]:
        size, first = len(self.inner.encode(text)), len(self._given)
        self._given += [(text, place, size) for place in range(size)]
        return [*range(first, first + size)]

    def texts(self, row: Sequence[int]) -> list[tuple[str, int]]:
        """Texts of a row in order, each with how many of its last tokens are there."""
        found: list[tuple[str, int]] = []
        before = -1
        for number in row:
            text, place, size = self._given[number]
            if place == 0 or number != before + 1:
                found.append((text, size - place))
            before = number
        return found
