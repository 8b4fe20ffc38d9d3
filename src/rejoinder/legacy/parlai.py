"""A ranker that ParlAI trained, as one of ours: the same scores to the last digits.

    MODEL               weights, and what the optimizer remembered
    MODEL.opt           options
    MODEL.dict          dictionary
    MODEL.dict.codecs   byte-pair codes

Sizes are taken from the weights and held against the options, which must agree. Facts about the
files: ParlAI's source at commit a29567f7.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rejoinder.config import Kind, ModelConfig
from rejoinder.dictionary import Dictionary, Words, read_codes, read_dictionary
from rejoinder.errors import CheckpointError, ConfigError
from rejoinder.legacy.parlai_options import (
    VARIANTS,
    Options,
    TextOptions,
    kind_of,
    read_options,
    text_of,
)
from rejoinder.legacy.sound import check_sound
from rejoinder.legacy.torchfiles import read_torch
from rejoinder.models.build import build
from rejoinder.models.pretrained import Native
from rejoinder.parlai_text import ParlaiTokens
from rejoinder.ranker import TextRanker
from rejoinder.shape import NATIVE, Shape
from rejoinder.weights import each_once, hold

Weights = dict[str, Tensor]
LAYER = re.compile(r"layers\.(\d+)\.")
TOWERS = {
    "bi": {"context_encoder": "context_encoder", "cand_encoder": "candidate_encoder"},
    "poly": {"encoder_ctxt": "context_encoder", "encoder_cand": "candidate_encoder"},
    "cross": {"encoder": "encoder"},
}
OWN = {  # what is no tower, or stands behind one
    "bi": {"cand_encoder.mlp": "mlp"},
    "poly": {"codes": "codes", "code_attention": "code_multihead", "attention": "multihead"},
    "cross": {"linear_layer": "linear"},
}


@dataclass(frozen=True)
class Files:
    """The files of one model."""

    model: Path
    options: Path
    dictionary: Path
    codes: Path


@dataclass(frozen=True)
class Imported:
    """A ranker, and what is to be said about where it came from."""

    ranker: TextRanker
    files: Files
    notes: list[str] = field(default_factory=list)


def find_files(source: Path) -> Files | None:
    """The files of a ParlAI model, by its model file or its folder; None if it is no such thing.

    Raises CheckpointError for a folder of several models.
    """
    model = source
    if source.is_dir():
        found = sorted(file.with_suffix("") for file in source.glob("*.opt"))
        found = [file for file in found if file.is_file() and file.suffix != ".dict"]
        whole = [file for file in found if file.suffix != ".checkpoint"] or found
        if len(whole) > 1:
            names = ", ".join(file.name for file in whole)
            raise CheckpointError(f"{source}: has {len(whole)} models ({names}); name one of them")
        if not whole:
            return None
        model = whole[0]
    options = model.with_name(f"{model.name}.opt")
    if not options.is_file():
        return None
    words = model.with_name(f"{model.name}.dict")
    return Files(model, options, words, words.with_name(f"{words.name}.codecs"))


def import_ranker(files: Files) -> Imported:
    """The ranker of a ParlAI model's files, its weights mapped and not copied.

    Raises CheckpointError naming the file and what does not fit. Nothing of the files is executed.
    """
    options = read_options(files.options)
    kind = kind_of(options)
    notes: list[str] = []
    weights = _weights(files.model, notes)
    main = _tower(weights, next(iter(TOWERS[kind])))
    if "embeddings.weight" not in main:
        expected = " and ".join(TOWERS[kind])
        raise CheckpointError(
            f"{files.model}: has no {expected}, but {options.file.name} says "
            f"{options.get('model', '')}; the two do not belong together"
        )
    shape = _shape(options, main, files.model, kind)
    config = _config(options, kind, weights, shape)
    told = text_of(options, shape.n_positions, together=kind == "cross")
    dictionary = _dictionary(files, told, shape.vocabulary, options, notes)
    with torch.device("meta"):
        module = build(config, Native(shape))
    hold(module, _renamed(weights, kind, config, each_once(module), files, notes))
    ranker = TextRanker(module, ParlaiTokens(dictionary, told.style), config, name=files.model.name)
    if module.reads_padding:
        notes.append(
            "padding is part of its scores, as it was in ParlAI: contexts are read one by one, and "
            "the candidates of one request are padded to their longest"
        )
    return Imported(ranker, files, notes)


def _weights(file: Path, notes: list[str]) -> Weights:
    """The tensors of a model file by name."""
    whole = read_torch(file)
    if not isinstance(whole, Mapping):
        raise CheckpointError(f"{file}: holds a {type(whole).__name__}; expected a model by name")
    inner = whole.get("model", whole)
    if not isinstance(inner, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in inner.items()
    ):
        raise CheckpointError(f"{file}: holds no weights under 'model'; name ParlAI's model file")
    if inner is not whole:
        left = sorted(str(name) for name in whole if name != "model")
        if left:
            notes.append(f"left: {', '.join(left)} (of a training that stopped)")
    found = {name.removeprefix("module."): tensor for name, tensor in inner.items()}
    check_sound(file, found)
    if any(tensor.dtype == torch.float16 for tensor in found.values()):
        notes.append("weights of 16 bits became weights of 32")
    return found


def _tower(weights: Mapping[str, Tensor], prefix: str) -> Weights:
    start = f"{prefix}."
    return {n.removeprefix(start): t for n, t in weights.items() if n.startswith(start)}


def _shape(options: Options, tower: Weights, file: Path, kind: Kind) -> Shape:
    """Sizes of the weights, held against the options."""
    layers = {int(found[1]) for name in tower if (found := LAYER.match(name))}
    inner = tower.get("layers.0.ffn.lin1.weight", torch.empty(0, 0))
    places = tower.get("position_embeddings.weight", torch.empty(0, 0))
    segments = tower.get("segment_embeddings.weight", torch.empty(0, 0))
    rows, width = tower["embeddings.weight"].shape
    sizes = {
        "n_layers": len(layers),
        "embedding_size": width,
        "ffn_size": inner.shape[0],
        "n_positions": places.shape[0],
        "n_segments": segments.shape[0],
    }
    told = {name: options.number(name, size) for name, size in sizes.items()}
    if options.number("n_encoder_layers", -1, -1) > 0:
        told["n_layers"] = options.number("n_encoder_layers", -1)
    if kind == "cross":
        told["n_segments"] = 2  # whatever the options say
    for name, size in sizes.items():
        if told[name] != size and not (name == "n_positions" and "n_positions" not in told):
            raise CheckpointError(
                f"{file}: has {name} {size}, but {options.file.name} says {told[name]}; the two do "
                "not belong together"
            )
    try:
        return Shape(
            **sizes,
            vocabulary=rows,
            n_heads=options.number("n_heads", 2, 1),
            variant=VARIANTS[options.choice("variant", "aiayn", tuple(VARIANTS))],  # type: ignore[arg-type]
            activation=options.choice("activation", "relu", ("gelu", "relu")),
            learn_positional_embeddings=options.flag("learn_positional_embeddings", False),
            embeddings_scale=options.flag("embeddings_scale", False),
            output_scaling=float(options.get("output_scaling", 1.0)),
        )
    except (ConfigError, TypeError, ValueError) as error:
        raise CheckpointError(f"{options.file}: {error}; copy the file of options again") from None


def _config(options: Options, kind: Kind, weights: Weights, shape: Shape) -> ModelConfig:
    """The settings of the ranker."""
    shared = kind == "cross" or (kind == "bi" and options.flag("share_encoders", True))
    attentions = ("basic", "sqrt", "multihead")
    pooling = "first" if kind == "cross" and "reduction_type" not in options.values else "mean"
    try:
        return ModelConfig(
            kind=kind,
            base=NATIVE,
            towers="shared" if shared else "separate",
            pooling=options.choice("reduction_type", pooling, ("first", "max", "mean")),
            normalise=kind == "bi" and options.flag("normalize_sent_emb", False),
            scale=1.0,
            learn_scale=False,
            poly=options.choice("polyencoder_type", "codes", ("codes", "n_first")),
            codes=options.number("poly_n_codes", 64, 1),
            attention=options.choice("poly_attention_type", "basic", attentions),
            heads=options.number("poly_attention_num_heads", 4, 1),
            code_attention=options.choice("codes_attention_type", "basic", attentions),
            code_heads=options.number("codes_attention_num_heads", 4, 1),
            mlp=kind == "bi" and shared,
            head="linear" if kind == "cross" else "both",
            lora=0,
            dropout=float(options.get("dropout", 0.0)),
            attention_dropout=float(options.get("attention_dropout", 0.0)),
            activation_dropout=float(options.get("relu_dropout", 0.0)),
            share_embeddings=kind == "bi"
            and not shared
            and options.flag("share_word_embeddings", True),
            freeze_embeddings=kind == "bi" and not options.flag("learn_embeddings", True),
        )
    except (ConfigError, TypeError, ValueError) as error:
        raise CheckpointError(f"{options.file}: {error}; copy the file of options again") from None


def _dictionary(
    files: Files, told: TextOptions, rows: int, options: Options, notes: list[str]
) -> Dictionary:
    """Dictionary and codes, with as many tokens as there are word vectors."""
    names = Words(
        tokens=(),
        kind=told.splitting,
        lower=told.lower,
        null=told.null,
        start=told.start,
        end=told.end,
        unknown=told.unknown,
        delimiter=told.delimiter,
        split_lines=told.split_lines,
    )
    if told.splitting == "bpe":
        merges, version = read_codes(files.codes)
        names = replace(names, merges=merges, version=version)
    tokens = read_dictionary(files.dictionary, names)
    if options.flag("person_tokens", False):  # ParlAI adds them behind those of the file
        tokens += [one for one in ("__p1__", "__p2__") if one not in tokens]
    padding = 0
    while told.multiple > 1 and len(tokens) % told.multiple:
        tokens.append(_fp16(padding, lower=told.lower))
        padding += 1
    if len(tokens) != rows:
        raise CheckpointError(
            f"{files.dictionary}: makes {len(tokens)} tokens (start {told.start}, end {told.end}, "
            f"a multiple of {told.multiple}), but {files.model.name} has {rows} word vectors; "
            f"expected the dictionary that the model was trained with, and {options.file.name} "
            "that says dict_starttoken, dict_endtoken and fp16 as they were then"
        )
    if padding:
        notes.append(f"{padding} tokens that fill the dictionary up to a multiple of 8, as fp16")
    try:
        return Dictionary(replace(names, tokens=tokens))
    except ConfigError as error:
        raise CheckpointError(f"{files.dictionary}: {error}") from None


def _fp16(number: int, *, lower: bool) -> str:
    name = f"__FP16_PAD_{number}__"
    return name.lower() if lower else name


def _renamed(
    weights: Weights,
    kind: Kind,
    config: ModelConfig,
    target: Mapping[str, Tensor],
    files: Files,
    notes: list[str],
) -> Weights:
    """The weights under our names. Raises CheckpointError for one that lacks, or is left over."""
    found: Weights = {}
    twice: list[str] = []
    unknown: list[str] = []
    for name, tensor in weights.items():
        ours = _our_name(name, kind)
        if ours is not None and ours in target:
            found[ours] = tensor
        elif _is_copy(name, tensor, weights, config):
            twice.append(name)
        else:
            unknown.append(name)
    for name, place in target.items():
        if name.split(".")[0] in ("scale", "sharpness"):  # ParlAI has neither: a factor of one
            found[name] = torch.zeros(())
        elif name not in found:
            raise CheckpointError(
                f"{files.model}: lacks what {files.options.name} asks for, our {name}; the two do "
                "not belong together"
            )
        elif found[name].shape != place.shape:
            raise CheckpointError(
                f"{files.model}: our {name} has shape {tuple(found[name].shape)}, but "
                f"{files.options.name} asks for {tuple(place.shape)}; the two do not belong "
                "together"
            )
    if unknown:
        raise CheckpointError(
            f"{files.model}: holds {unknown[0]} ({len(unknown)} in all), for which a model with "
            f"the options of {files.options.name} has no place; the two do not belong together"
        )
    if twice:
        notes.append(f"left: {len(twice)} tensors that are there twice, or that nothing reads")
    return found


def _our_name(name: str, kind: Kind) -> str | None:
    for theirs, ours in OWN[kind].items():
        if name == theirs or name.startswith(f"{theirs}."):
            return ours + name.removeprefix(theirs)
    tower, _, rest = name.partition(".")
    if tower in TOWERS[kind] and rest:
        return f"{TOWERS[kind][tower]}.model.{rest}"
    return None


def _is_copy(name: str, tensor: Tensor, weights: Mapping[str, Tensor], config: ModelConfig) -> bool:
    """Whether a tensor of a bi-encoder is another one under a second name, or never read."""
    if config.kind != "bi":
        return False
    if name == "cand_embeddings.weight" and config.towers == "shared":
        return True  # made, but not used
    first = {
        "embeddings.weight": "context_encoder.embeddings.weight",
        "cand_embeddings.weight": "cand_encoder.embeddings.weight",
        "cand_encoder.embeddings.weight": "context_encoder.embeddings.weight",
    }.get(name)
    if name.startswith("memory_transformer.mlp."):
        return True  # reads memories, which this model has not
    wrapped = ("memory_transformer.transformer.", "cand_encoder.transformer.")
    for prefix in (*wrapped, "memory_transformer."):
        if name.startswith(prefix):
            first = f"context_encoder.{name.removeprefix(prefix)}"
            break
    other: Any = weights.get(first) if first else None
    return other is not None and other.shape == tensor.shape and bool(other.equal(tensor))
