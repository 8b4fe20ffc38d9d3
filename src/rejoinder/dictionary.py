"""ParlAI's dictionary: text to token ids exactly as the models learned them.

Kinds of tokenizer: `bpe` (subword-nmt's codes over words and points), `re` (words and points),
`space` and `split`. Ids are those of the `.dict` file behind the special tokens (ParlAI's order).

User text never becomes a special token: a piece that is spelled like one is unknown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from rejoinder.config import fitted
from rejoinder.errors import CheckpointError, ConfigError

NAME = "dictionary.json"  # in a model's folder
PAIR = re.compile(r"\w+|[^\w\s]")
WORD_OR_LINE = re.compile(r"\w+|[^\w\s]|\n")
POINTS = re.compile(r"([.,;:!?])")
END = "</w>"
MOST_SEEN = 200_000  # words kept, of about 200 bytes each
Kind = Literal["bpe", "re", "space", "split"]


@dataclass(frozen=True, kw_only=True)
class Words:
    """What a dictionary consists of; ids are places in `tokens`."""

    tokens: Sequence[str]
    kind: Kind = "bpe"
    lower: bool = False
    null: str = "__null__"
    start: str = "__start__"
    end: str = "__end__"
    unknown: str = "__unk__"
    merges: Sequence[tuple[str, str]] = field(default=())
    """Of bpe, the most urgent first."""
    version: Literal["0.1", "0.2"] = "0.2"
    """Of the codes: 0.1 has the end of a word as a symbol of its own."""
    delimiter: str = "\n"
    """Stands between two messages."""
    split_lines: bool = False
    """Whether every line of a message counts as one of the history."""

    @property
    def special(self) -> tuple[str, ...]:
        """Tokens that no text may become."""
        padding = (one for one in self.tokens if one.lower().startswith("__fp16_pad_"))
        return (self.null, self.start, self.end, self.unknown, *padding)


class Dictionary:
    """Encodes text. Raises ConfigError for words that lack a special token or repeat one."""

    def __init__(self, words: Words) -> None:
        self.words = words
        self.ids = {token: i for i, token in enumerate(words.tokens)}
        if len(self.ids) < len(words.tokens):
            twice = next(t for i, t in enumerate(words.tokens) if self.ids[t] != i)
            raise ConfigError(f"the dictionary has {twice!r} twice; expected every token once")
        for name in (words.null, words.start, words.end, words.unknown):
            if name not in self.ids:
                raise ConfigError(
                    f"the dictionary has no {name}; expected it among its {len(self.ids)} tokens"
                )
        self.start, self.end = self.ids[words.start], self.ids[words.end]
        self.pad, self.unknown = self.ids[words.null], self.ids[words.unknown]
        special = set(words.special)
        self._known = {t: i for t, i in self.ids.items() if t not in special}
        self._rank: dict[tuple[str, str], int] = {}
        for place, pair in enumerate(words.merges):
            self._rank.setdefault(pair, place)  # the first one counts
        self._seen: dict[str, list[int]] = {}

    def __len__(self) -> int:
        return len(self.words.tokens)

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without start and end."""
        if len(self._seen) > MOST_SEEN:
            self._seen.clear()
        return [i for word in self._split(text) for i in self._of_word(word)]

    def _split(self, text: str) -> list[str]:
        text = text.lower() if self.words.lower else text
        if self.words.kind == "bpe":
            return PAIR.findall(text.replace("\n", " __newln__ "))
        if self.words.kind == "re":
            return WORD_OR_LINE.findall(text)
        if self.words.kind == "split":
            return POINTS.sub(r" \1 ", text).split()
        return text.strip().split(" ")

    def _of_word(self, word: str) -> list[int]:
        found = self._seen.get(word)
        if found is None:
            units = self._units(word) if self.words.kind == "bpe" else [word]
            found = [self._known.get(unit, self.unknown) for unit in units]
            self._seen[word] = found
        return found

    def _units(self, word: str) -> list[str]:
        """A word in pieces, all but the last one with @@ behind them."""
        pieces = merged(word, self._rank, self.words.version)
        return [*(f"{piece}@@" for piece in pieces[:-1]), pieces[-1]]


def merged(word: str, rank: Mapping[tuple[str, str], int], version: str) -> list[str]:
    """Byte-pair encoding of a word (Sennrich et al. 2016), as subword-nmt does it.

    Of all neighbours the most urgent pair is joined wherever it stands, from left to right, until
    no pair of the table is left. One letter stays as it is.
    """
    if len(word) < 2:
        return [word]
    letters = [*word[:-1], word[-1] + END] if version == "0.2" else [*word, END]
    while len(letters) > 1:
        pairs = {pair for pair in zip(letters, letters[1:], strict=False) if pair in rank}
        if not pairs:
            break
        left, right = min(pairs, key=rank.__getitem__)
        joined: list[str] = []
        i = 0
        while i < len(letters):
            if letters[i] == left and letters[i + 1 : i + 2] == [right]:
                joined.append(left + right)
                i += 2
            else:
                joined.append(letters[i])
                i += 1
        letters = joined
    if letters[-1] == END:
        return letters[:-1]
    return [*letters[:-1], letters[-1].removesuffix(END)]


def read_dictionary(file: Path, words: Words | None = None) -> list[str]:
    """Tokens of a ParlAI `.dict` file in the order of their ids: special ones first.

    `words` tells what the special ones are called. Raises CheckpointError if it cannot be read.
    """
    words = words or Words(tokens=())
    try:
        lines = file.read_bytes().decode("utf-8", "ignore")
    except OSError as error:
        raise CheckpointError(
            f"{file}: {error.strerror}; expected the model's dictionary, so put it there"
        ) from None
    found = dict.fromkeys((words.null, words.start, words.end, words.unknown))
    for number, line in enumerate(re.split(r"\r\n|\r|\n", lines), 1):
        token, tab, count = line.strip().partition("\t")
        if not token:
            continue
        if tab and not re.fullmatch(r"\s*\d+\s*", count):
            raise CheckpointError(
                f"{file}:{number}: {line[:60]!r}; expected a token, a tab and how often it was "
                "seen, so name the .dict file of a ParlAI model"
            )
        for mark, meant in (("\\n", "\n"), ("\\t", "\t"), ("\\r", "\r")):
            token = token.replace(mark, meant)
        found.setdefault(token.lower() if token in UPPER else token)
    return list(found)


UPPER = ("__NULL__", "__START__", "__END__", "__UNK__")  # of old files


def read_codes(file: Path) -> tuple[list[tuple[str, str]], Literal["0.1", "0.2"]]:
    """Merges of a `.dict.codecs` file, the most urgent first, and its version.

    Raises CheckpointError naming the line that is no merge.
    """
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise CheckpointError(
            f"{file}: {reason}; expected the model's BPE codes, so put them there"
        ) from None
    version: Literal["0.1", "0.2"] = "0.1"
    if lines[0].startswith("#version:"):
        told = lines[0].partition(":")[2].strip()
        if told not in ("0.1", "0.2"):
            raise CheckpointError(f"{file}:1: version {told!r}; expected 0.1 or 0.2")
        version = "0.1" if told == "0.1" else "0.2"
    merges = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or (number == 1 and line.startswith("#version:")):
            continue
        pair = line.strip("\r\n ").split(" ")
        if len(pair) != 2 or not all(pair):
            raise CheckpointError(
                f"{file}:{number}: {line[:60]!r}; expected two symbols with one blank between, so "
                "name the .dict.codecs file of a ParlAI model"
            )
        merges.append((pair[0], pair[1]))
    return merges, version


def load_words(folder: Path) -> Words:
    """The dictionary of a model's folder. Raises CheckpointError where it is broken."""
    file = folder / NAME
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        found = _checked(told)
        Dictionary(found)
        return found
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ConfigError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise CheckpointError(f"{file}: not a dictionary ({reason}); import it again") from None


def _checked(told: dict[str, Any]) -> Words:
    """Words out of plain JSON. Raises what goes wrong when a part has another type."""
    merges = [(left, right) for left, right in told.pop("merges")]
    tokens = told.pop("tokens")
    for one in (*tokens, *(symbol for pair in merges for symbol in pair)):
        if not isinstance(one, str):
            raise TypeError(f"{one!r} stands where a token is expected")
    rest = fitted(Words, told, "the dictionary")
    return Words(tokens=tokens, merges=merges, **rest)


def as_json(words: Words) -> str:
    """What `load_words` reads."""
    return json.dumps(asdict(words), ensure_ascii=False)
