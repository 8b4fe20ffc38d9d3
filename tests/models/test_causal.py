"""Causal bases against the library's own models, and read in pieces against read at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.testing import assert_close

from rejoinder.batching import pad
from rejoinder.errors import CheckpointError, ConfigError
from rejoinder.models.bert import Bert
from rejoinder.models.build import add_lora
from rejoinder.models.causal import Causal, Hosted, load_causal
from rejoinder.models.generator import Generator
from rejoinder.models.gpt import Gpt
from rejoinder.models.past import STEP, causal
from rejoinder.models.pretrained import find_base

SIZE = 50
IDS, MASK = pad([[2, 5, 6, 7, 8, 9, 3], [2, 9, 3], [4]])
GPT: dict[str, Any] = {"n_embd": 16, "n_layer": 3, "n_head": 4, "n_positions": 90}
LLAMA: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 90,
}
BERT: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 90,
}
KINDS: dict[str, tuple[str, dict[str, Any], type]] = {
    "gpt": ("OpenAIGPT", GPT, Gpt),
    "gpt2": ("GPT2", GPT, Gpt),
    "gpt2-inner": ("GPT2", GPT | {"n_inner": 20, "layer_norm_epsilon": 1e-3}, Gpt),
    "llama": ("Llama", LLAMA | {"tie_word_embeddings": True}, Hosted),
    "llama-untied": ("Llama", LLAMA, Hosted),
    "qwen": ("Qwen2", LLAMA | {"tie_word_embeddings": True}, Hosted),
    "bert": ("Bert", BERT, Bert),
}


def written(kind: str, folder: Path) -> Any:
    """The library's model with random weights, saved in a folder."""
    import transformers

    family, sizes, _ = KINDS[kind]
    config = getattr(transformers, f"{family}Config")(vocab_size=SIZE, **sizes)
    config.is_decoder = family == "Bert"
    name = {"OpenAIGPT": "LMHeadModel", "GPT2": "LMHeadModel", "Bert": "Model"}
    maker = getattr(transformers, family + name.get(family, "ForCausalLM"))
    torch.manual_seed(0)
    model = maker(config).eval()
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.3)
    model.save_pretrained(folder)
    if family == "Bert":  # saved as the encoder that it is to everybody else
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"is_decoder": False}))
    return model


def theirs(model: Any, ids: Tensor) -> Tensor:
    """The library's scores of the next token after every token of one row without padding."""
    found = model(ids[None])
    if hasattr(found, "logits"):
        return cast("Tensor", found.logits[0])
    scores: Tensor = found.last_hidden_state[0] @ model.get_input_embeddings().weight.T
    return scores


def ours(body: Causal, ids: Tensor, mask: Tensor) -> Tensor:
    words = nn.functional.embedding(ids, body.words)
    positions = torch.arange(ids.shape[1]).expand_as(ids)
    scores: Tensor = body(words, causal(mask, ids.shape[1]), positions) @ body.out.T
    return scores


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_scores_equal_the_library_s(kind: str, tmp_path: Path) -> None:
    model = written(kind, tmp_path)
    body = load_causal(find_base(str(tmp_path)))
    assert isinstance(body if KINDS[kind][2] is Hosted else body.model, KINDS[kind][2])
    assert (body.width, body.limit, body.words.shape) == (16, 90, (SIZE, 16))
    found = ours(body, IDS, MASK)
    for row, (ids, mask) in enumerate(zip(IDS, MASK, strict=True)):
        assert_close(found[row][mask], theirs(model, ids[mask]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["gpt", "gpt2", "bert"])
def test_gradients_equal_the_library_s(kind: str, tmp_path: Path) -> None:
    model = written(kind, tmp_path)
    body = load_causal(find_base(str(tmp_path)))
    ids, mask = IDS[:1], MASK[:1]
    ours(body, ids, mask).square().mean().backward()
    theirs(model, ids[0]).square().mean().backward()
    expected = model.get_input_embeddings().weight.grad
    assert_close(body.words.grad, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pieces", [(1, 1, 1, 1, 1, 1, 1), (3, 4), (6, 1)])
@torch.inference_mode()
def test_read_in_pieces_equals_read_at_once(
    kind: str, pieces: tuple[int, ...], tmp_path: Path
) -> None:
    written(kind, tmp_path)
    body = load_causal(find_base(str(tmp_path)))
    words = nn.functional.embedding(IDS, body.words)
    positions = torch.arange(IDS.shape[1]).expand_as(IDS)
    whole = body(words, causal(MASK, IDS.shape[1]), positions)
    past, begin, found = body.cache(), 0, []
    for size in pieces:
        end = begin + size
        seen = causal(MASK[:, :end], size)
        found.append(body(words[:, begin:end], seen, positions[:, begin:end], past))
        begin = end
        assert past.length == end
    assert_close(torch.cat(found, 1)[MASK], whole[MASK], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
@torch.inference_mode()
def test_rows_of_what_was_read_can_be_chosen(kind: str, tmp_path: Path) -> None:
    written(kind, tmp_path)
    body = load_causal(find_base(str(tmp_path)))
    order = torch.tensor([1, 0, 1])
    ids = torch.randint(SIZE, (2, 80))  # more than there is room for at first
    words = nn.functional.embedding(ids, body.words)
    positions = torch.arange(80).expand_as(ids)
    full = torch.ones(3, 80, dtype=torch.bool)
    past = body.cache()
    body(words[:, :STEP], causal(full[:2, :STEP], STEP), positions[:, :STEP], past)
    past.select(order)
    rest = body(words[order, STEP:], causal(full, 80 - STEP), positions[order, STEP:], past)
    whole = body(words, causal(full[:2], 80), positions)
    assert_close(rest, whole[order, STEP:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "changed",
    [{"activation_function": "relu"}, {"scale_attn_by_inverse_layer_idx": True}],
    ids=str,
)
@torch.no_grad()
def test_an_unusual_gpt_is_left_to_the_library(changed: dict[str, Any], tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(**GPT | changed | {"vocab_size": SIZE})).eval()
    model.save_pretrained(tmp_path)
    body = load_causal(find_base(str(tmp_path)))
    assert isinstance(body, Hosted)
    found = ours(body, IDS[:1], MASK[:1])[0]
    assert_close(found, theirs(model, IDS[0]), rtol=1e-4, atol=1e-4)
    with pytest.raises(ConfigError, match="lora is 4, but the base has no linear layers"):
        add_lora(Generator(body), 4, 8)


@pytest.mark.parametrize("endings", [{".weight": ".g", ".bias": ".b"}, {".weight": ".w"}])
@torch.no_grad()
def test_old_names_are_known(endings: dict[str, str], tmp_path: Path) -> None:
    written("gpt", tmp_path)
    file = tmp_path / "model.safetensors"
    before = load_causal(find_base(str(tmp_path)))
    weights = load_file(file)
    short = {}
    for name, weight in weights.items():
        for old, new in endings.items():
            name = name.removesuffix(old) + new if name.endswith(old) and ".h." in name else name
        short[name.removeprefix("transformer.")] = weight
    short["h.0.attn.bias"] = (
        torch.ones(1, 1, 9, 9)
        if ".bias" not in endings
        else short.get("h.0.attn.bias", torch.ones(1, 1, 9, 9))
    )
    save_file(short, file)
    after = load_causal(find_base(str(tmp_path)))
    assert_close(ours(after, IDS, MASK), ours(before, IDS, MASK))


@pytest.mark.parametrize(
    ("spoiled", "message"),
    [
        (lambda w: w.pop("transformer.h.1.ln_1.weight"), "h.1.ln_1.weight is missing"),
        (
            lambda w: w.update({"transformer.wpe.weight": torch.zeros(7, 16)}),
            r"wpe.weight has shape \(7, 16\), expected \(90, 16\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(spoiled: Any, message: str, tmp_path: Path) -> None:
    written("gpt2", tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    spoiled(weights)
    save_file(weights, file)
    with pytest.raises(CheckpointError, match=message):
        load_causal(find_base(str(tmp_path)))


def test_a_model_of_two_halves_is_refused(tmp_path: Path) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    sizes: dict[str, Any] = {"d_model": 8, "d_ff": 8, "num_layers": 1, "num_heads": 2, "d_kv": 4}
    T5ForConditionalGeneration(T5Config(vocab_size=20, **sizes)).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="t5 reads with one half and writes with another"):
        load_causal(find_base(str(tmp_path)))
