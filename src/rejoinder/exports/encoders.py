"""Our encoders as models of the library transformers, with the same states.

Our BERT is the library's, name by name. Our native encoder of the variant xlm is a BERT under other
names: word vectors are normalised, each part is added to what came and normalised, so

    words * sqrt(D), if they are scaled      -> word_embeddings
    places, learned or sines and cosines     -> position_embeddings
    segments, zeros if there are none        -> token_type_embeddings
    norms, attention, two linear layers      -> the same
    output_scaling                           -> times weight and bias of the last norm

The variant aiayn has no norm before its first layer and prelayernorm has its norms elsewhere, which
no BERT can be told. Any other encoder is the library's already.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rejoinder.errors import ConfigError
from rejoinder.exports.joined import Joined
from rejoinder.models.bert import Bert
from rejoinder.models.encoder import Encoder
from rejoinder.models.transformer import EPS, Layer, Transformer

if TYPE_CHECKING:
    from transformers import BertConfig, PreTrainedModel

Weights = dict[str, Tensor]
ATTENTION = {"query": "q_lin", "key": "k_lin", "value": "v_lin"}


def library_encoder(encoder: Encoder, joined: Joined) -> PreTrainedModel:
    """The library's model of an encoder without adapters, in fp32, with a vector for every id.

    A pooling layer, which no ranker has, is all zeros. Raises ConfigError where the library has no
    model of this shape.
    """
    model = encoder.model
    weights = dict(model.state_dict())
    found: Any
    if isinstance(model, Bert):
        found = _empty_bert(_bert_config(model, joined))
    elif isinstance(model, Transformer):
        found = _empty_bert(_native_config(model, joined))
        weights = _native_weights(model, joined)
    else:
        found = type(model)(copy.deepcopy(model.config))
    with torch.no_grad():
        fitted = found.load_state_dict(weights, strict=False)
        for name in fitted.missing_keys:
            found.get_parameter(name).zero_()
    assert not fitted.unexpected_keys
    assert all(name.startswith("pooler.") for name in fitted.missing_keys)
    made: PreTrainedModel = found.eval()
    return made


def check_told(encoder: Encoder, name: str) -> None:
    """Raise ConfigError for a native encoder that no BERT can be."""
    native = encoder.native
    if native is None or native.shape.variant == "xlm":
        return
    raise ConfigError(
        f"{name}: its encoder is of the variant {native.shape.variant}, and transformers has no "
        "model that normalises where that one does; export it to onnx"
    )


def _empty_bert(config: BertConfig) -> PreTrainedModel:
    from transformers import BertModel

    return BertModel(config)


def _bert_config(model: Bert, joined: Joined) -> BertConfig:
    from transformers import BertConfig

    shape = model.config
    return BertConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.num_hidden_layers,
        num_attention_heads=shape.num_attention_heads,
        intermediate_size=shape.intermediate_size,
        max_position_embeddings=shape.max_position_embeddings,
        type_vocab_size=shape.type_vocab_size,
        layer_norm_eps=shape.layer_norm_eps,
        pad_token_id=joined.pad,
    )


def _native_config(model: Transformer, joined: Joined) -> BertConfig:
    from transformers import BertConfig

    shape = model.shape
    return BertConfig(
        vocab_size=model.embeddings.num_embeddings + joined.more,
        hidden_size=shape.embedding_size,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.n_heads,
        intermediate_size=shape.ffn_size,
        max_position_embeddings=shape.n_positions,
        type_vocab_size=max(2, shape.n_segments),
        layer_norm_eps=EPS,
        hidden_act=shape.activation,
        pad_token_id=joined.pad,
    )


def _native_weights(model: Transformer, joined: Joined) -> Weights:
    shape, width = model.shape, model.width
    words = model.embeddings.weight.detach()
    words = torch.cat([words, words[joined.unknown].expand(joined.more, -1)])
    segments = torch.zeros(max(2, shape.n_segments), width)
    if model.segment_embeddings is not None:
        segments[: shape.n_segments] = model.segment_embeddings.weight
    found: Weights = {
        "embeddings.word_embeddings.weight": words * _factor(model),
        "embeddings.position_embeddings.weight": model.position_embeddings.weight,
        "embeddings.token_type_embeddings.weight": segments,
    }
    assert model.norm_embeddings is not None  # the variant xlm has it
    found |= _named("embeddings.LayerNorm", model.norm_embeddings)
    for number, layer in enumerate(model.layers):
        assert isinstance(layer, Layer)
        found |= _layer_weights(f"encoder.layer.{number}", layer)
    for part in ("weight", "bias"):
        found[f"encoder.layer.{shape.n_layers - 1}.output.LayerNorm.{part}"] = (
            getattr(model.layers[-1].norm2, part) * shape.output_scaling
        )
    return found


def _factor(model: Transformer) -> float:
    return math.sqrt(model.width) if model.shape.embeddings_scale else 1.0


def _layer_weights(name: str, layer: Layer) -> Weights:
    found: Weights = {}
    for theirs, ours in ATTENTION.items():
        found |= _named(f"{name}.attention.self.{theirs}", getattr(layer.attention, ours))
    found |= _named(f"{name}.attention.output.dense", layer.attention.out_lin)
    found |= _named(f"{name}.attention.output.LayerNorm", layer.norm1)
    found |= _named(f"{name}.intermediate.dense", layer.ffn.lin1)
    found |= _named(f"{name}.output.dense", layer.ffn.lin2)
    return found | _named(f"{name}.output.LayerNorm", layer.norm2)


def _named(name: str, part: nn.Module) -> Weights:
    return {f"{name}.{inner}": weight for inner, weight in part.state_dict().items()}
