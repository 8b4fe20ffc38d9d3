"""The folder of an exported generator: its tokens, its card, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer
from torch import nn

from rejoinder import generators
from rejoinder.config import GeneratorConfig
from rejoinder.errors import CheckpointError, ConfigError, RejoinderError
from rejoinder.exports.causal import export_causal
from rejoinder.generator import TextGenerator
from rejoinder.layouts import Speakers
from rejoinder.models.bert import Dropout
from rejoinder.models.causal import Causal
from rejoinder.models.gpt import Gpt, GptShape
from rejoinder.schema import Dialogue
from rejoinder.text import SPEAKERS
from rejoinder.tokens import read_tokenizer

from .causal_tiny import (
    GPT,
    STYLE,
    assert_card_runs,
    assert_same_replies,
    assert_same_scores,
    loaded,
    stirred,
    tiny,
)


@pytest.fixture
def base_of(base: Path, tmp_path: Path) -> Callable[..., Path]:
    """`base_of("gpt2", more=7)`"""
    return partial(tiny, base, tmp_path)


def of_its_own(kind: str, special: list[int], tokenizer: Tokenizer) -> TextGenerator:
    """A generator without a base, whose five tokens are among its own."""
    sizes: dict[str, Any] = {**GPT, "vocab_size": max(special) + 3}
    shape = GptShape(**sizes, norm_first=kind == "gpt2")
    torch.manual_seed(2)
    made = generators.fresh_native(
        GeneratorConfig(base="native", lora=0), shape, special, tokenizer, STYLE
    )
    with torch.no_grad():
        for weight in made.module.parameters():
            weight.add_(0.15 * torch.randn_like(weight))
    return made


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("kind", ["gpt", "gpt2"])
def test_tokens_may_be_the_model_s_own(
    kind: str,
    known: bool,
    base: Path,
    tmp_path: Path,
    dialogues: list[Dialogue],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokenizer = read_tokenizer(base / "tokenizer.json")
    size = tokenizer.get_vocab_size()
    texts = dict(zip(SPEAKERS, SPEAKERS, strict=True))
    order = ["<bos>", "<eos>", "<pad>", "<speaker1>", "<speaker2>"]  # as some were trained
    if known:
        texts = dict(zip(SPEAKERS, ["<s>", "</s>", "<me>", "<you>", "<nothing>"], strict=True))
        rows = [AddedToken(text, special=True) for text in ("<a>", *map(texts.get, order))]
        tokenizer.add_special_tokens(rows)
    special = [size + 1 + order.index(text) for text in SPEAKERS]
    made = of_its_own(kind, special, tokenizer)
    assert not len(made.module.added)
    assert export_causal(made, tmp_path / "out")["vocabulary"] == size + 8
    tokenizer, model = loaded(tmp_path / "out")
    assert tokenizer.convert_tokens_to_ids(list(texts.values())) == special
    named = [tokenizer.bos_token, tokenizer.eos_token, *tokenizer.extra_special_tokens]
    assert [*named, tokenizer.pad_token] == list(texts.values())
    assert_same_scores(model, made, dialogues, kind)
    assert_same_replies(model, made, dialogues, kind)
    assert_card_runs(tmp_path / "out", made, monkeypatch)
    assert "made on a model of its own" in (tmp_path / "out" / "README.md").read_text()


def test_rows_without_a_token_and_names_that_are_taken(
    base_of: Callable[..., Path], tmp_path: Path, dialogues: list[Dialogue]
) -> None:
    base = base_of("gpt2", more=8)
    tokenizer = read_tokenizer(base / "tokenizer.json")
    tokenizer.add_special_tokens([AddedToken("<bos>", special=True)])
    tokenizer.save(str(base / "tokenizer.json"))
    made = stirred(base)
    export_causal(made, tmp_path / "out")
    tokenizer, model = loaded(tmp_path / "out")
    size = len(made.module.words)
    assert (tokenizer.bos_token, tokenizer.bos_token_id) == ("<rejoinder bos>", size)
    assert tokenizer.convert_tokens_to_ids("<bos>") == size - 8
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<eos>", size + 1)
    assert_same_scores(model, made, dialogues, "gpt2")


def test_special_tokens_are_special_and_text_is_read_as_by_us(
    base_of: Callable[..., Path], tmp_path: Path
) -> None:
    made = stirred(base_of("gpt2"))
    export_causal(made, tmp_path / "out")
    tokenizer, model = loaded(tmp_path / "out")
    layout = made.layout
    assert isinstance(layout, Speakers)
    assert tokenizer("<speaker1>hi<eos>")["input_ids"] == [
        layout.assistant,
        *layout.pieces.ids(["hi"])[0],
        layout.eos,
    ]  # and nothing around it
    assert set(tokenizer("hi")) == {"input_ids", "attention_mask"}
    assert tokenizer.decode([layout.bos, layout.pad], skip_special_tokens=True) == ""
    text = "i like <speaker1> and [SEP] ."
    plain = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    assert plain == layout.pieces.ids([text])[0]
    assert layout.assistant not in plain
    assert tokenizer.model_max_length == 96
    for config in (model.config, model.generation_config):
        assert (config.bos_token_id, config.pad_token_id) == (layout.bos, layout.pad)
    assert model.config.eos_token_id == layout.eos
    assert set(model.generation_config.eos_token_id) == layout.stop
    assert model.generation_config.max_new_tokens == STYLE.max_reply


def test_the_card_says_where_it_is_from(base_of: Callable[..., Path], tmp_path: Path) -> None:
    base = base_of("bert")
    made = stirred(base)
    made.name, made.card = "mine", "# mine\n\nMade of tea. License: CC0.\n\nMore.\n"
    export_causal(made, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "the generator `mine`" in card
    assert f"made on the base `{base}`" in card
    assert card.endswith("## Licence\n\nMade of tea. License: CC0.\n")
    assert "The second head of the generator, which scores given replies, is left out" in card
    made.card = ""
    export_causal(made, tmp_path / "other")
    card = (tmp_path / "other" / "README.md").read_text()
    assert f"names none. That of its base, `{base}`, holds on" in card


def test_what_the_library_reads_otherwise_is_not_written(
    base_of: Callable[..., Path], tmp_path: Path
) -> None:
    made = stirred(base_of("granite"))  # whose scores are divided, which a generator does not do
    with pytest.raises(
        CheckpointError, match=r"scores of the library's GraniteForCausalLM are off"
    ):
        export_causal(made, tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["granite-base"]


def test_a_shape_that_the_library_does_not_have_is_refused(
    base_of: Callable[..., Path], tmp_path: Path
) -> None:
    made = stirred(base_of("gpt"), trained="whole")
    size = made.module.body.words.shape[0]
    sizes: dict[str, Any] = {**GPT, "vocab_size": size, "n_inner": 24}
    made.module.body = Causal(Gpt(GptShape(**sizes, norm_first=False), Dropout()).eval())
    with pytest.raises(ConfigError, match=r"OpenAIGPTLMHeadModel does not take .*; export a gen"):
        export_causal(made, tmp_path / "out")
    made.module.body.model = nn.Linear(2, 2)
    made.module.body.model.get_input_embeddings = lambda: nn.Embedding(size, 16)  # type: ignore
    with pytest.raises(ConfigError, match="a generator on Linear has no like in transformers"):
        export_causal(made, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_without_a_place_for_a_token_is_refused(base: Path, tmp_path: Path) -> None:
    told = json.loads((base / "tokenizer.json").read_text())
    hole = told["model"]["vocab"].pop("tea")
    tokenizer = Tokenizer.from_str(json.dumps(told))
    size = tokenizer.get_vocab_size() + 1
    made = of_its_own("gpt2", [hole, *range(size, size + 4)], tokenizer)
    with pytest.raises(CheckpointError, match=f"the tokenizer gives .* but the model's is {hole}"):
        export_causal(made, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_that_the_library_builds_anew_is_refused(
    base_of: Callable[..., Path], tmp_path: Path
) -> None:
    made = stirred(base_of("qwen"))  # always gets byte pairs, but here are pieces of words
    with pytest.raises(CheckpointError, match="not written"):
        export_causal(made, tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["qwen-base"]


def test_a_folder_that_is_not_empty_is_left_alone(
    base_of: Callable[..., Path], tmp_path: Path
) -> None:
    """A checkpoint has files of the same names as its export."""
    made = stirred(base_of("gpt2"))
    generators.save(made, tmp_path / "mine")
    before = (tmp_path / "mine" / "model.safetensors").read_bytes()
    with pytest.raises(RejoinderError, match=r"mine: is not empty; expected a new or empty folder"):
        export_causal(made, tmp_path / "mine")
    assert (tmp_path / "mine" / "model.safetensors").read_bytes() == before


def test_a_full_disk_leaves_nothing(
    base_of: Callable[..., Path],
    tmp_path: Path,
    full_disk: Callable[[int], AbstractContextManager[None]],
) -> None:
    made = stirred(base_of("gpt2"))
    with full_disk(2000), pytest.raises(RejoinderError, match="could not be written"):
        export_causal(made, tmp_path / "out")
    assert {file.name for file in tmp_path.iterdir()} == {"gpt2-base"}
