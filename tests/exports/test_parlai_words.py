"""ParlAI's dictionary as a tokenizer of the library gives the same ids for every text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from rejoinder.dictionary import Dictionary, Words
from rejoinder.errors import ConfigError
from rejoinder.exports.parlai_words import as_tokenizer
from rejoinder.parlai_text import ParlaiTokens

from .made import imported

PARTS = ["library", "i", "am", "fine", "coffee", "READING", "two", ".", "?!", "\n", " ", "@@", "_"]
PARTS += [
    "__start__",
    "< __start__ >",
    "<__start__>",
    "__null__",
    "__newln__",
    "</w>",
    "don't",
    "², ½",
    "é",
    "ẞ İ",
]
TEXTS = st.one_of(
    st.lists(st.sampled_from(PARTS)).map("".join),
    st.text(),
    st.text("abcdeilnoRTY .,\n\t\x1c\u0301\u0903_0²"),
)
Made = Callable[[str, bool], tuple[Dictionary, Tokenizer]]


@pytest.fixture(scope="module")
def made() -> Made:
    @cache
    def one(kind: str, lower: bool) -> tuple[Dictionary, Tokenizer]:
        tokens = imported(dict_tokenizer=kind, dict_lower=lower, fp16=lower).tokens
        assert isinstance(tokens, ParlaiTokens)
        return tokens.dictionary, as_tokenizer(tokens.dictionary.words)

    return one


def ids(dictionary: Dictionary, tokenizer: Tokenizer, text: str) -> list[int]:
    found = tokenizer.encode(text, add_special_tokens=False).ids
    return [i if i < len(dictionary) else dictionary.unknown for i in found]


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("kind", ["bpe", "re", "split"])
@settings(max_examples=300)
@given(text=TEXTS)
def test_ids_are_the_dictionarys(made: Made, kind: str, lower: bool, text: str) -> None:
    dictionary, tokenizer = made(kind, lower)
    assert ids(dictionary, tokenizer, text) == dictionary.encode(text)


def words(*merges: tuple[str, str], version: Literal["0.1", "0.2"] = "0.2") -> Words:
    """A dictionary of all that letters and these codes can become."""
    pieces = {symbol for left, right in merges for symbol in (left, right, left + right)}
    inner = {f"{piece}@@" for piece in {*pieces, *"abc"} if not piece.endswith("</w>")}
    last = {piece.removesuffix("</w>") for piece in pieces if piece.endswith("</w>")}
    special = ["__null__", "__start__", "__end__", "__unk__"]
    tokens = [*special, *sorted(inner), *sorted({*last, *"abc"})]
    return Words(tokens=tokens, merges=merges, version=version)


@settings(max_examples=300)
@given(
    merges=st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "ab", "ba", "aa", "aba"]),
            st.sampled_from(["a", "b", "ab", "aa", "a</w>", "ab</w>"]),
        ),
        max_size=6,
    ),
    text=st.text("ab ", max_size=30),
)
def test_any_codes_are_followed_or_refused(merges: list[tuple[str, str]], text: str) -> None:
    dictionary = Dictionary(words(*merges))
    try:
        tokenizer = as_tokenizer(dictionary.words)
    except ConfigError:
        return
    assert ids(dictionary, tokenizer, text) == dictionary.encode(text)


def test_codes_that_use_what_they_make_later_are_refused() -> None:
    late = (("ab", "ab"), ("b", "ab"), ("a", "b"))
    with pytest.raises(ConfigError, match="use 'ab' before 'a' and 'b' make it"):
        as_tokenizer(words(*late))


@pytest.mark.parametrize(
    ("given_words", "reason"),
    [
        (words(version="0.1"), "version 0.1"),
        (replace(words(), kind="space"), "two blanks"),
        (replace(words(), tokens=[*words().tokens, "x</w>@@", "x"]), "the same symbol"),
    ],
)
def test_what_the_library_cannot_follow_is_refused(given_words: Words, reason: str) -> None:
    with pytest.raises(ConfigError, match=f"{reason}.*export to onnx"):
        as_tokenizer(given_words)


@pytest.mark.parametrize("text", ["ΟΔΟΣ", "Σ", "ΣΑΣ ΣΑΣ", "1Σ", "ΑΣΒ ΑΣ.", "σΣ"])
def test_a_greek_sigma_is_lowered_as_its_place_wants(text: str) -> None:
    tokens = ["__null__", "__start__", "__end__", "__unk__", *"αβγδοσς1."]
    dictionary = Dictionary(Words(tokens=tokens, kind="bpe", lower=True, merges=()))
    letters = Dictionary(
        Words(tokens=[*tokens, *(f"{one}@@" for one in "αβγδοσς1")], kind="bpe", lower=True)
    )
    for one in (dictionary, letters):
        assert ids(one, as_tokenizer(one.words), text) == one.encode(text)
