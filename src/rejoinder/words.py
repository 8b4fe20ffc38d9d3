"""Words of a text in any language, and when two texts are the same.

Plain ASCII text has the words that ParlAI counts. Other text goes by Unicode 14 or later: composed
and decomposed letters, full-width and half-width forms are alike, case is folded, punctuation of
every script parts words, and what shows nothing (joiners, direction marks) does not count. Scripts
that put no spaces between words give single characters, each with the marks on it, as the
evaluations of MLQA (Lewis et al. 2020, arXiv:1910.07475) and MKQA (Longpre et al. 2021,
arXiv:2007.15207) do; words of other scripts between them stay whole.

No language is known or guessed: *a*, *an* and *the* go from every text, articles of other languages
stay, and a Turkish dotless ı is no i.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache

ARTICLES = frozenset({"a", "an", "the"})
_PUNCTUATION = str.maketrans(dict.fromkeys("!\"#$%&()*+,-./:;<=>?@[]\\^`{|}~_'", " "))
_ARTICLES = re.compile(r"\b(a|an|the)\b")

# Scripts without spaces between words: line breaking classes SA, ID and CJ of UAX #14, by block.
SPACELESS = (
    "\u0e01-\u0e4f\u0e5a-\u0ecf\u0edc-\u0eff"  # Thai, Lao, but not their digits
    "\u1000-\u103f\u1050-\u108f\u109a-\u109f\uaa60-\uaa7f"  # Burmese, likewise
    "\u1780-\u17df\u1950-\u19cf\u1a20-\u1a7f\u1aa0-\u1aaf\uaa80-\uaadf"  # Khmer, Tai
    "\u3005-\u3007\u3021-\u3029\u3041-\u30ff\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\uf900-\ufaff"  # Chinese characters, Yi
    "\U0001aff0-\U0001b16f\U00020000-\U0003ffff"
)
LAST_MARK = 0x1FFFF  # behind it only selectors of variants, which show nothing
SHOWS_NOTHING = (
    "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef"
)
_SPACELESS = re.compile(f"[{SPACELESS}]")
_NO_LETTER_BEFORE = f"(?<![^\\W{SPACELESS}])(?<!(?![{SPACELESS}])[{{marks}}])"
_NOTHING = re.compile(f"[{SHOWS_NOTHING}]")


def words(text: str) -> list[str]:
    """Words as ParlAI counts them: lower case, punctuation to spaces, no articles."""
    if text.isascii():
        return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()
    return [word for word in _all_words(text) if word not in ARTICLES]


def folded(text: str) -> str:
    """A text as a listener knows it again: its words with single spaces, articles included.

    A text without any word, such as "?!", is itself.
    """
    return " ".join(_all_words(text)) or text.strip()


def caseless(text: str) -> str:
    """A text by which equal ones are found, whatever their case and the form of their letters."""
    if text.isascii():
        return text.strip().lower()
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return unicodedata.normalize("NFC", folded.replace("i\u0307", "i")).strip()  # of İ


def composed(text: str) -> str:
    """A text by which those that look the same are found: NFC, nothing else."""
    return unicodedata.normalize("NFC", text)


def written(text: str) -> list[str]:
    """The words of a text as they are written, punctuation included: to count and cut them."""
    return text.split() if text.isascii() else _words_pattern().findall(text)


def _all_words(text: str) -> list[str]:
    text = "".join(map(_word_sign, unicodedata.normalize("NFC", text)))
    text = caseless(unicodedata.normalize("NFKC", text))
    text = "".join(map(_word_sign, unicodedata.normalize("NFKC", text)))  # ... from one …
    return _words_pattern().findall(text)


@cache
def _word_sign(sign: str) -> str:
    """What a character is in a word: itself, a digit, nothing, or a space for what parts words."""
    kind = unicodedata.category(sign)
    if sign.isascii():
        return sign.translate(_PUNCTUATION)
    if kind == "Nd":
        return str(unicodedata.decimal(sign))
    if sign == "\u200b" or kind in {"Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "Sc", "Sk", "Sm"}:
        return " "
    if kind == "Cf" or _NOTHING.match(sign):
        return ""
    return f" {sign} " if kind == "So" else sign  # emoji and their like are words


def any_of(found: Iterable[str]) -> re.Pattern[str]:
    """An expression for texts made `caseless` that finds these as whole words.

    Whole is what no letter goes on before or behind; in scripts without spaces a word may stand
    anywhere, as long as no mark changes its last letter.
    """
    by_edges: dict[tuple[str, str], list[str]] = {}
    for word in map(caseless, found):
        left = "" if _SPACELESS.match(word[0]) else _NO_LETTER_BEFORE.format(marks=marks())
        right = "" if _SPACELESS.match(word[-1]) else f"(?![^\\W{SPACELESS}])"
        by_edges.setdefault((left, right), []).append(re.escape(word))
    return re.compile(
        "|".join(
            f"{left}(?:{'|'.join(group)})(?![{marks()}]){right}"
            for (left, right), group in by_edges.items()
        )
    )


@cache
def marks() -> str:
    """All combining marks as ranges for the [] of an expression: re has no class for them."""
    found = [
        place for place in range(0x300, LAST_MARK + 1) if unicodedata.category(chr(place))[0] == "M"
    ]
    first = [place for place in found if unicodedata.category(chr(place - 1))[0] != "M"]
    last = [place for place in found if unicodedata.category(chr(place + 1))[0] != "M"]
    return "".join(f"{chr(one)}-{chr(other)}" for one, other in zip(first, last, strict=True))


@cache
def _words_pattern() -> re.Pattern[str]:
    return re.compile(rf"[{SPACELESS}][{marks()}]*|[^\s{SPACELESS}]+")
