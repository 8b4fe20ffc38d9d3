"""Blanks that a tokenizer puts around apostrophes and before points, and how they go again.

WordPiece and the first GPT's tokenizer forget where words were joined: what they decode reads
`i don ' t know . do you ?`. Byte-level tokenizers forget nothing, so their text stays as it is.
"""

from __future__ import annotations

import re

from tokenizers import Tokenizer

PROBE = "i'm fine. you?"
SHORTENED = re.compile(r"(?<=\w) ' ?(?=(?:s|m|t|d|re|ve|ll)\b)")
TWO_IN_ONE = re.compile(r"(?<=\w) (?=n't\b)")  # a token of the first GPT
POINT = re.compile(r" +(?=[.,!?])")
OPEN = re.compile(r" '? ?\w{0,2}$")  # may be joined with what comes next: "i ' d" or "i ' dream"


def forgets(tokenizer: Tokenizer) -> bool:
    """Whether what the tokenizer decodes has blanks that its text had not."""
    return tokenizer.decode(tokenizer.encode(PROBE, add_special_tokens=False).ids) != PROBE


def joined(text: str) -> str:
    """`i don ' t know . do you ?` -> `i don't know. do you?`"""
    return TWO_IN_ONE.sub("", SHORTENED.sub("'", POINT.sub("", text)))


def settled(text: str) -> str:
    """The start of a text that stays as it is when more is written behind it."""
    last = text.rfind("'")
    if last < 0 or len(text) - last > 4:
        return text
    return text[:last].rstrip()
