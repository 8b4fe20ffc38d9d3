"""Models as transfer-learning-conv-ai left them, of every era, with random weights."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2DoubleHeadsModel,
    OpenAIGPTConfig,
    OpenAIGPTDoubleHeadsModel,
)

from rejoinder.text import SPEAKERS

Kind = Literal["gpt", "gpt2"]
GOLDEN = Path(__file__).parents[1] / "golden" / "transfertransfo"
LEGACY = GOLDEN / "gpt_legacy"
LATER = ("<bos>", "<eos>", "<pad>", "<speaker1>", "<speaker2>")  # the order of later code
LAYERS, WIDTH, HEADS, PLACES = 2, 16, 4, 64


def words_of(kind: Kind) -> tuple[dict[str, int], list[str]]:
    """A vocabulary and its merges, as lines."""
    if kind == "gpt":
        words = json.loads((LEGACY / "vocab.json").read_text(encoding="utf-8"))
        return words, (LEGACY / "merges.txt").read_text(encoding="utf-8").split("\n")[1:-1]
    from tokenizers.pre_tokenizers import ByteLevel

    tokens = sorted(ByteLevel.alphabet())
    merges = ["h e", "Ġ t", "l l", "he ll", "hell o", "o u", "y ou", "Ġ you", "Ġ d", "o g"]
    tokens += [line.replace(" ", "") for line in merges] + ["<|endoftext|>"]
    return {token: i for i, token in enumerate(tokens)}, merges


def oracle(kind: Kind, rows: int, seed: int = 0) -> Any:
    """The library's model, whose logits are held to be right."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"n_layer": LAYERS, "n_embd": WIDTH, "n_head": HEADS}
    sizes |= {"n_positions": PLACES, "vocab_size": rows}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "gpt":
            made: Any = OpenAIGPTDoubleHeadsModel(OpenAIGPTConfig(**sizes))
        else:
            made = GPT2DoubleHeadsModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))
    with torch.no_grad():
        for weight in made.parameters():  # what counts for something, also biases
            weight.copy_(torch.randn(weight.shape) * 0.3)
    return made.eval()


def asked(rows: int, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Some input: ids (2, 3, 12), types, and places of last tokens."""
    draw = torch.Generator().manual_seed(seed)
    shape = (2, 3, 12)
    ids, types = (torch.randint(0, rows, shape, generator=draw) for _ in range(2))
    return ids, types, torch.randint(0, 12, shape[:2], generator=draw)


def write_legacy(folder: Path, kind: Kind, model: Any, **changed: Any) -> dict[str, Tensor]:
    """As pytorch_pretrained_bert: heads under their old names, tokens in special_tokens.txt."""
    words, _ = words_of(kind)
    weights = {}
    for name, tensor in model.state_dict().items():
        old = name.replace("lm_head.weight", "lm_head.decoder.weight")
        weights[old.replace("multiple_choice_head.summary", "multiple_choice_head.linear")] = tensor
    mask = torch.ones(PLACES, PLACES).tril().view(1, 1, PLACES, PLACES)
    for layer in range(LAYERS):
        weights[f"transformer.h.{layer}.attn.bias"] = mask
    config = {**_sizes(len(words)), "n_special": 5, "n_ctx": PLACES, **changed}
    if kind == "gpt":
        config |= {"afn": "gelu", "resid_pdrop": 0.1, "attn_pdrop": 0.1}
    _write(folder, kind, config, weights)
    (folder / "special_tokens.txt").write_text("\n".join(SPEAKERS) + "\n", encoding="utf-8")
    return weights


def write_middle(
    folder: Path, kind: Kind, model: Any, order: tuple[str, ...] = LATER, **changed: Any
) -> None:
    """As pytorch-transformers and transformers 2 to 4: added_tokens.json, masks with a number.

    GPT's positions are numbered, as in transformers 3 and 4.
    """
    words, _ = words_of(kind)
    weights = dict(model.state_dict())
    mask = torch.ones(PLACES, PLACES).tril().view(1, 1, PLACES, PLACES)
    for layer in range(LAYERS):
        weights[f"transformer.h.{layer}.attn.bias"] = mask.byte()
        weights[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    if kind == "gpt":
        weights["transformer.position_ids"] = torch.arange(PLACES)
    name = "openai-gpt" if kind == "gpt" else "gpt2"
    config = {**_sizes(len(words) + len(order)), "model_type": name, "n_ctx": PLACES}
    config |= {"resid_pdrop": 0.1, "attn_pdrop": 0.1, "summary_type": "cls_index"}
    config = {name: x for name, x in (config | changed).items() if x is not ...}
    _write(folder, kind, config, weights)
    added = {token: len(words) + place for place, token in enumerate(order)}
    (folder / "added_tokens.json").write_text(json.dumps(added), encoding="utf-8")


def write_today(folder: Path, kind: Kind, model: Any) -> None:
    """As transformers 5: safetensors, and tokenizer.json alone."""
    from transformers import GPT2Tokenizer, OpenAIGPTTokenizer

    words, merges = words_of(kind)
    pairs = [tuple(line.split()) for line in merges]
    maker: Any = OpenAIGPTTokenizer if kind == "gpt" else GPT2Tokenizer
    tokenizer = maker(vocab=words, merges=pairs)
    named = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    tokenizer.add_special_tokens(
        {**named, "additional_special_tokens": ["<speaker1>", "<speaker2>"]}
    )
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def _sizes(vocabulary: int) -> dict[str, Any]:
    return {
        "n_layer": LAYERS,
        "n_embd": WIDTH,
        "n_head": HEADS,
        "n_positions": PLACES,
        "vocab_size": vocabulary,
        "layer_norm_epsilon": 1e-5,
    }


def _write(folder: Path, kind: Kind, config: dict[str, Any], weights: dict[str, Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    words, merges = words_of(kind)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "vocab.json").write_text(json.dumps(words, ensure_ascii=False), encoding="utf-8")
    lines = "".join(f"{line}\n" for line in ["#version: 0.2", *merges])
    (folder / "merges.txt").write_text(lines, encoding="utf-8")
    torch.save(weights, folder / "pytorch_model.bin")
