"""ParlAI's rankers once more: slow, plain, and apart from ours, to hold the importer against.

Text to ids, and ids to scores. Written from the description of ParlAI's behaviour only (commit
a29567f7), in plain operations and double precision, and held against its recorded outputs itself.
Nothing of rejoinder is imported here. `parlai_checkpoint` writes the files to try it on.

Shapes: B contexts, C candidates, T and L tokens, D width, K keys, Q queries.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Options = Mapping[str, Any]
Weights = Mapping[str, Tensor]
Entry = tuple[str, str]  # who speaks, p1 (to the model) or p2 (the model), and what
Rows = Sequence[Sequence[int]]  # token ids
Merges = tuple[tuple[str, str], ...]  # the most urgent first
MASKED = -1e20
USUAL: Options = {  # what an option is that a file does not name
    **{"n_layers": 2, "n_heads": 2, "n_encoder_layers": -1, "variant": "aiayn"},
    **{"activation": "relu", "embeddings_scale": False, "n_segments": 0, "output_scaling": 1.0},
    **{"reduction_type": "mean", "share_encoders": True, "share_word_embeddings": True},
    **{"normalize_sent_emb": False, "wrap_memory_encoder": False},
    **{"polyencoder_type": "codes", "poly_n_codes": 64, "poly_attention_type": "basic"},
    **{"poly_attention_num_heads": 4, "codes_attention_type": "basic"},
    **{"codes_attention_num_heads": 4, "truncate": 1024, "text_truncate": None},
    **{"label_truncate": None, "history_size": -1, "delimiter": "\n", "person_tokens": False},
    **{"split_lines": False, "dict_tokenizer": "re", "dict_lower": False, "fp16": False},
    **{"force_fp16_tokens": False, "dict_nulltoken": "__null__", "dict_starttoken": "__start__"},
    **{"dict_endtoken": "__end__", "dict_unktoken": "__unk__"},
}


@dataclass(frozen=True)
class Reader:
    """A dictionary and its tokenizer."""

    options: Options
    ids: Mapping[str, int]
    merges: Merges = ()
    version: str = "0.2"

    def told(self, name: str) -> Any:
        return told(self.options, name)


def told(options: Options, name: str) -> Any:
    """An option, or what it usually is."""
    return options.get(name, USUAL[name])


def reader_of(model: Path) -> Reader:
    """The reader of a checkpoint with JSON options."""
    options = json.loads(Path(f"{model}.opt").read_text(encoding="utf-8"))
    ids = dictionary(Path(f"{model}.dict").read_text(encoding="utf-8"), options)
    if told(options, "dict_tokenizer") != "bpe":
        return Reader(options, ids)
    lines = Path(f"{model}.dict.codecs").read_text(encoding="utf-8").splitlines()
    version = "0.1"
    if lines[0].startswith("#version: "):
        version = lines.pop(0).removeprefix("#version: ")
    merges = ((left, right) for left, right in (line.split(" ") for line in lines))
    return Reader(options, ids, tuple(merges), version)


def weights_of(model: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint, in double precision."""
    whole = torch.load(model, weights_only=False)["model"]  # ours or recorded, and twice as fast
    return {name: tensor.double() for name, tensor in whole.items()}


def dictionary(text: str, options: Options) -> dict[str, int]:
    """Ids by token: the special ones, then those of the file, then what fills up to eight."""
    ids: dict[str, int] = {}
    for name in ("dict_nulltoken", "dict_starttoken", "dict_endtoken", "dict_unktoken"):
        ids.setdefault(told(options, name), len(ids))
    for line in text.splitlines():
        token = line.split("\t")[0]
        token = token.replace("\\n", "\n").replace("\\t", "\t").replace("\\r", "\r")
        if token in ("__NULL__", "__START__", "__END__", "__UNK__"):
            token = token.lower()
        ids.setdefault(token, len(ids))
    filler = 0
    while len(ids) % 8 and (told(options, "fp16") or told(options, "force_fp16_tokens")):
        name = f"__FP16_PAD_{filler}__"
        ids.setdefault(name.lower() if told(options, "dict_lower") else name, len(ids))
        filler += 1
    return ids


@cache
def pieces(word: str, merges: Merges, version: str) -> list[str]:
    """A word as byte-pair codes have it: always the pair that stands first in the table."""
    if len(word) == 1:
        return [word]
    line = " ".join(word) + ("</w>" if version == "0.2" else " </w>")
    while True:
        symbols = line.split(" ")
        there = set(zip(symbols, symbols[1:], strict=False))
        first = next((pair for pair in merges if pair in there), None)
        if first is None:
            break
        pair = re.escape(" ".join(first))
        line = re.sub(rf"(?<!\S){pair}(?!\S)", lambda found: found[0].replace(" ", ""), line)
    symbols = line.removesuffix("</w>").split()
    return [f"{symbol}@@" for symbol in symbols[:-1]] + symbols[-1:]


def tokens_of(text: str, reader: Reader) -> list[str]:
    """`bpe` and `re` find words and points; `space` and `split` are as ParlAI's source has them."""
    kind = reader.told("dict_tokenizer")
    if reader.told("dict_lower"):
        text = text.lower()
    if kind == "bpe":
        words = re.findall(r"\w+|[^\w\s]", text.replace("\n", " __newln__ "))
        return [piece for word in words for piece in pieces(word, reader.merges, reader.version)]
    if kind == "re":
        return re.findall(r"\w+|[^\w\s]|\n", text)
    if kind == "space":
        return text.strip().split(" ")
    for point in ".,;:!?":
        text = text.replace(point, f" {point} ")
    return text.split()


def ids_of(text: str, reader: Reader) -> list[int]:
    unknown = reader.ids[reader.told("dict_unktoken")]
    return [reader.ids.get(token, unknown) for token in tokens_of(text, reader)]


def context_ids(entries: Sequence[Entry], reader: Reader) -> list[int]:
    """A history: its newest entries, its newest tokens, and only then start and end."""
    lines = []
    for speaker, text in entries:
        text = f"__{speaker}__ {text}" if reader.told("person_tokens") else text
        lines += text.split("\n") if reader.told("split_lines") else [text]
    size = reader.told("history_size")
    if size > 0:
        lines = lines[-size:]
    if not lines:
        return []
    found = ids_of(lines[0], reader)
    for line in lines[1:]:
        found += ids_of(reader.told("delimiter"), reader) + ids_of(line, reader)
    most = reader.told("text_truncate") or reader.told("truncate")
    newest = found[-most:] if most > 0 else found  # below zero all, as ParlAI's source has it
    return [_start(reader), *newest, _end(reader)]


def candidate_ids(text: str, reader: Reader) -> list[int]:
    """A candidate: start and end first, then cut, so that a long one has no end."""
    most = reader.told("label_truncate") or reader.told("truncate")
    whole = [_start(reader), *ids_of(text, reader), _end(reader)]
    return whole[:most] if most > 0 else whole


def _start(reader: Reader) -> int:
    return reader.ids[reader.told("dict_starttoken")]


def _end(reader: Reader) -> int:
    return reader.ids[reader.told("dict_endtoken")]


def padded(rows: Rows, width: int = 1) -> Tensor:
    """Rows of ids with zeros behind them: (B, T)"""
    width = max(width, *map(len, rows))
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])


def softmax(logits: Tensor) -> Tensor:
    """Over the last dimension."""
    powers = torch.exp(logits - logits.max(-1, keepdim=True).values)
    return powers / powers.sum(-1, keepdim=True)


def linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def normalised(weights: Weights, name: str, x: Tensor) -> Tensor:
    middle = x - x.mean(-1, keepdim=True)
    spread = torch.sqrt((middle**2).mean(-1, keepdim=True) + 1e-5)
    return middle / spread * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def multihead(
    weights: Weights, name: str, queries: Tensor, keys: Tensor, mask: Tensor, heads: int
) -> Tensor:
    """(B, Q, D), (B, K, D), (B, K) -> (B, Q, D), head by head."""
    q, k, v = (
        linear(weights, f"{name}.{letter}_lin", x)
        for letter, x in (("q", queries), ("k", keys), ("v", keys))
    )
    size = q.shape[-1] // heads
    found = []
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        logits = (q[..., own] / math.sqrt(size)) @ k[..., own].transpose(1, 2)
        logits = torch.where(mask[:, None, :], logits, torch.full_like(logits, MASKED))
        found.append(softmax(logits) @ v[..., own])
    return linear(weights, f"{name}.out_lin", torch.cat(found, -1))


def states(
    weights: Weights, name: str, options: Options, ids: Tensor, segments: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(B, T) ids -> (B, T, D) and the mask (B, T), True on what is no padding."""
    variant, heads = told(options, "variant"), told(options, "n_heads")
    mask = ids != 0
    there = mask[:, :, None].double()
    x = weights[f"{name}.embeddings.weight"][ids]
    if told(options, "embeddings_scale"):
        x = x * math.sqrt(x.shape[-1])
    places = (mask.long().cumsum(1) - 1).clamp(min=0)
    x = x + weights[f"{name}.position_embeddings.weight"][places]
    if f"{name}.segment_embeddings.weight" in weights:
        segments = torch.zeros_like(ids) if segments is None else segments
        x = x + weights[f"{name}.segment_embeddings.weight"][segments]
    if variant in ("xlm", "bart"):
        x = normalised(weights, f"{name}.norm_embeddings", x)
    x = x * there
    count = told(options, "n_encoder_layers")
    for number in range(count if count > 0 else told(options, "n_layers")):
        x = layer(weights, f"{name}.layers.{number}", options, x, mask, heads) * there
    if variant == "prelayernorm":
        x = normalised(weights, f"{name}.norm_embeddings", x)
    return x * told(options, "output_scaling"), mask


def layer(
    weights: Weights, name: str, options: Options, x: Tensor, mask: Tensor, heads: int
) -> Tensor:
    """(B, T, D) -> (B, T, D)"""
    attention, norm1, norm2 = f"{name}.attention", f"{name}.norm1", f"{name}.norm2"
    if told(options, "variant") == "prelayernorm":
        y = normalised(weights, norm1, x)
        x = x + multihead(weights, attention, y, y, mask, heads)
        return x + feed(weights, name, options, normalised(weights, norm2, x))
    x = normalised(weights, norm1, x + multihead(weights, attention, x, x, mask, heads))
    return normalised(weights, norm2, x + feed(weights, name, options, x))


def feed(weights: Weights, name: str, options: Options, x: Tensor) -> Tensor:
    x = linear(weights, f"{name}.ffn.lin1", x)
    if told(options, "activation") == "gelu":
        x = 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))
    else:
        x = torch.where(x > 0, x, torch.zeros_like(x))
    return linear(weights, f"{name}.ffn.lin2", x)


def reduced(x: Tensor, mask: Tensor, how: str) -> Tensor:
    """(B, T, D), (B, T) -> (B, D). Padding takes part in the maximum and in the sum."""
    if how == "first":
        return x[:, 0]
    if how == "max":
        return x.max(1).values
    return x.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def kind_of(options: Options) -> str:
    """bi, poly or cross"""
    return str(options["model"]).removeprefix("transformer/").removesuffix("encoder")


def vectors(weights: Weights, options: Options, ids: Tensor) -> Tensor:
    """Candidates (N, L) -> (N, D), of a bi- or poly-encoder."""
    how = told(options, "reduction_type")
    if kind_of(options) == "poly":
        return reduced(*states(weights, "encoder_cand", options, ids), how)
    if told(options, "share_encoders"):
        x = reduced(*states(weights, "cand_encoder.transformer", options, ids), how)
        x = linear(weights, "cand_encoder.mlp.0", x)
        x = linear(weights, "cand_encoder.mlp.2", torch.where(x > 0, x, torch.zeros_like(x)))
    else:
        x = reduced(*states(weights, "cand_encoder", options, ids), how)
    return x / x.norm(dim=-1, keepdim=True) if told(options, "normalize_sent_emb") else x


def against(weights: Weights, options: Options, contexts: Tensor, candidates: Tensor) -> Tensor:
    """Contexts (B, T) and vectors of candidates (B, C, D) -> scores (B, C)"""
    if kind_of(options) == "bi":
        x, mask = states(weights, "context_encoder", options, contexts)
        x = reduced(x, mask, told(options, "reduction_type"))
        x = x / x.norm(dim=-1, keepdim=True) if told(options, "normalize_sent_emb") else x
        return (x[:, None] * candidates).sum(-1)
    x, mask = states(weights, "encoder_ctxt", options, contexts)
    count = told(options, "poly_n_codes")
    if told(options, "polyencoder_type") == "codes":
        codes = weights["codes"].expand(len(contexts), -1, -1)
        x = attended(weights, "code_attention", options, codes, x, mask)
        mask = torch.ones(x.shape[:2], dtype=torch.bool)
    else:
        x, mask = x[:, :count], mask[:, :count]
        missing = count - x.shape[1]
        x = torch.cat([x, torch.zeros(len(x), missing, x.shape[2]).double()], 1)
        mask = torch.cat([mask, torch.zeros(len(x), missing).bool()], 1)
    y = attended(weights, "attention", options, candidates, x, mask)
    return (y * candidates).sum(-1)


def attended(
    weights: Weights, name: str, options: Options, queries: Tensor, keys: Tensor, mask: Tensor
) -> Tensor:
    """The attention of codes or of candidates: (B, Q, D), (B, K, D), (B, K) -> (B, Q, D)"""
    told_as = "codes_attention" if name == "code_attention" else "poly_attention"
    kind = told(options, f"{told_as}_type")
    if kind == "multihead":
        heads = told(options, f"{told_as}_num_heads")
        return multihead(weights, name, queries, keys, mask, heads)
    logits = queries @ keys.transpose(1, 2)
    if kind == "sqrt":
        logits = logits / math.sqrt(keys.shape[-1])
    return softmax(torch.where(mask[:, None, :], logits, torch.full_like(logits, MASKED))) @ keys


def inline_scores(
    weights: Weights, options: Options, contexts: Rows, lists: Sequence[Rows]
) -> Tensor:
    """Every context with its own candidates, all padded: (B, C); a short list ends in padding."""
    longest = max(len(row) for rows in lists for row in rows)
    many = max(map(len, lists))
    table = [padded([*rows, *[[]] * (many - len(rows))], longest) for rows in lists]
    ids = torch.stack(table)  # (B, C, L)
    if kind_of(options) == "cross":
        return torch.stack(
            [
                together(weights, options, context, rows, max(map(len, contexts)))
                for context, rows in zip(contexts, ids, strict=True)
            ]
        )
    encoded = vectors(weights, options, ids.flatten(0, 1)).unflatten(0, ids.shape[:2])
    return against(weights, options, padded(contexts), encoded)


def together(
    weights: Weights, options: Options, context: Sequence[int], candidates: Tensor, width: int
) -> Tensor:
    """A context and its candidates (C, L), read in pairs of `width` + L tokens -> (C,)"""
    long = candidates.shape[1]
    after = [0] * (width - len(context))
    ids = torch.tensor([[*context, *row, *after] for row in candidates.tolist()])
    second = torch.tensor([0] * len(context) + [1] * long + after).expand_as(ids)
    how = options.get("reduction_type", "first")
    x = reduced(*states(weights, "encoder", options, ids, second), how)
    return linear(weights, "linear_layer", x)[:, 0]


def fixed_scores(weights: Weights, options: Options, contexts: Rows, candidates: Rows) -> Tensor:
    """Every context with the same candidates, encoded before: (B, N)"""
    encoded = vectors(weights, options, padded(candidates))
    return against(
        weights, options, padded(contexts), encoded.expand(len(contexts), *encoded.shape)
    )
