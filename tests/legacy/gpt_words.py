"""How the first code cut text into GPT's tokens: slow, and written from its description alone."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence


def ids_of(text: str, words: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> list[int]:
    """Ids of a text; what is in no vocabulary is 0, which is <unk>."""
    rank = {pair: place for place, pair in enumerate(merges)}
    return [words.get(unit, 0) for word in basic(text) for unit in units(word, rank)]


def units(word: str, rank: Mapping[tuple[str, str], int]) -> list[str]:
    """Byte-pair encoding; the last letter carries the end of the word."""
    found = [*word[:-1], word[-1] + "</w>"]
    while len(found) > 1:
        best = min(zip(found, found[1:], strict=False), key=lambda pair: rank.get(pair, 1 << 30))
        if best not in rank:
            break
        joined: list[str] = []
        for unit in found:
            if joined and (joined[-1], unit) == best and joined[-1] is not None:
                joined[-1] = "".join(best)
                joined.append("")  # nothing may be joined with what has just been joined
            else:
                joined.append(unit)
        found = [unit for unit in joined if unit]
    return found


def basic(text: str) -> list[str]:
    """BERT's basic tokenizer: lower case without accents, cut at blanks and around points."""
    kept = []
    for letter in text:
        kind = unicodedata.category(letter)
        if letter in "\t\n\r" or kind == "Zs":
            kept.append(" ")
        elif letter in "\0\ufffd" or kind.startswith("C"):
            continue
        elif _chinese(ord(letter)):
            kept.append(f" {letter} ")
        else:
            kept.append(letter)
    words: list[str] = []
    for word in "".join(kept).split():
        plain = unicodedata.normalize("NFD", word.lower())
        piece = ""
        for letter in plain:
            if unicodedata.category(letter) == "Mn":
                continue
            if _point(letter):
                words += [piece, letter] if piece else [letter]
                piece = ""
            else:
                piece += letter
        words += [piece] if piece else []
    return words


def _point(letter: str) -> bool:
    ascii_point = 33 <= ord(letter) <= 126 and not letter.isalnum()
    return ascii_point or unicodedata.category(letter).startswith("P")


def _chinese(code: int) -> bool:
    blocks = [(0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F)]
    blocks += [(0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F)]
    return any(first <= code <= last for first, last in blocks)
