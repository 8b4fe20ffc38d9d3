"""Folders of generators: the same after saving, adapters apart or merged, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.testing import assert_close

from rejoinder import generators
from rejoinder.config import GeneratorConfig
from rejoinder.decoding import Decoding
from rejoinder.errors import CheckpointError, ConfigError
from rejoinder.generator import TextGenerator
from rejoinder.schema import Dialogue
from rejoinder.text import TextFormat

STYLE = TextFormat(max_context=40, max_reply=14)
GREEDY = Decoding(greedy=True, max_length=8)
SIZES = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
LLAMA = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
}
FAMILIES = {"GPT2": ("GPT2LMHeadModel", SIZES), "OpenAIGPT": ("OpenAIGPTLMHeadModel", SIZES)}
FAMILIES |= {"Llama": ("LlamaForCausalLM", LLAMA), "Qwen2": ("Qwen2ForCausalLM", LLAMA)}
CHAT = (
    "{% for m in messages %}[CLS] {{ m.role }} {{ m.content }} [SEP] {% endfor %}"
    "{% if add_generation_prompt %}[CLS] assistant {% endif %}"
)


@pytest.fixture(params=[*FAMILIES, "Bert"])
def any_base(request: pytest.FixtureRequest, base: Path, tmp_path: Path) -> Path:
    """A tiny language model of each shape with the tokenizer of the tests, as the hub gives it."""
    if request.param == "Bert":
        return base
    import transformers

    name, sizes = FAMILIES[request.param]
    size = json.loads((base / "config.json").read_text())["vocab_size"]
    config = getattr(transformers, f"{request.param}Config")(vocab_size=size, **sizes)
    torch.manual_seed(0)
    model = getattr(transformers, name)(config)
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.3)
    folder: Path = tmp_path / request.param
    model.save_pretrained(folder)
    shutil.copy(base / "tokenizer.json", folder)
    return folder


def stirred(base: Path, **settings: Any) -> TextGenerator:
    config = GeneratorConfig(base=str(base), **{"lora": 4, "lora_alpha": 8, **settings})
    made = generators.fresh(config, STYLE, trainable=True)
    torch.manual_seed(1)
    for weight in made.module.parameters():
        if weight.requires_grad:
            nn.init.normal_(weight, std=0.3)
    return made


def test_a_folder_gives_the_same_scores_and_replies(
    any_base: Path, tmp_path: Path, dialogues: list[Dialogue], replies: list[str]
) -> None:
    made = stirred(any_base)
    lists = [replies] * len(dialogues)
    before = torch.stack(made.score_many(dialogues, lists))
    said = made.write(dialogues, GREEDY)
    generators.save(made, tmp_path / "out", card="# mine\n", training={"step": 3})
    files = {file.name for file in (tmp_path / "out").iterdir()}
    assert files == {"config.json", "model.safetensors", "tokenizer.json", "README.md"}
    for trainable in (True, False):
        again = generators.load(tmp_path / "out", trainable=trainable)
        assert (again.card, again.training, again.name) == ("# mine\n", {"step": 3}, "out")
        after = torch.stack(again.score_many(dialogues, lists))
        assert_close(after, before, rtol=1e-4, atol=1e-4)
        assert again.write(dialogues, GREEDY) == said
        learned = [name for name, p in again.module.named_parameters() if p.requires_grad]
        assert any("lora" in name for name in learned) == trainable
    generators.save(again, tmp_path / "again")
    files_of = [load_file(tmp_path / name / "model.safetensors") for name in ("out", "again")]
    assert files_of[0].keys() == files_of[1].keys()
    assert all(files_of[0][name].equal(files_of[1][name]) for name in files_of[0])


def test_adapters_and_what_is_our_own_are_saved_and_nothing_else(
    any_base: Path, tmp_path: Path
) -> None:
    generators.save(stirred(any_base), tmp_path / "out", dtype=torch.float16)
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert {w.dtype for w in weights.values()} == {torch.float16}
    own = {"added", "choice.weight", "choice.bias"}
    assert own < set(weights)
    assert all(".lora_" in name for name in set(weights) - own)


def test_without_adapters_all_weights_are_saved(base: Path, tmp_path: Path) -> None:
    made = stirred(base, lora=0)
    generators.save(made, tmp_path / "out")
    again = generators.load(tmp_path / "out")
    for name, tensor in made.module.state_dict().items():
        assert again.module.state_dict()[name].equal(tensor)


@pytest.fixture
def with_template(base: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "chat"
    shutil.copytree(base, folder)
    told = {"bos_token": "[CLS]", "eos_token": {"content": "[SEP]"}, "chat_template": CHAT}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    return folder


@pytest.mark.parametrize("separate", [True, False])
def test_a_chat_template_goes_with_the_model(
    with_template: Path, tmp_path: Path, dialogues: list[Dialogue], separate: bool
) -> None:
    if separate:
        (with_template / "chat_template.jinja").write_text(CHAT)
    made = stirred(with_template, layout="template")
    assert not len(made.module.added)
    generators.save(made, tmp_path / "out")
    config = json.loads((with_template / "tokenizer_config.json").read_text())
    del config["chat_template"]
    (with_template / "tokenizer_config.json").write_text(json.dumps(config))
    (with_template / "chat_template.jinja").unlink(missing_ok=True)
    again = generators.load(tmp_path / "out")
    contexts = again.layout.contexts(dialogues)
    assert contexts == made.layout.contexts(dialogues)
    start = again.layout.tokenizer.token_to_id("[CLS]")
    assert all(context[0] == start for context in contexts)
    assert again.write(dialogues, GREEDY) == made.write(dialogues, GREEDY)
    with pytest.raises(ConfigError, match="has no chat template; take layout = speakers, or an"):
        stirred(with_template, layout="template")


def spoil(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = folder / "config.json"
    settings = json.loads(file.read_text())
    change(settings)
    file.write_text(json.dumps(settings))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("text"), "config.json: not a generator's settings: 'text' is missing"),
        (lambda s: s["model"].update(layout="x"), "model|layout is 'x'; known: speakers, template"),
        (lambda s: s["model"].update(kind="poly"), "kind is 'poly'; known: generator"),
        (lambda s: s.update(format=9), "format 9, expected 1"),
        (lambda s: s["text"].update(max_context=60), "lower max_context by 10, or take a base"),
        (lambda s: s["model"].update(lora=5), "has shape .*; the file does not belong to this"),
    ],
)
def test_settings_that_do_not_fit_are_named(
    base: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    generators.save(stirred(base), tmp_path / "out")
    spoil(tmp_path / "out", change)
    with pytest.raises(CheckpointError, match=message):
        generators.load(tmp_path / "out", trainable=True)


def test_weights_that_are_missing_are_named(base: Path, tmp_path: Path) -> None:
    generators.save(stirred(base), tmp_path / "out")
    file = tmp_path / "out" / "model.safetensors"
    weights = load_file(file)
    del weights["choice.bias"]
    save_file(weights, file)
    with pytest.raises(CheckpointError, match=r"1 weights are missing, e.g. choice.bias"):
        generators.load(tmp_path / "out")


def test_what_lost_its_adapters_is_not_saved(base: Path, tmp_path: Path) -> None:
    made = generators.fresh(GeneratorConfig(base=str(base), lora=4), STYLE)
    with pytest.raises(CheckpointError, match="should have adapters of rank 4, but has none"):
        generators.save(made, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_contexts_and_replies_must_fit_the_base(base: Path) -> None:
    config = GeneratorConfig(base=str(base), lora=0)
    generators.fresh(config, TextFormat(max_context=50, max_reply=14))
    with pytest.raises(ConfigError, match="of 65 tokens together, but the base reads at most 64"):
        generators.fresh(config, TextFormat(max_context=51, max_reply=14))
