"""BERT, as MiniLM and most small encoders are built (Devlin et al. 2019, arXiv:1810.04805).

Our own, since it is what nearly everybody runs: it loads in a fraction of the time that importing
the library's model takes, and attention is computed in the precision that is fastest. Weights carry
the library's names, so a base's file and adapters trained on it fit as they are. Tests hold it
equal to the library's own BERT.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rejoinder.models.past import Past


@dataclass(frozen=True)
class BertShape:
    """The part of a base's config.json that shapes its encoder, under its own names."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    dropout: float = 0.0  # of states
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0


class Dropout(NamedTuple):
    """Shares that are set to zero while learning."""

    states: float = 0.0
    attention: float = 0.0
    activation: float = 0.0


class States(NamedTuple):
    """What an encoder returns, named as the library names it: (B, T, D)."""

    last_hidden_state: Tensor


RATES = ("dropout", "attention_dropout", "activation_dropout")
SIZES = [name for name in BertShape.__dataclass_fields__ if name not in RATES]


def shape_of(config: Mapping[str, Any], dropout: Dropout) -> BertShape | None:
    """The shape that a config.json tells; None if it is not this kind of BERT."""
    usual = {
        "model_type": "bert",
        "hidden_act": "gelu",
        "position_embedding_type": "absolute",
        "is_decoder": False,
    }
    if any(config.get(name, value) != value for name, value in usual.items()):
        return None
    sizes: dict[str, Any] = {name: config[name] for name in SIZES if name in config}
    try:
        return BertShape(**sizes, **dict(zip(RATES, dropout, strict=True)))  # type: ignore[arg-type]
    except TypeError:  # a size is missing
        return None


class Bert(nn.Module):
    """Token ids to one vector per token."""

    def __init__(self, config: BertShape) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = Layers(config)

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, given: nn.Embedding) -> None:
        self.embeddings.word_embeddings = given

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor | None = None
    ) -> States:
        """(B, T) ids, (B, T) with 0 on padding -> states (B, T, D)

        A mask (B, T, T) says for every token (query) which ones (keys) it sees. position_ids
        (B, T): places of the tokens where they are not 0, 1, 2 ...
        """
        mask = attention_mask.bool()
        seen = mask[:, None, None, :] if mask.dim() == 2 else mask[:, None]  # for every head
        words = self.embeddings.word_embeddings(input_ids)
        return States(self.encoder(self.embeddings(words, position_ids), seen))

    def read(
        self, words: Tensor, seen: Tensor, positions: Tensor, past: Past | None = None
    ) -> Tensor:
        """As a causal model: word vectors (B, T, D), seen (B, T, K), positions -> (B, T, D).

        With `past`, K counts its tokens too, and those of this call are added to it.
        """
        states: Tensor = self.encoder(self.embeddings(words, positions), seen[:, None], past)
        return states


class Embeddings(nn.Module):
    """Word + position + the first token type."""

    def __init__(self, config: BertShape) -> None:
        super().__init__()
        width = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, width)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
        self.LayerNorm = nn.LayerNorm(width, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, words: Tensor, positions: Tensor | None = None) -> Tensor:
        places = self.position_embeddings.weight[: words.shape[1]]
        if positions is not None:
            places = self.position_embeddings(positions)
        fixed = places + self.token_type_embeddings.weight[0]
        states: Tensor = self.dropout(self.LayerNorm(words + fixed))
        return states


class Layers(nn.Module):
    """A holder, so that names are the library's: encoder.layer.0 and so on."""

    def __init__(self, config: BertShape) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))

    def forward(self, states: Tensor, seen: Tensor, past: Past | None = None) -> Tensor:
        for number, layer in enumerate(self.layer):
            states = layer(states, seen, past, number)
        return states


class Layer(nn.Module):
    """Attention, then two linear layers with a GELU between; each added, then normalised."""

    def __init__(self, config: BertShape) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.attention = Attention(config)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, inner)})
        self.output = Added(inner, config)
        self.rate = config.activation_dropout

    def forward(
        self, states: Tensor, seen: Tensor, past: Past | None = None, number: int = 0
    ) -> Tensor:
        states = self.attention(states, seen, past, number)
        inner = F.gelu(self.intermediate["dense"](states))
        inner = F.dropout(inner, self.rate, self.training)
        added: Tensor = self.output(inner, states)
        return added


SIDES = ("query", "key", "value")


class Attention(nn.Module):
    """Every token attends to those that it sees, usually all real ones of its row."""

    def __init__(self, config: BertShape) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads, self.rate = config.num_attention_heads, config.attention_dropout
        self.self = nn.ModuleDict(
            {name: nn.Linear(width, width) for name in ("query", "key", "value")}
        )
        self.output = Added(width, config)

    def forward(
        self, states: Tensor, seen: Tensor, past: Past | None = None, number: int = 0
    ) -> Tensor:
        q, k, v = (self._split(self.self[name](states)) for name in SIDES)
        if past is not None:
            k, v = past.extend(number, k, v)
        mixed = fused_attention(q, k, v, seen, self.rate if self.training else 0.0)
        added: Tensor = self.output(mixed.transpose(1, 2).flatten(2), states)
        return added

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, T, D/H)


class Added(nn.Module):
    """LayerNorm(before + dropout(linear(x)))."""

    def __init__(self, inner: int, config: BertShape) -> None:
        super().__init__()
        self.dense = nn.Linear(inner, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        added: Tensor = self.LayerNorm(before + self.dropout(self.dense(x)))
        return added


def fused_attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, dropout: float) -> Tensor:
    """(B, H, T, D/H), twice (B, H, K, D/H), seen (B, 1, 1 or T, K) -> (B, H, T, D/H).

    On a processor the fused kernel is slow backwards in bf16, so a step that learns runs it in
    fp32: 17 % faster in all (docs/experiments.md).
    """
    if not q.requires_grad or q.device.type != "cpu" or q.dtype == torch.float32:
        return F.scaled_dot_product_attention(q, k, v, seen, dropout)
    with torch.autocast("cpu", enabled=False):
        mixed = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), seen, dropout)
    return mixed.to(q.dtype)


OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


def restore(model: Bert, weights: Mapping[str, Tensor]) -> None:
    """Fill `model`, made on the device `meta`, with a base's weights in fp32.

    Names may have the prefix `bert.`; a pooling layer and the heads of pretraining are left.
    Raises ValueError naming what is missing or has another shape.
    """
    wanted = model.state_dict()
    found = {}
    for name, weight in weights.items():
        plain = name.removeprefix("bert.")
        for old, new in OLD_NAMES.items():
            plain = plain.replace(old, new)
        if plain in wanted:
            found[plain] = weight.to(torch.float32, copy=True)
    fill(model, found)


def fill(model: nn.Module, found: Mapping[str, Tensor]) -> None:
    """Give a model on the device `meta` its weights; ValueError names what does not fit."""
    for name, place in model.state_dict().items():
        if name not in found:
            raise ValueError(f"the weight {name} is missing")
        if found[name].shape != place.shape:
            came, expected = tuple(found[name].shape), tuple(place.shape)
            raise ValueError(f"{name} has shape {came}, expected {expected}")
    model.load_state_dict(found, assign=True)
