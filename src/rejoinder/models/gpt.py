"""GPT and GPT-2 (Radford et al. 2018 and 2019): a decoder of layers that see earlier tokens only.

The two differ in where the normalisation stands: GPT puts it behind each sum, GPT-2 before each
part and once more at the end. Our own, since the library's GPT has neither a cache of what was read
nor a mask for many replies behind one context. Weights carry the library's names, but for the
prefix `transformer.`, GPT's names of its two embeddings, and the linear layers, whose weights are
(out, in) as everywhere else. Tests hold both equal to the library's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rejoinder.config import check_finite
from rejoinder.errors import ConfigError
from rejoinder.models.bert import Dropout, fill, fused_attention
from rejoinder.models.past import Past


@dataclass(frozen=True, kw_only=True)
class GptShape:
    """The part of a base's config.json that shapes it, under its own names."""

    vocab_size: int
    n_embd: int
    n_layer: int
    n_head: int
    n_positions: int
    n_inner: int = 0  # 0 = four times n_embd
    layer_norm_epsilon: float = 1e-5
    norm_first: bool = True  # GPT-2; GPT normalises behind

    def __post_init__(self) -> None:
        check_finite(self)
        for name in ("vocab_size", "n_embd", "n_layer", "n_head", "n_positions"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected at least 1")
        if not self.layer_norm_epsilon > 0:
            raise ConfigError(
                f"layer_norm_epsilon is {self.layer_norm_epsilon}; expected more than 0"
            )
        if self.n_embd % self.n_head:
            raise ConfigError(
                f"n_head is {self.n_head}; expected a number that divides n_embd, {self.n_embd}"
            )


# What the library calls the tanh approximation of GELU: the only one that released models have.
GELU = {"gpt2": {"gelu_new", "gelu_pytorch_tanh"}, "openai-gpt": {"gelu", "gelu_new"}}
ODD = ("scale_attn_by_inverse_layer_idx", "add_cross_attention")  # nobody's released model


def gpt_shape(config: Mapping[str, Any]) -> GptShape | None:
    """The shape that a config.json tells; None if it is not this kind of model."""
    kind = config.get("model_type")
    if kind not in GELU:
        return None
    name, usual = ("activation_function", "gelu_new") if kind == "gpt2" else ("afn", "gelu")
    odd = any(config.get(flag) for flag in ODD) or config.get("scale_attn_weights") is False
    tied = config.get("tie_word_embeddings", True)
    if config.get(name, usual) not in GELU[kind] or odd or not tied:
        return None
    sizes = {n: config[n] for n in ("vocab_size", "n_embd", "n_layer", "n_head", "n_positions")}
    return GptShape(
        **sizes,
        n_inner=config.get("n_inner") or 0,
        layer_norm_epsilon=config.get("layer_norm_epsilon", 1e-5),
        norm_first=kind == "gpt2",
    )


class Gpt(nn.Module):
    """Word vectors to one state per token."""

    def __init__(self, config: GptShape, dropout: Dropout) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        self.drop = nn.Dropout(dropout.states)
        self.h = nn.ModuleList(Block(config, dropout) for _ in range(config.n_layer))
        last = nn.LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.ln_f = last if config.norm_first else nn.Identity()

    def get_input_embeddings(self) -> nn.Module:
        return self.wte

    def read(
        self, words: Tensor, seen: Tensor, positions: Tensor, past: Past | None = None
    ) -> Tensor:
        """Word vectors (B, T, D), seen (B, T, K) bool, positions (B, T) -> states (B, T, D).

        With `past`, K counts its tokens too, and those of this call are added to it.
        """
        states: Tensor = self.drop(words + self.wpe(positions))
        for number, block in enumerate(self.h):
            states = block(states, seen[:, None], past, number)
        last: Tensor = self.ln_f(states)
        return last


class Block(nn.Module):
    """Attention, then two linear layers; what each gives is added to what it got."""

    def __init__(self, config: GptShape, dropout: Dropout) -> None:
        super().__init__()
        width = config.n_embd
        inner = config.n_inner or 4 * width
        self.norm_first = config.norm_first
        self.ln_1 = nn.LayerNorm(width, config.layer_norm_epsilon)
        self.attn = SelfAttention(config, dropout)
        self.ln_2 = nn.LayerNorm(width, config.layer_norm_epsilon)
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(width, inner), "c_proj": nn.Linear(inner, width)}
        )
        self.drop = nn.Dropout(dropout.states)

    def forward(self, x: Tensor, seen: Tensor, past: Past | None, number: int) -> Tensor:
        if self.norm_first:
            x = x + self.attn(self.ln_1(x), seen, past, number)
            return x + self._inner(self.ln_2(x))
        x = self.ln_1(x + self.attn(x, seen, past, number))
        added: Tensor = self.ln_2(x + self._inner(x))
        return added

    def _inner(self, x: Tensor) -> Tensor:
        inner = F.gelu(self.mlp["c_fc"](x), approximate="tanh")
        dropped: Tensor = self.drop(self.mlp["c_proj"](inner))
        return dropped


class SelfAttention(nn.Module):
    """Query, key and value of one linear layer."""

    def __init__(self, config: GptShape, dropout: Dropout) -> None:
        super().__init__()
        width = config.n_embd
        self.heads, self.rate = config.n_head, dropout.attention
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)
        self.drop = nn.Dropout(dropout.states)

    def forward(self, x: Tensor, seen: Tensor, past: Past | None, number: int) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, T, D/H)
            for part in self.c_attn(x).chunk(3, -1)
        )
        if past is not None:
            k, v = past.extend(number, k, v)
        mixed = fused_attention(q, k, v, seen, self.rate if self.training else 0.0)
        added: Tensor = self.drop(self.c_proj(mixed.transpose(1, 2).flatten(2)))
        return added


RENAMED = {"tokens_embed.": "wte.", "positions_embed.": "wpe."}
SHORT = {".g": ".weight", ".w": ".weight", ".b": ".bias"}  # endings in the first files
TURNED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")  # (in, out) in the library's files


def plain_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a base under our names and in our shapes, uncopied; other names stay."""
    found = {}
    for name, weight in weights.items():
        plain = name.removeprefix("transformer.")
        for old, new in RENAMED.items():
            plain = plain.replace(old, new)
        for old, new in SHORT.items():
            plain = plain.removesuffix(old) + new if plain.endswith(old) else plain
        found[plain] = weight.T if plain.endswith(TURNED) else weight
    return found


def restore_gpt(model: Gpt, weights: Mapping[str, Tensor]) -> None:
    """Fill `model`, made on the device `meta`, with a base's weights in fp32.

    A tied head, the buffers of masks and other heads are left. Raises ValueError naming what is
    missing or has another shape.
    """
    found = plain_names(weights)
    if "lm_head.weight" in found:  # some files have the shared matrix under this name only
        found["wte.weight"] = found["lm_head.weight"]
    wanted = model.state_dict()
    fill(
        model,
        {
            name: weight.to(torch.float32, copy=True).contiguous()
            for name, weight in found.items()
            if name in wanted
        },
    )
