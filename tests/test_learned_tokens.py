"""A tokenizer out of texts: the same every time, nothing unknown, no text that becomes special."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from rejoinder.errors import ConfigError
from rejoinder.learned_tokens import FRAME, LEAST, learn_tokens
from rejoinder.schema import Dialogue, Message
from rejoinder.text import TextFormat
from rejoinder.tokens import Tokens

TEXTS = [
    "> hello , do you like tea ?",
    "< i like tea and i like dogs .",
    "# i love dogs very much .",
]
MADE = learn_tokens(TEXTS * 3, 400)


def read(tokenizer: Tokenizer, text: str) -> str:
    """What is left of a text as ids, and their text again."""
    tokens = Tokens(tokenizer, TextFormat(user_mark="", max_context=10_000))
    (row,) = tokens.contexts([Dialogue((Message("user", text),))])
    assert (row[0], row[-1]) == (1, 2)
    assert {0, 1, 2}.isdisjoint(row[1:-1])
    decoded: str = tokenizer.decode(row[1:-1])
    return decoded


@given(st.text())
def test_every_text_can_be_read_back(text: str) -> None:
    expected = "".join(letter.lower() for letter in unicodedata.normalize("NFC", f" {text}"))
    assert read(MADE, text) == expected


@pytest.mark.parametrize("token", FRAME)
def test_text_that_looks_like_a_special_token_is_text(token: str) -> None:
    learned = learn_tokens([f"{token} {token}{token}"] * 50, 500)
    assert [learned.token_to_id(one) for one in FRAME] == [0, 1, 2]
    for tokenizer in (learned, MADE, Tokenizer.from_str(learned.to_str())):
        assert read(tokenizer, f"a {token}b") == f" a {token}b"


def test_a_lone_surrogate_is_learned_from_and_read_as_a_question_mark() -> None:
    assert read(learn_tokens(["half \ud800 a letter"] * 3), "\ud800") == " ?"


def test_the_order_of_texts_changes_nothing() -> None:
    chance = random.Random(0)
    words = ["".join(chance.choices("abcde", k=chance.randint(2, 7))) for _ in range(400)]
    texts = [" ".join(chance.choices(words, k=6)) for _ in range(300)]
    made = {learn_tokens(chance.sample(texts, len(texts)), 900).to_str() for _ in range(5)}
    assert len(made) == 1


def test_every_process_learns_the_same() -> None:
    code = (
        "from rejoinder.learned_tokens import learn_tokens\n"
        f"print(learn_tokens({TEXTS * 3!r}, 400).to_str())"
    )
    for seed in "12":
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": seed},
        )  # fmt: skip
        assert done.stdout.rstrip("\n") == MADE.to_str()


def test_a_size_is_the_most() -> None:
    assert learn_tokens(TEXTS * 3, LEAST + 5).get_vocab_size() == LEAST + 5
    assert learn_tokens([]).get_vocab_size() == LEAST
    once = learn_tokens(["zebra"])  # a word that comes once is not learned by heart
    assert once.get_vocab_size() == LEAST
    assert MADE.encode("> I LIKE tea").tokens == ["<start>", ">", "Ġi", "Ġlike", "Ġtea", "<end>"]


@pytest.mark.parametrize("size", [1, LEAST - 1])
def test_a_size_that_does_not_hold_all_bytes(size: int) -> None:
    with pytest.raises(ConfigError, match=f"vocabulary is {size}; expected at least 259, which"):
        learn_tokens(TEXTS, size)
