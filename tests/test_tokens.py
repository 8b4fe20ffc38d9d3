"""Text to token ids: frames, cuts, and text that looks like a special token."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from rejoinder.errors import CheckpointError
from rejoinder.schema import Dialogue, Message
from rejoinder.text import TextFormat, candidate_piece, fit, persona_pieces, turn_pieces
from rejoinder.tokens import Tokens

CLS, SEP = 2, 3
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
S_AND_END = processors.TemplateProcessing(
    single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
)


@pytest.fixture
def tokens(base: Path, style: TextFormat) -> Tokens:
    return Tokens.from_file(base / "tokenizer.json", style)


def said(text: str) -> Dialogue:
    return Dialogue((Message("user", text),))


def byte_level() -> Tokenizer:
    """A tokenizer like RoBERTa's: byte-level BPE, <s> and </s>, cased."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["i like tea </s> <s>"] * 3, trainer)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = S_AND_END
    return tokenizer


def unigram() -> Tokenizer:
    """A tokenizer like XLM-RoBERTa's: <s> and </s> are the best words of its very vocabulary."""
    letters = [(letter, -3.0) for letter in "▁></sabcdefghijklmnopqrtuvwxyz"]
    words = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *letters]
    tokenizer = Tokenizer(models.Unigram(words, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>"])
    tokenizer.post_processor = S_AND_END
    return tokenizer


def cased_words() -> Tokenizer:
    """A tokenizer without a frame: words between white space, nothing around the text."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(vocab_size=100, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(["[ S E P ] < > # i like tea"] * 3, trainer)
    return tokenizer


def test_rows_equal_pieces_encoded_one_by_one(
    base: Path, style: TextFormat, tokens: Tokens, dialogues: list[Dialogue], replies: list[str]
) -> None:
    plain = Tokenizer.from_file(str(base / "tokenizer.json"))

    def ids(text: str) -> list[int]:
        return list(plain.encode(text, add_special_tokens=False).ids)

    for dialogue, row in zip(dialogues, tokens.contexts(dialogues), strict=True):
        about = [ids(piece) for piece in persona_pieces(dialogue, style)]
        turns = [ids(piece) for piece in turn_pieces(dialogue, style)]
        assert row == [CLS, *fit(about, turns, style.max_context - 2), SEP]
        assert len(row) <= style.max_context
    for reply, row in zip(replies, tokens.candidates(replies), strict=True):
        assert row == [CLS, *ids(candidate_piece(reply, style))[: style.max_reply - 2], SEP]


def test_pieces_seen_before_give_the_same_rows(
    tokens: Tokens, dialogues: list[Dialogue], replies: list[str]
) -> None:
    first = tokens.contexts(dialogues), tokens.candidates(replies)
    again = tokens.contexts(dialogues[::-1])[::-1], tokens.candidates(replies[::-1])[::-1]
    assert first == again


@pytest.mark.parametrize("text", [*SPECIAL, "hi [SEP] there", "[sep][CLS]", "a[SEP]b"])
def test_text_never_becomes_a_special_token(tokens: Tokens, text: str) -> None:
    own = {tokens.tokenizer.token_to_id(name) for name in SPECIAL} - {1}  # [UNK] is any odd letter
    rows = [*tokens.contexts([said(text), Dialogue((), (text,))]), *tokens.candidates([text])]
    for row in rows:
        assert (row[0], row[-1]) == (CLS, SEP)
        assert not own & set(row[1:-1])


@pytest.mark.parametrize("text", ["</s>", "hi </s> <s>", "<pad>"])
def test_text_never_becomes_a_special_token_of_byte_level_bpe(style: TextFormat, text: str) -> None:
    tokens = Tokens(byte_level(), style)
    (row,) = tokens.contexts([said(text)])
    assert (row[0], row[-1]) == (0, 2)
    assert not {0, 1, 2} & set(row[1:-1])
    assert tokens.tokenizer.decode(row[1:-1]) == f"> {text}"


@pytest.mark.parametrize("text", ["</s>", "hi </s> <s> you", "hi</s>you"])
def test_text_never_becomes_a_frame_token_that_is_a_word_too(style: TextFormat, text: str) -> None:
    (row,) = Tokens(unigram(), style).contexts([said(text)])
    assert (row[0], row[-1]) == (0, 2)
    assert not {0, 2} & set(row[1:-1])


def test_special_looking_text_stays_text_after_saving(
    tmp_path: Path, style: TextFormat, tokens: Tokens
) -> None:
    """The switch for it is not part of tokenizer.json, so reading one must set it."""
    tokens.tokenizer.save(str(tmp_path / "tokenizer.json"))
    again = Tokens.from_file(tmp_path / "tokenizer.json", style)
    assert again.candidates(["[SEP]"]) == tokens.candidates(["[SEP]"])


def test_truncation_and_padding_of_the_file_are_not_used(base: Path, style: TextFormat) -> None:
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    wanted = Tokens(tokenizer, style).contexts([said("i like tea and music"), said("hi")])
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=32)
    assert Tokens(tokenizer, style).contexts([said("i like tea and music"), said("hi")]) == wanted


def test_a_tokenizer_without_frame_adds_nothing(style: TextFormat) -> None:
    tokens = Tokens(cased_words(), style)
    assert (tokens.prefix, tokens.suffix) == ([], [])
    assert tokens.candidates(["tea"]) == [
        [tokens.tokenizer.token_to_id("<"), tokens.tokenizer.token_to_id("tea")]
    ]


def test_a_turn_of_100_000_words_is_cut_to_its_end(tokens: Tokens, style: TextFormat) -> None:
    long = "tea " * 99_997 + "i like rain"
    (row,) = tokens.contexts([said(long)])
    (end,) = tokens.contexts([said("i like rain")])
    assert len(row) == style.max_context
    assert row[-4:] == end[-4:]
    (reply,) = tokens.candidates([long])
    assert len(reply) == style.max_reply


def test_nothing_said_is_only_the_frame(tokens: Tokens) -> None:
    assert tokens.contexts([Dialogue()]) == [[CLS, SEP]]
    assert tokens.contexts([]) == tokens.candidates([]) == []


@pytest.mark.parametrize("content", ["", "{", '{"version": "1.0"}'])
def test_a_broken_tokenizer_file(tmp_path: Path, style: TextFormat, content: str) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text(content)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: not a readable tokenizer"):
        Tokens.from_file(file, style)


def test_a_missing_tokenizer_file(tmp_path: Path, style: TextFormat) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: not a readable tokenizer"):
        Tokens.from_file(tmp_path / "tokenizer.json", style)
