"""Tiny generators of every family, and what it means that an exported one is the same."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rejoinder import generators
from rejoinder.config import GeneratorConfig
from rejoinder.decoding import Decoding
from rejoinder.exports.causal_card import PERSONA, SAID
from rejoinder.generator import TextGenerator
from rejoinder.models.generator import Rows
from rejoinder.models.pretrained import no_bars
from rejoinder.schema import Dialogue, Message
from rejoinder.text import TextFormat

STYLE = TextFormat(max_context=50, max_reply=14)  # what the tests' BERT has positions for
LONGER = TextFormat(max_context=80, max_reply=14)
LENGTH = 9
GREEDY = Decoding(greedy=True, max_length=LENGTH)
GPT = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 96}
LLAMA = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 24,
    "max_position_embeddings": 96,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt": ("OpenAIGPT", GPT),
    "gpt2": ("GPT2", GPT),
    "gpt2-inner": ("GPT2", GPT | {"n_inner": 24, "layer_norm_epsilon": 1e-3}),
    "gpt2-relu": ("GPT2", GPT | {"activation_function": "relu"}),
    "llama": ("Llama", LLAMA),
    "llama-tied": ("Llama", LLAMA | {"tie_word_embeddings": True}),
    "phi": ("Phi", LLAMA),  # whose scores have a bias, which a generator does not read
    "qwen": ("Qwen2", LLAMA),
    "granite": ("Granite", LLAMA | {"logits_scaling": 8.0}),
}
BECOMES = {
    "bert": "BertGenerationDecoder",
    "gpt": "OpenAIGPTLMHeadModel",
    "gpt2": "GPT2LMHeadModel",
    "gpt2-inner": "GPT2LMHeadModel",
    "gpt2-relu": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "llama-tied": "LlamaForCausalLM",
    "phi": "PhiForCausalLM",
}
TRAINED: dict[str, dict[str, Any]] = {
    "whole": {"lora": 0},
    "lora": {"lora": 4, "lora_alpha": 8},
    "words": {"lora": 4, "lora_alpha": 8, "words_rank": 3, "freeze_embeddings": True},
}
CHAT = (
    "{% for m in messages %}[CLS] {{ m.role }} {{ m.content }} [SEP] {% endfor %}"
    "{% if add_generation_prompt %}[CLS] assistant {% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT
)


def tiny(base: Path, place: Path, kind: str, more: int = 0, chat: str = "") -> Path:
    """A tiny language model of a family in `place`, as the hub gives it.

    base: that of the tests, whose tokenizer it gets. more: rows of word vectors without a token.
    """
    import transformers

    folder = place / f"{kind}-base"
    if kind == "bert":
        shutil.copytree(base, folder)
    else:
        name, sizes = FAMILIES[kind]
        size = json.loads((base / "config.json").read_text())["vocab_size"] + more
        config = getattr(transformers, f"{name}Config")(vocab_size=size, **sizes)
        torch.manual_seed(0)
        head = "LMHeadModel" if "GPT" in name else "ForCausalLM"
        model = getattr(transformers, name + head)(config)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.15 * torch.randn_like(weight))
        with no_bars():
            model.save_pretrained(folder)
        shutil.copy(base / "tokenizer.json", folder)
    if chat:
        told = {"bos_token": "[CLS]", "eos_token": "[SEP]", "chat_template": chat}
        (folder / "tokenizer_config.json").write_text(json.dumps(told))
    return folder


def stirred(
    base: Path, *, trained: str = "lora", style: TextFormat = STYLE, **settings: Any
) -> TextGenerator:
    config = GeneratorConfig(base=str(base), **TRAINED[trained], **settings)
    made = generators.fresh(config, style, trainable=True)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in made.module.parameters():
            if weight.requires_grad:
                weight.add_(0.15 * torch.randn_like(weight))
    return made


def loaded(folder: Path) -> tuple[Any, Any]:
    """Tokenizer and model as anybody would load them, with nothing missing or left over."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    load: Any = AutoModelForCausalLM.from_pretrained
    with no_bars():
        model, info = load(folder, output_loading_info=True)
    assert not any(info.values())
    assert not model.training
    return AutoTokenizer.from_pretrained(folder), model


def inputs(model: Any, made: TextGenerator, ids: Tensor, kind: str) -> dict[str, Tensor]:
    """A row as the card says that the model reads it."""
    speakers, types = made.module.speakers, made.module.types(ids)
    if speakers is None or types is None:
        return {"input_ids": ids}
    if kind in ("gpt", "gpt2", "gpt2-inner"):
        return {"input_ids": ids, "token_type_ids": types}
    table = model.get_input_embeddings()
    turned = table.weight[speakers[1]] - table.weight[speakers[0]]
    return {"inputs_embeds": table(ids) + (types == speakers[1])[..., None] * turned}


@torch.no_grad()
def assert_same_scores(
    model: Any, made: TextGenerator, dialogues: list[Dialogue], kind: str
) -> None:
    layout = made.layout
    for dialogue in dialogues:
        ids = torch.tensor([layout.context(dialogue) + layout.reply("i like tea and dogs .")])
        mask = torch.ones_like(ids, dtype=torch.bool)
        ours = made.module.next_tokens(made.module(Rows(ids, mask)))
        theirs = model(**inputs(model, made, ids, kind)).logits
        assert theirs.shape == ours.shape
        assert (theirs - ours).abs().max() <= 1e-5 * max(1.0, float(ours.abs().max()))


def assert_same_replies(
    model: Any, made: TextGenerator, dialogues: list[Dialogue], kind: str
) -> None:
    said = []
    for dialogue in dialogues:
        ids = torch.tensor([made.layout.context(dialogue)])
        given = inputs(model, made, ids, kind)
        found = model.generate(**given, max_new_tokens=LENGTH)[0].tolist()
        found = found if "inputs_embeds" in given else found[ids.shape[1] :]
        end = next((i for i, one in enumerate(found) if one in made.layout.stop), len(found))
        said.append(made.layout.text(found[:end]))
    assert said == made.write(dialogues, GREEDY)
    assert len(set(said)) > 1


def code_of(folder: Path) -> str:
    found = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert found
    return found[1]


def assert_card_runs(out: Path, made: TextGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The card's code lays its dialogue out as we do, and writes what we write."""
    monkeypatch.chdir(out.parent)
    names: dict[str, Any] = {}
    with no_bars():
        exec(compile(code_of(out), "README.md", "exec"), names)
    dialogue = Dialogue(tuple(Message(role, text) for role, text in SAID), PERSONA)
    ids = names["ids"][0].tolist() if "ids" in names else names["inputs"]["input_ids"][0].tolist()
    assert ids == made.layout.context(dialogue)
    written = names["written"].tolist()
    end = next((i for i, one in enumerate(written) if one in made.layout.stop), len(written))
    how = Decoding(greedy=True, max_length=made.layout.style.max_reply)
    assert [made.layout.text(written[:end])] == made.write([dialogue], how)
