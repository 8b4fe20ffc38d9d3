"""Text to token ids: a thin hold on a `tokenizers` file, in which user text is only ever text.

The encoder's own first and last tokens (such as [CLS] and [SEP]) are added by us, never by parsing
text: a user who types "[SEP]" gets five ordinary characters, or nothing where the tokenizer's model
knows it as a word (SentencePiece's unigram models do).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tokenizers import Tokenizer

from rejoinder.errors import CheckpointError
from rejoinder.schema import Dialogue
from rejoinder.text import TextFormat, candidate_piece, fit, persona_pieces, turn_pieces

MOST_SEEN = 200_000  # pieces kept, of about 200 bytes each


class Rows(Protocol):
    """What turns contexts and candidates into rows of token ids, padded with `pad`."""

    style: TextFormat
    pad: int

    def contexts(self, dialogues: Sequence[Dialogue]) -> list[list[int]]:
        """Rows of at most `max_context` ids, one per dialogue."""

    def candidates(self, replies: Sequence[str]) -> list[list[int]]:
        """Rows of at most `max_reply` ids, one per reply."""

    def files(self) -> Mapping[str, str]:
        """What a model's folder has of it: name of a file -> text."""


class Pieces:
    """Texts to token ids that are never special ones. Pieces seen before are looked up.

    `never` are further ids that text may not become.
    """

    def __init__(self, tokenizer: Tokenizer, never: Iterable[int] = ()) -> None:
        self.tokenizer = _bare(tokenizer)
        self._never_text = {*never, *_special(tokenizer)}
        self._seen: dict[str, list[int]] = {}

    def ids(self, pieces: Sequence[str]) -> list[list[int]]:
        """The ids of every piece, in the order given."""
        if len(self._seen) > MOST_SEEN:
            self._seen.clear()
        new = list(dict.fromkeys(piece for piece in pieces if piece not in self._seen))
        try:
            encoded = self.tokenizer.encode_batch_fast(new, add_special_tokens=False)
        except TypeError:  # half a character (a lone surrogate), which a tokenizer cannot read
            whole = [piece.encode("utf-8", "replace").decode() for piece in new]
            encoded = self.tokenizer.encode_batch_fast(whole, add_special_tokens=False)
        self._seen.update(
            (piece, [i for i in one.ids if i not in self._never_text])
            for piece, one in zip(new, encoded, strict=True)
        )
        return [self._seen[piece] for piece in pieces]


class Tokens:
    """Turns contexts and candidates into rows of token ids under one text format."""

    def __init__(self, tokenizer: Tokenizer, style: TextFormat, pad: int = 0) -> None:
        self.tokenizer = _bare(tokenizer)
        self.style = style
        self.pad = pad
        self.prefix, self.suffix = _frame(tokenizer)
        self._pieces = Pieces(tokenizer, (*self.prefix, *self.suffix))

    @classmethod
    def from_file(cls, path: Path, style: TextFormat, pad: int = 0) -> Tokens:
        """With the tokenizer of a `tokenizer.json`."""
        return cls(read_tokenizer(path), style, pad)

    def files(self) -> Mapping[str, str]:
        """What a model's folder has of it: name of a file -> text."""
        return {"tokenizer.json": self.tokenizer.to_str()}

    def contexts(self, dialogues: Sequence[Dialogue]) -> list[list[int]]:
        """Rows of at most `max_context` ids, one per dialogue."""
        personas = [persona_pieces(dialogue, self.style) for dialogue in dialogues]
        turns = [turn_pieces(dialogue, self.style) for dialogue in dialogues]
        pieces = [piece for some in (*personas, *turns) for piece in some]
        known = dict(zip(pieces, self._pieces.ids(pieces), strict=True))
        room = self.style.max_context - len(self.prefix) - len(self.suffix)
        rows = []
        for about, said in zip(personas, turns, strict=True):
            ids = fit(
                [known[piece] for piece in about],
                [known[piece] for piece in said],
                room,
                self.style.keep,
            )
            rows.append([*self.prefix, *ids, *self.suffix])
        return rows

    def candidates(self, replies: Sequence[str]) -> list[list[int]]:
        """Rows of at most `max_reply` ids, one per reply; a long reply keeps its start."""
        pieces = [candidate_piece(reply, self.style) for reply in replies]
        room = self.style.max_reply - len(self.prefix) - len(self.suffix)
        found = self._pieces.ids(pieces)
        return [[*self.prefix, *ids[:room], *self.suffix] for ids in found]


def read_tokenizer(path: Path) -> Tokenizer:
    """Read a `tokenizer.json`. Raises CheckpointError where it cannot be read."""
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(
            f"{path}: not a readable tokenizer.json ({error}); fetch or save the model again"
        ) from None


def _bare(tokenizer: Tokenizer) -> Tokenizer:
    """The same, set to neither pad nor cut nor find special tokens in text."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True
    return tokenizer


def _special(tokenizer: Tokenizer) -> set[int]:
    """The ids of tokens like <pad> and <mask>; the one for unknown letters may come of text."""
    added = tokenizer.get_added_tokens_decoder()
    return {i for i, one in added.items() if one.special and "unk" not in one.content.lower()}


def _frame(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer itself puts before and after a text."""
    bare = tokenizer.encode("a", add_special_tokens=False).ids
    framed = tokenizer.encode("a", add_special_tokens=True).ids
    at = next((i for i in range(len(framed)) if framed[i : i + len(bare)] == bare), 0)
    return framed[:at], framed[at + len(bare) :]
