"""Tokenizers that know many scripts: marks, padding, and text that stays what it was."""

from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from rejoinder import checkpoint
from rejoinder.config import ModelConfig
from rejoinder.data import read
from rejoinder.schema import Dialogue, Message
from rejoinder.text import TextFormat, candidate_piece
from rejoinder.tokens import Tokens

from .corpus import LANGUAGES, SPECIAL, dialogues_of, texts

STYLE = TextFormat(max_context=112, max_reply=48)
START, PAD, END, UNKNOWN = range(4)


@pytest.fixture(scope="module")
def tokens(multilingual_base: Path) -> Tokens:
    return Tokens.from_file(multilingual_base / "tokenizer.json", STYLE, PAD)


def said(text: str) -> Dialogue:
    return Dialogue((Message("user", text),))


def test_the_special_tokens_are_where_xlm_r_has_them(tokens: Tokens) -> None:
    assert [tokens.tokenizer.token_to_id(name) for name in SPECIAL] == [START, PAD, END, UNKNOWN]
    assert (tokens.prefix, tokens.suffix) == ([START], [END])


def test_every_speaker_has_a_mark_of_its_own(tokens: Tokens) -> None:
    marks = [STYLE.persona_mark, STYLE.user_mark, STYLE.assistant_mark, STYLE.system_mark]
    ids = [tuple(tokens.tokenizer.encode(mark, add_special_tokens=False).ids) for mark in marks]
    assert len(set(ids)) == 4
    assert not {UNKNOWN} & {i for row in ids for i in row}


def test_no_text_of_the_dialogues_is_unknown_or_special(tokens: Tokens) -> None:
    for row, text in zip(tokens.candidates(texts()), texts(), strict=True):
        assert (row[0], row[-1]) == (START, END)
        assert not {START, PAD, END, UNKNOWN} & set(row[1:-1])
        whole = Tokens(tokens.tokenizer, TextFormat(max_reply=400)).candidates([text])[0]
        read_back = tokens.tokenizer.decode(whole).replace("▁", " ").replace(" ", "")
        expected = unicodedata.normalize("NFKC", candidate_piece(text, STYLE)).replace(" ", "")
        assert read_back == expected


@pytest.mark.parametrize("text", ["<pad>", "a <mask> b", "<s> hola </s>", "<unk>"])
def test_what_looks_special_is_only_text(tokens: Tokens, text: str) -> None:
    mask = tokens.tokenizer.token_to_id("<mask>")
    (row,) = tokens.contexts([said(text)])
    assert not {START, PAD, END, mask} & set(row[1:-1])


def test_letters_that_nobody_knows_are_kept_as_such(tokens: Tokens) -> None:
    (row,) = tokens.contexts([said("ሰላም")])
    assert UNKNOWN in row


def test_composed_and_decomposed_text_have_the_same_tokens(tokens: Tokens) -> None:
    decomposed = [unicodedata.normalize("NFD", text) for text in texts()]
    assert decomposed != texts()
    assert tokens.candidates(decomposed) == tokens.candidates(texts())


def test_bytes_give_every_character_back() -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<s>", "<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    tokens = Tokens(tokenizer, TextFormat(max_reply=600), PAD)
    strange = ["👨‍👩‍👧 cafe\u0301 caf\u00e9", "می\u200cخواهم", "ሰላም ที่"]
    for text in [*texts(), *strange]:
        (row,) = tokens.candidates([text])
        assert tokens.tokenizer.decode(row) == f"< {text}"


def test_the_number_of_the_padding_is_kept_and_changes_no_score(
    multilingual_base: Path, tmp_path: Path
) -> None:
    """Some bases name another one in config.json than their tokenizer has."""
    other = shutil.copytree(multilingual_base, tmp_path / "other")
    config = json.loads((other / "config.json").read_text(encoding="utf-8"))
    (other / "config.json").write_text(json.dumps({**config, "pad_token_id": 0}), encoding="utf-8")
    dialogues = [next(iter(read(dialogues_of(language)))) for language in LANGUAGES]
    lists = [["はい。", "¡Claro que sí, cómo no!", "نعم"]] * 3
    scores = []
    for folder, pad in ((multilingual_base, 1), (other, 0)):
        torch.manual_seed(0)
        ranker = checkpoint.fresh(ModelConfig(kind="bi", base=str(folder), lora=0), STYLE)
        checkpoint.save(ranker, tmp_path / f"saved-{pad}")
        again = checkpoint.load(tmp_path / f"saved-{pad}")
        assert ranker.tokens.pad == again.tokens.pad == pad
        scores.append(torch.stack(ranker.score_many(dialogues, lists)))
        assert torch.equal(torch.stack(again.score_many(dialogues, lists)), scores[-1])
    assert torch.equal(*scores)
    assert scores[0].unique().numel() == 9
