"""Blanks around apostrophes and points: as people write, and never taken back in a stream."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from rejoinder.spacing import forgets, joined, settled


@pytest.mark.parametrize(
    ("came", "expected"),
    [
        ("i ' m fine , i don ' t know .", "i'm fine, i don't know."),
        ("it ' s you ' re we ' ve they ' ll he ' d", "it's you're we've they'll he'd"),
        ("i 'm sure you do n't", "i'm sure you don't"),
        ("what ? no ! ok .", "what? no! ok."),
        ("so . . .", "so..."),
        ("the dogs ' tails", "the dogs ' tails"),
        ("she said ' maybe '", "she said ' maybe '"),
        ("o ' dream", "o ' dream"),
        ("' tis", "' tis"),
        ("", ""),
    ],
)
def test_joined(came: str, expected: str) -> None:
    assert joined(came) == expected
    assert joined(expected) == expected


@given(st.lists(st.sampled_from(["i", " '", "m", " m", " t", "ll", " re", " .", " ?", " so", "x"])))
def test_what_is_settled_is_never_taken_back(tokens: list[str]) -> None:
    prefixes = ["".join(tokens[:n]).strip() for n in range(len(tokens) + 1)]
    whole = joined(prefixes[-1])
    for prefix in prefixes:
        assert whole.startswith(settled(joined(prefix)))


def test_only_tokenizers_that_forget_are_mended() -> None:
    words = {"[UNK]": 0, "i": 1, "'": 2, "m": 3, "fine": 4, ".": 5, "you": 6, "?": 7}
    piece = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    piece.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    piece.decoder = decoders.WordPiece()
    assert forgets(piece)
    letters = {letter: i for i, letter in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    level = Tokenizer(models.BPE(letters, []))
    level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    level.decoder = decoders.ByteLevel()
    assert not forgets(level)
