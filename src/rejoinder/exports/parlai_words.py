"""ParlAI's dictionary as a tokenizer of the library `tokenizers`, equal in every text.

A dictionary has `lib@@` and `rary`; there they are the symbols `lib` and `rary</w>` under the same
ids. What byte-pair codes make on the way, but no token is, gets an id behind the dictionary's own,
and means unknown there. Letters, digits and blanks are Python's, each one by its number, as other
libraries count some signs differently.

One thing differs: a Greek capital sigma at the end of a word, when no letter is right before it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from rejoinder.dictionary import END, Words
from rejoinder.errors import ConfigError

MORE = "@@"  # behind a piece that is not a word's last
FINAL_SIGMA = r"(?<=[\p{Lu}\p{Ll}\p{Lt}])Σ(?![\p{Lu}\p{Ll}\p{Lt}])"


def as_tokenizer(words: Words) -> Tokenizer:
    """The tokenizer of a dictionary, without start and end around a text.

    Raises ConfigError for a dictionary that the library cannot follow.
    """
    if words.kind == "space":
        raise _not_told("a dictionary of kind 'space' counts two blanks as a word between them")
    model = _pairs(words) if words.kind == "bpe" else _whole_words(words)
    tokenizer = Tokenizer(model)
    steps: list[normalizers.Normalizer] = []
    if words.lower:
        steps += [normalizers.Replace(Regex(FINAL_SIGMA), "ς"), normalizers.Lowercase()]
    if words.kind == "bpe":
        steps.append(normalizers.Replace("\n", " __newln__ "))
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(
        Regex(_pattern(words.kind)), behavior="removed", invert=True
    )
    tokenizer.add_special_tokens([_apart(token) for token in words.special if token])
    tokenizer.encode_special_tokens = True
    return tokenizer


def _pattern(kind: str) -> str:
    """What a word is."""
    letter, blank = _class(r"\w"), _class(r"\s")
    if kind == "split":
        return rf"[.,;:!?]|[^{blank}.,;:!?]+"
    line = r"|\n" if kind == "re" else ""
    return rf"[{letter}]+|[^{letter}{blank}]{line}"


@cache
def _class(kind: str) -> str:
    r"""The inside of a character class: all that Python's \w or \s is."""
    every = "".join(chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000)
    found = []
    for run in re.finditer(f"{kind}+", every):
        first, last = ord(run[0][0]), ord(run[0][-1])
        found.append(rf"\x{{{first:X}}}-\x{{{last:X}}}")
    return "".join(found)


def _apart(token: str) -> str:
    """What a special token is called: no text is cut into a word with a blank in it."""
    return f"< {token} >"


def _whole_words(words: Words) -> models.WordLevel:
    special = set(words.special)
    ids = {_apart(one) if one in special else one: i for i, one in enumerate(words.tokens)}
    return models.WordLevel(ids, unk_token=_apart(words.unknown))


def _pairs(words: Words) -> models.BPE:
    if words.version != "0.2":
        raise _not_told(f"byte-pair codes of version {words.version} end words another way")
    special = set(words.special)
    ids: dict[str, int] = {}
    for number, token in enumerate(words.tokens):
        if token in special:
            symbol = _apart(token)
        else:
            symbol = token.removesuffix(MORE) if token.endswith(MORE) else token + END
        if symbol in ids:
            raise _not_told(f"two of its tokens are the same symbol, {symbol!r}")
        ids[symbol] = number
    merges = list(dict.fromkeys(words.merges))  # of two the first one counts
    _check_order(merges)
    for left, right in merges:
        for symbol in (left, right, left + right):
            ids.setdefault(symbol, len(ids))
    return models.BPE(ids, merges, unk_token=_apart(words.unknown), end_of_word_suffix=END)


def _check_order(merges: Sequence[tuple[str, str]]) -> None:
    """Raise ConfigError where it matters that ParlAI joins a pair everywhere in a word at once.

    The library looks for the most urgent pair after every single join. That is the same as long as
    nothing that a join makes belongs to a more urgent pair, which learned codes do not have.
    """
    used: dict[str, int] = {}
    for place, pair in enumerate(merges):
        for symbol in pair:
            used.setdefault(symbol, place)
    for place, (left, right) in enumerate(merges):
        if used.get(left + right, place) < place:
            raise _not_told(f"its codes use {left + right!r} before {left!r} and {right!r} make it")


def _not_told(reason: str) -> ConfigError:
    return ConfigError(
        f"the dictionary has no like among the tokenizers of other libraries ({reason}); export to "
        "onnx, which takes token ids"
    )
