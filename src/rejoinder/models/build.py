"""Settings to modules: a ranker on a pretrained base, with or without adapters."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence

import torch
from torch import nn

from rejoinder.config import GeneratorConfig, ModelConfig
from rejoinder.errors import ConfigError
from rejoinder.models.bert import Bert, Dropout
from rejoinder.models.causal import Causal, load_causal
from rejoinder.models.encoder import Encoder
from rejoinder.models.generator import Generator
from rejoinder.models.gpt import GptShape
from rejoinder.models.pretrained import Base, Native, load_encoder
from rejoinder.models.rankers import BiEncoder, CrossEncoder, PolyEncoder
from rejoinder.text import SPEAKERS


def build(config: ModelConfig, base: Base | Native) -> BiEncoder | PolyEncoder | CrossEncoder:
    """A ranker with pretrained towers and, for the rest, fresh weights; no adapters yet."""
    _check_mlp(config)
    rates = Dropout(config.dropout, config.attention_dropout, config.activation_dropout)
    encoder = Encoder(load_encoder(base, rates))
    scale = config.scale or (20.0 if config.normalise or config.kind == "cross" else 1.0)
    if config.kind == "cross":
        if config.head == "prefix" and not isinstance(encoder.model, Bert):
            raise ConfigError(
                f"head is 'prefix' and the base {base.name!r} is no BERT, the only one whose "
                "tokens can be told what to see; take head = both, or another base"
            )
        if config.head == "linear" and config.towers == "separate":
            raise ConfigError(
                "towers is 'separate', but head = linear reads the two sides together only; take "
                "head = both or prefix, or shared towers"
            )
        return CrossEncoder(
            encoder,
            apart_encoder=copy.deepcopy(encoder) if config.towers == "separate" else None,
            head=config.head,
            pooling=config.pooling,
            scale=scale,
            learn_scale=config.learn_scale,
        )
    other = encoder if config.towers == "shared" else copy.deepcopy(encoder)
    if config.share_embeddings:
        other.model.set_input_embeddings(encoder.model.get_input_embeddings())  # type: ignore[operator]
    if config.kind == "bi":
        return BiEncoder(
            encoder,
            other,
            pooling=config.pooling,
            normalise=config.normalise,
            scale=scale,
            learn_scale=config.learn_scale,
            mlp=config.mlp,
        )
    made = PolyEncoder(
        encoder,
        other,
        kind=config.poly,
        codes=config.codes,
        attention=config.attention,
        heads=config.heads,
        code_attention=config.code_attention,
        code_heads=config.code_heads,
        dropout=config.dropout,
        pooling=config.pooling,
        normalise=config.normalise,
        scale=scale,
        learn_scale=config.learn_scale,
    )
    if isinstance(base, Native) and made.codes is not None and not made.codes.is_meta:
        nn.init.uniform_(made.codes)  # as ParlAI begins
    return made


def _check_mlp(config: ModelConfig) -> None:
    if config.mlp and (config.kind != "bi" or config.towers == "separate"):
        raise ConfigError(
            f"mlp tells candidates from contexts in a bi-encoder with shared towers, but this is a "
            f"{config.kind}-encoder with {config.towers} towers; leave it out"
        )


def build_generator(
    config: GeneratorConfig, base: Base | GptShape, special: Sequence[int] = ()
) -> Generator:
    """A generator on its pretrained base, or on a fresh GPT of a shape.

    The layout `speakers` brings tokens of its own, unless `special` says which of the base's they
    are, in the order of SPEAKERS.
    """
    rates = Dropout(config.dropout, config.attention_dropout)
    body = load_causal(base, rates)
    if config.layout == "template":
        return Generator(body, rank=config.words_rank, dropout=config.choice_dropout)
    size = len(body.words)
    ids = special or range(size, size + len(SPEAKERS))
    return Generator(
        body,
        added=0 if special else len(SPEAKERS),
        speakers=(ids[SPEAKERS.index("<speaker1>")], ids[SPEAKERS.index("<speaker2>")]),
        rank=config.words_rank,
        dropout=config.choice_dropout,
    )


def towers(ranker: nn.Module) -> dict[str, Encoder | Causal]:
    """A model's distinct pretrained parts by attribute name."""
    found: dict[str, Encoder | Causal] = {}
    for name, child in ranker.named_children():
        if isinstance(child, Encoder | Causal) and child not in found.values():
            found[name] = child
    return found


def add_lora(ranker: nn.Module, rank: int, alpha: int) -> None:
    """Freeze every tower and put adapters on all its linear layers (Hu et al. 2021).

    Raises ConfigError where it has none.
    """
    from peft import LoraConfig, get_peft_model

    for encoder in towers(ranker).values():
        encoder.requires_grad_(False)  # also an output layer of its own, which peft does not see
        linear = [n for n, layer in encoder.model.named_modules() if isinstance(layer, nn.Linear)]
        if not linear:
            raise ConfigError(
                f"lora is {rank}, but the base has no linear layers of torch to put adapters on; "
                "take lora 0"
            )
        settings = LoraConfig(r=rank, lora_alpha=alpha, target_modules=linear)
        with warnings.catch_warnings():  # peft 0.18 asks transformers 5 under an old name
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            encoder.model = get_peft_model(encoder.model, settings)


def merge_lora(
    weights: dict[str, torch.Tensor], adapters: dict[str, torch.Tensor], factor: float
) -> None:
    """Add every adapter to the weight it belongs to, in place: W += factor * B A.

    Keys are `NAME.lora_A.weight` (r, in) and `NAME.lora_B.weight` (out, r); `weights` holds
    `NAME.weight` (out, in).
    """
    for key, a in adapters.items():
        if not key.endswith(".lora_A.weight"):
            continue
        name = key.removesuffix(".lora_A.weight")
        b = adapters[f"{name}.lora_B.weight"]
        target = weights[f"{name}.weight"]
        target.add_((b.float() @ a.float()).to(target), alpha=factor)
