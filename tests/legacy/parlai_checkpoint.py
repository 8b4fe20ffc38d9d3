"""Tiny checkpoints with random weights in ParlAI's files, for any combination of its options.

    make_checkpoint(folder, kind="poly", polyencoder_type="n_first", poly_n_codes=5)

Every weight does something: none is left at a zero or one. Nothing of rejoinder is imported here.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter, OrderedDict
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .parlai_reference import Merges, Options, Reader, Weights, dictionary, kind_of, tokens_of, told

TEXTS = (
    "your persona: i like tea .\nyour persona: i own a small library .",
    "hello , how are you today ? i am fine . just back from the library .",
    "hey ! what do you do for a living ?\nI am a pilot , i fly planes .",
    "two dogs and a cat . you ? coffee is bad ! no . yes please .",
    "i really enjoy reading books every single day with green tea a lot",
)
RECIPE: Options = {
    **{"embedding_size": 16, "n_layers": 2, "n_heads": 2, "ffn_size": 24, "variant": "xlm"},
    **{"activation": "gelu", "learn_positional_embeddings": True, "embeddings_scale": False},
    **{"n_positions": 40, "n_segments": 2, "output_scaling": 0.5, "dropout": 0.1},
    **{"share_encoders": False, "share_word_embeddings": False, "poly_n_codes": 5},
    **{"text_truncate": 24, "label_truncate": 10, "truncate": 1024, "history_size": 20},
    **{"dict_tokenizer": "bpe", "dict_lower": True, "dict_endtoken": "__start__"},
    **{"use_memories": False, "no_cuda": True, "not_known_to_anybody": [1, {"a": None}]},
}


def make_checkpoint(
    folder: Path,
    *,
    kind: str = "bi",
    codecs: str = "0.2",
    legacy: bool = False,
    half: bool = False,
    training: bool = False,
    seed: int = 0,
    **options: Any,
) -> Path:
    """Write a tiny checkpoint of RECIPE, with other options, in ParlAI's files; -> its model file.

    legacy: torch's format before zip. training: what a training remembers lies beside the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "model"
    said = {"model": f"transformer/{kind}encoder", **RECIPE, **options}
    for name in [name for name, value in said.items() if value is ...]:
        del said[name]  # an option that is not there
    Path(f"{model}.opt").write_text(json.dumps(said, indent=4) + "\n", encoding="utf-8")
    Path(f"{model}.dict.opt").write_text("{}\n", encoding="utf-8")
    merges = learned(codecs) if told(said, "dict_tokenizer") == "bpe" else ()
    if merges:
        lines = [*(["#version: 0.2"] if codecs == "0.2" else []), *map(" ".join, merges), ""]
        Path(f"{model}.dict.codecs").write_text("\n".join(lines), encoding="utf-8")
    tokens = "".join(dictionary_lines(Reader(said, {}, merges, codecs)))
    Path(f"{model}.dict").write_text(tokens, encoding="utf-8")
    weights = model_weights(said, len(dictionary(tokens, said)), seed)
    if half:
        weights = {name: tensor.half() for name, tensor in weights.items()}
    whole: dict[str, Any] = {"model": OrderedDict(weights)}
    if training:
        whole |= remembered(list(weights.values()), half=half)
    torch.save(whole, model, _use_new_zipfile_serialization=not legacy)
    return model


def remembered(tensors: Iterable[Tensor], *, half: bool) -> dict[str, Any]:
    """What stands beside the weights when a training saved them."""
    learner = torch.optim.Adamax([torch.nn.Parameter(tensor.float()) for tensor in tensors])
    scaler = {"loss_scaler": {"scale": 2.0**15}} if half else {}
    return {
        "optimizer": {**learner.state_dict(), **scaler},
        "optimizer_type": "adamax",
        "number_training_updates": 6,
        "lr_scheduler": {"best": math.inf, "num_bad_epochs": 0, "last_epoch": 0},
        "lr_scheduler_type": "reduceonplateau",
        "warmup_scheduler": None,
    }


@cache
def learned(version: str, count: int = 60) -> Merges:
    """The most frequent pairs of TEXTS, joined one after the other."""
    words = Counter(re.findall(r"\w+", " ".join([*TEXTS, "__newln__"]).lower()))
    end = ["</w>"] if version == "0.1" else []
    split = {w: [*w[:-1], w[-1] + ("" if end else "</w>"), *end] for w in words if len(w) > 1}
    merges: list[tuple[str, str]] = []
    for _ in range(count):
        seen: Counter[tuple[str, str]] = Counter()
        for word, symbols in split.items():
            for pair in zip(symbols, symbols[1:], strict=False):
                seen[pair] += words[word]
        left, right = min(seen, key=lambda pair: (-seen[pair], pair))
        merges.append((left, right))
        for symbols in split.values():
            for i in range(len(symbols) - 2, -1, -1):
                if symbols[i : i + 2] == [left, right]:
                    symbols[i : i + 2] = [left + right]
    return tuple(merges)


def dictionary_lines(reader: Reader) -> list[str]:
    """Lines of a `.dict` file with the tokens of TEXTS; every seventh stays unknown."""
    names = ("dict_nulltoken", "dict_starttoken", "dict_endtoken", "dict_unktoken")
    counts = {reader.told(name): 1000000003 - i for i, name in enumerate(names)}
    persons = ["__p1__", "__p2__"] if reader.told("person_tokens") else []
    seen = Counter(token for text in TEXTS for token in tokens_of(text, reader))
    rest = sorted(seen, key=lambda token: (-seen[token], token))
    rest = [token for i, token in enumerate(rest) if i % 7 != 6]
    counts |= {token: seen[token] or 999999999 for token in [*rest, *persons]}
    escapes = str.maketrans({"\n": "\\n", "\t": "\\t", "\r": "\\r"})
    return [f"{token.translate(escapes)}\t{count}\n" for token, count in counts.items()]


def model_weights(options: Options, rows: int, seed: int) -> dict[str, Tensor]:
    """Random weights of a whole model under ParlAI's names, copies included."""
    random = _Random(seed)
    width, kind = options["embedding_size"], kind_of(options)
    if kind == "cross":
        found = tower(random, "encoder", {**options, "n_segments": 2}, rows)
        return found | random.linear("linear_layer", width, 1)
    if kind == "poly":
        found = tower(random, "encoder_ctxt", options, rows)
        found |= tower(random, "encoder_cand", options, rows)
        own = told(options, "polyencoder_type") == "codes"
        if own:
            found["codes"] = random.normal(told(options, "poly_n_codes"), width)
        if own and told(options, "codes_attention_type") == "multihead":
            found |= random.attention("code_attention", width)
        if told(options, "poly_attention_type") == "multihead":
            found |= random.attention("attention", width)
        return found
    context = tower(random, "context_encoder", options, rows)
    words = context["context_encoder.embeddings.weight"]
    found = {"embeddings.weight": words, **context}
    if not told(options, "share_word_embeddings"):
        found["cand_embeddings.weight"] = random.normal(rows, width)
    if told(options, "share_encoders"):
        found |= copied(context, "context_encoder", "cand_encoder.transformer")
        found |= random.linear("cand_encoder.mlp.0", width, width)
        found |= random.linear("cand_encoder.mlp.2", width, width)
    else:
        found |= tower(random, "cand_encoder", options, rows)
        found["cand_encoder.embeddings.weight"] = found.get("cand_embeddings.weight", words)
    if not told(options, "wrap_memory_encoder"):
        return found | copied(context, "context_encoder", "memory_transformer")
    found |= random.linear("memory_transformer.mlp.0", width, width)
    found |= random.linear("memory_transformer.mlp.2", width, width)
    return found | copied(context, "context_encoder", "memory_transformer.transformer")


def copied(weights: Weights, old: str, new: str) -> dict[str, Tensor]:
    """The same tensors under another prefix."""
    return {new + name.removeprefix(old): tensor for name, tensor in weights.items()}


def tower(random: _Random, name: str, options: Options, rows: int) -> dict[str, Tensor]:
    """An encoder."""
    width, inner = options["embedding_size"], options["ffn_size"]
    places = options["n_positions"]
    found = {f"{name}.embeddings.weight": random.normal(rows, width)}
    table = random.normal(places, width)
    if not options["learn_positional_embeddings"]:
        for place in range(places):
            for j in range(width // 2):
                angle = place / 10000 ** (2 * j / width)
                table[place, 2 * j], table[place, 2 * j + 1] = math.sin(angle), math.cos(angle)
    found[f"{name}.position_embeddings.weight"] = table
    if told(options, "variant") != "aiayn":
        found |= random.norm(f"{name}.norm_embeddings", width)
    if told(options, "n_segments") >= 1:
        found[f"{name}.segment_embeddings.weight"] = random.normal(options["n_segments"], width)
    count = told(options, "n_encoder_layers")
    for number in range(count if count > 0 else told(options, "n_layers")):
        part = f"{name}.layers.{number}"
        found |= random.attention(f"{part}.attention", width)
        found |= random.norm(f"{part}.norm1", width) | random.norm(f"{part}.norm2", width)
        found |= random.linear(f"{part}.ffn.lin1", width, inner)
        found |= random.linear(f"{part}.ffn.lin2", inner, width)
    return found


class _Random:
    """Weights none of which is a zero or one that would do nothing."""

    def __init__(self, seed: int) -> None:
        self.source = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, scale: float = 0.7) -> Tensor:
        return scale * torch.randn(shape, generator=self.source)

    def linear(self, name: str, width: int, out: int) -> dict[str, Tensor]:
        weight = self.normal(out, width, scale=1.5 * width**-0.5)
        return {f"{name}.weight": weight, f"{name}.bias": self.normal(out, scale=0.3)}

    def norm(self, name: str, width: int) -> dict[str, Tensor]:
        weight = 1 + self.normal(width, scale=0.3)
        return {f"{name}.weight": weight, f"{name}.bias": self.normal(width, scale=0.3)}

    def attention(self, name: str, width: int) -> dict[str, Tensor]:
        parts = [self.linear(f"{name}.{one}_lin", width, width) for one in ("q", "k", "v", "out")]
        return {name: tensor for part in parts for name, tensor in part.items()}
