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

from rejoinder import baselines, checkpoint, generators, tasks
from rejoinder.cli import main
from rejoinder.config import GeneratorConfig, ModelConfig
from rejoinder.data import write_jsonl
from rejoinder.decoding import Decoding
from rejoinder.errors import CheckpointError, ConfigError
from rejoinder.generator import TextGenerator
from rejoinder.presets import KIND_OF, PRESETS
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue, Example
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
        (lambda s: s["model"].update(kind="poly"), "is a poly-encoder, which chooses among"),
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


def run(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(words)
    said = capsys.readouterr()
    assert not ended.value.code, said.err
    return said.out


@pytest.mark.parametrize("layout", ["speakers", "template"])
def test_from_a_base_to_a_chat(
    any_base: Path,
    layout: str,
    tmp_path: Path,
    lessons: list[Example],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Any base trains, resumes, evaluates and chats by the commands that people type."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(baselines, "untuned", lambda *_: _encoder(any_base))
    base = tmp_path / "base"
    shutil.copytree(any_base, base)
    (base / "chat_template.jinja").write_text(CHAT)
    told = {"bos_token": "[CLS]", "eos_token": "[SEP]"}
    (base / "special_tokens_map.json").write_text(json.dumps(told))
    talk = [one.context.then("assistant", one.reply) for one in lessons]
    write_jsonl(talk, tmp_path / "talk.jsonl")
    train = ["train", "generator", "--data", "talk.jsonl", "--dev", "talk.jsonl", "--out", "run"]
    train += ["--base", str(base), "--layout", layout, "--max-steps", "3", "--batch-size", "8"]
    train += [
        "--max-context",
        "44",
        "--max-reply",
        "16",
        "--precision",
        "fp32",
        "--eval-every",
        "3",
    ]
    assert run(train, capsys) == "run\n"
    report = (tmp_path / "run" / "report.md").read_text()
    assert "What it writes" in report
    assert "## What failed" not in report
    before = (tmp_path / "run" / "log.jsonl").read_text()
    run(train, capsys)  # nothing is left to do
    assert (tmp_path / "run" / "log.jsonl").read_text() == before
    evaluate = ["evaluate", "run", "talk.jsonl", "--json", "--greedy", "--max-length", "6"]
    evaluate += ["--candidates", "re-drawn:8"]
    found = json.loads(run(evaluate, capsys))
    assert found["examples"] == 16
    assert found["perplexity"] > 1
    compared = run(["compare", "bm25", "run", *evaluate[2:4], *evaluate[-2:]], capsys)
    assert json.loads(compared)["hits@1"]["b"] == pytest.approx(found["hits@1"])
    chat = ["chat", "--model", "run", "--no-persona", "--once", "do you like tea ?", "--json"]
    answers = [json.loads(run([*chat, "--seed", "3", "--max-length", "6"], capsys)) for _ in "ab"]
    assert answers[0]["reply"] == answers[1]["reply"] != ""
    assert 0 < answers[0]["confidence"] < 1


def _encoder(folder: Path) -> TextRanker:
    """An encoder of the tests' width, whatever the base is."""
    import transformers

    if "bert" in (folder / "config.json").read_text():
        bert = folder
    else:
        bert = folder.parent / "bert"
        size = json.loads((folder / "config.json").read_text())["vocab_size"]
        config = transformers.BertConfig(
            vocab_size=size,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=64,
        )
        transformers.BertModel(config).save_pretrained(bert)
        shutil.copy(folder / "tokenizer.json", bert)
    style = TextFormat(max_context=48, max_reply=16)
    return checkpoint.fresh(ModelConfig(base=str(bert), lora=0), style)


def test_a_hub_name_without_a_network_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lessons: list[Example]
) -> None:
    talk = [one.context.then("assistant", one.reply) for one in lessons]
    write_jsonl(talk, tmp_path / "t.jsonl")
    words = [
        "train",
        "generator",
        "--data",
        str(tmp_path / "t.jsonl"),
        "--out",
        str(tmp_path / "r"),
    ]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--base", "openai-community/gpt2"])
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert "openai-community/gpt2" in said
    assert "network" in said


def test_from_a_ranker_its_tower_is_taken(base: Path, tmp_path: Path) -> None:
    ranker = checkpoint.fresh(
        ModelConfig(kind="poly", base=str(base), lora=4, towers="separate"), STYLE, trainable=True
    )
    for weight in ranker.module.parameters():
        if weight.requires_grad:
            nn.init.normal_(weight, std=0.3)
    checkpoint.save(ranker, tmp_path / "poly")
    wanted = GeneratorConfig(base=str(base), lora=8)
    made, fresh, left = generators.initialise(tmp_path / "poly", wanted, style=STYLE)
    assert made.config.lora == 4
    assert made.layout.style == STYLE
    assert set(fresh) == {"added", "choice.weight", "choice.bias"}
    assert "candidate_encoder" in left
    theirs = dict(ranker.module.named_parameters())
    shared = [n for n, _ in made.module.named_parameters() if "lora" in n]
    assert shared
    for name in shared:
        own = dict(made.module.named_parameters())[name]
        assert own.equal(theirs[name.replace("body.", "context_encoder.", 1)])


def test_from_a_generator_all_is_taken(base: Path, tmp_path: Path) -> None:
    old = stirred(base)
    generators.save(old, tmp_path / "old")
    shorter = TextFormat(max_context=30, max_reply=12)
    made, fresh, left = generators.initialise(
        tmp_path / "old", GeneratorConfig(lm_coef=7.0), ["max_context"], shorter
    )
    assert (made.config.lm_coef, made.config.base, made.config.lora) == (7.0, str(base), 4)
    assert (made.layout.style.max_context, made.layout.style.max_reply) == (30, STYLE.max_reply)
    assert not fresh
    assert not left
    for (name, one), (_, two) in zip(
        old.module.named_parameters(), made.module.named_parameters(), strict=True
    ):
        assert one.equal(two), name


def test_a_folder_of_the_other_sort_says_so(base: Path, tmp_path: Path) -> None:
    generators.save(stirred(base), tmp_path / "writer")
    with pytest.raises(CheckpointError, match="is a generator, which writes replies"):
        checkpoint.load(tmp_path / "writer")
    with pytest.raises(CheckpointError, match="is a generator"):
        checkpoint.initialise(tmp_path / "writer", ModelConfig(base=str(base)))
    ranker = checkpoint.fresh(ModelConfig(base=str(base), lora=0), STYLE)
    checkpoint.save(ranker, tmp_path / "ranker")
    with pytest.raises(CheckpointError, match="is a bi-encoder, which chooses"):
        generators.load(tmp_path / "ranker")


def test_presets_are_settings() -> None:
    expected = {
        "generator": (6.25e-5, 5),
        "bi": (5e-5, 20),
        "poly": (5e-5, 20),
        "cross": (5e-5, 20),
    }
    assert PRESETS.keys() == KIND_OF.keys()
    for name, values in PRESETS.items():
        model, settings, style, _ = tasks.split_settings({"kind": KIND_OF[name], **values})
        assert model.kind == KIND_OF[name]
        assert (settings.lr, style.max_history) == expected[model.kind]
