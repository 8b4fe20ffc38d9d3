"""A generator that transfer-learning-conv-ai trained, as one of ours: the same logits and replies.

    config.json          sizes
    pytorch_model.bin    weights; or model.safetensors, or checkpoint_mymodel_N.pth of a run that
                         never ended
    vocab.json ...       tokens (see `transfertransfo_tokens`)

Three libraries wrote such folders: pytorch_pretrained_bert (until 2019), pytorch-transformers and
transformers. They differ in the names of weights, in files of tokens, and in what config.json says;
which library it was hardly matters, since each file is read for what it is. Every weight must find
its place, the head that writes must be the word vectors, and there must be a next-utterance head:
anything else is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from rejoinder.config import GeneratorConfig, from_mapping
from rejoinder.errors import CheckpointError, ConfigError
from rejoinder.generator import TextGenerator
from rejoinder.generators import fresh_native
from rejoinder.layouts import Speakers
from rejoinder.legacy.sound import check_sound
from rejoinder.legacy.torchfiles import read_torch
from rejoinder.legacy.transfertransfo_eras import era_of
from rejoinder.legacy.transfertransfo_tokens import FoundTokens, find_tokens, read_object
from rejoinder.models.gpt import GptShape, gpt_shape, plain_names
from rejoinder.shape import NATIVE
from rejoinder.text import TextFormat
from rejoinder.weights import each_once, hold

Weights = dict[str, Tensor]
WHOLE = ("model.safetensors", "pytorch_model.bin")
CUT_OFF = re.compile(r"checkpoint_mymodel_(\d+)\.pth?")  # of a run that was stopped
MASK = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")  # who sees whom, which is always the same
LAYER = re.compile(r"h\.(\d+)\.")
HEADS = {  # theirs -> ours
    "multiple_choice_head.linear.": "choice.",
    "multiple_choice_head.summary.": "choice.",
}
TIED = ("lm_head.weight", "lm_head.decoder.weight")
SUMMARY = {  # what a next-utterance head may be said to be
    "summary_activation": (None, ""),
    "summary_use_proj": (True, None),
    "summary_type": ("cls_index", "token_ids", None),  # the second in pytorch-transformers 1.0
}
HISTORY = 5  # messages: two exchanges and the last one, as it was trained


@dataclass(frozen=True)
class ConvAiFiles:
    """The folder of a model, and which file of it holds the weights."""

    folder: Path
    model: Path


@dataclass(frozen=True)
class ImportedGenerator:
    """A generator, and what is to be said about where it came from."""

    generator: TextGenerator
    layout: Speakers
    files: ConvAiFiles
    era: str
    notes: list[str]


def find_conv_ai(source: Path) -> ConvAiFiles | None:
    """The files of such a model, by its folder or its weights; None if it is no such thing."""
    folder = source if source.is_dir() else source.parent
    if not (folder / "config.json").is_file():
        return None
    if not source.is_dir():
        known = source.name in WHOLE or CUT_OFF.fullmatch(source.name)
        return ConvAiFiles(folder, source) if known else None
    for name in WHOLE:
        if (folder / name).is_file():
            return ConvAiFiles(folder, folder / name)
    stopped = {
        int(found[1]): file for file in folder.iterdir() if (found := CUT_OFF.fullmatch(file.name))
    }
    return ConvAiFiles(folder, stopped[max(stopped)]) if stopped else None


def import_generator(files: ConvAiFiles) -> ImportedGenerator:
    """The generator of such a model's files. Nothing of the files is executed.

    Raises CheckpointError naming the file and what does not fit.
    """
    config = read_object(files.folder / "config.json")
    if "format" in config and isinstance(config.get("model"), dict):
        raise CheckpointError(f"{files.folder}: is a rejoinder checkpoint already; use it as it is")
    notes: list[str] = []
    weights = _weights(files, notes)
    shape = _shape(files, config, weights)
    tokens = find_tokens(files.folder, shape.vocab_size, config, bytewise=shape.norm_first)
    notes += tokens.notes
    notes += _odd_counts(config, shape.vocab_size, tokens.tokenizer.get_vocab_size())
    found = _mapped(files, weights, notes)
    made = _made(files, config, shape, tokens)
    _check_places(files, found, each_once(made.module))
    hold(made.module, found)
    assert isinstance(made.layout, Speakers)
    return ImportedGenerator(made, made.layout, files, era_of(config), notes)


def _weights(files: ConvAiFiles, notes: list[str]) -> Weights:
    """The tensors of a file by plain name: no prefix, our names of the base's parts."""
    file = files.model
    if file.suffix == ".safetensors":
        try:
            whole: Any = load_file(file)
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(
                f"{file}: not a whole safetensors file ({error}); copy it again"
            ) from None
    else:
        whole = read_torch(file)
    inner = whole.get("mymodel", whole) if isinstance(whole, Mapping) else whole
    if not isinstance(inner, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in inner.items()
    ):
        raise CheckpointError(
            f"{file}: holds no weights by name; expected what transfer-learning-conv-ai saved as "
            "pytorch_model.bin or checkpoint_mymodel_N.pth"
        )
    if CUT_OFF.fullmatch(file.name):
        notes.append(f"weights of {file.name}: the training was stopped before its end")
    bare = {name.removeprefix("module."): tensor for name, tensor in inner.items()}
    if any(tensor.dtype in (torch.float16, torch.bfloat16) for tensor in bare.values()):
        notes.append("weights of 16 bits became weights of 32")
    masks = {name for name in bare if MASK.fullmatch(name.removeprefix("transformer."))}
    masks = {name for name in masks if bare[name].dim() in (0, 4)}  # a bias has one axis
    masks |= {name for name in bare if _counts_places(name, bare[name])}
    if masks:
        notes.append(f"left: {len(masks)} masks and lists, which are always the same")
    kept = {name: tensor for name, tensor in bare.items() if name not in masks}
    check_sound(file, kept)
    return plain_names(kept)


def _odd_counts(config: Mapping[str, Any], rows: int, words: int) -> list[str]:
    """What config.json says of the vocabulary that is neither with nor without special tokens."""
    told = config.get("vocab_size", rows)
    if told in (rows, words):
        return []
    return [
        f"config.json says vocab_size {told!r}; the model has {rows} word vectors, of which "
        f"{words} are of the vocabulary"
    ]


def _counts_places(name: str, tensor: Tensor) -> bool:
    """Whether a tensor is the numbers of the positions, which transformers 3 and 4 saved."""
    return name.removeprefix("transformer.") == "position_ids" and tensor.flatten().equal(
        torch.arange(tensor.numel(), dtype=tensor.dtype)
    )


def _shape(files: ConvAiFiles, config: Mapping[str, Any], weights: Weights) -> GptShape:
    """Sizes of the weights, held against config.json. Its vocabulary is taken from the weights.

    The first code wrote the base's own there, without the special tokens.
    """
    where = files.folder / "config.json"
    words, places = weights.get("wte.weight"), weights.get("wpe.weight")
    if words is None:
        words = next((weights[name] for name in TIED if name in weights), None)
    if words is None or places is None or words.dim() != 2 or places.dim() != 2:
        raise CheckpointError(
            f"{files.model}: has no word vectors and positions of a GPT or GPT-2; expected a model "
            "that transfer-learning-conv-ai trained"
        )
    kind = "gpt2" if "ln_f.weight" in weights else "openai-gpt"
    said = config.get("model_type", kind)
    if said != kind:
        raise CheckpointError(
            f"{files.model}: is of the kind {kind}, but {where.name} says {said}; the two do not "
            "belong together"
        )
    layers = {int(found[1]) for name in weights if (found := LAYER.match(name))}
    sizes = {
        "n_layer": len(layers),
        "n_embd": words.shape[1],
        "n_positions": places.shape[0],
    }
    for name in (*sizes, "n_head"):
        if type(config.get(name)) is not int:
            raise CheckpointError(
                f"{where}: {name} is {config.get(name)!r}; expected a whole number, so copy the "
                "file that stood beside the model"
            )
    for name, size in sizes.items():
        if config[name] != size:
            raise CheckpointError(
                f"{files.model}: has {name} {size}, but {where.name} says {config[name]}; "
                "the two do not belong together"
            )
    try:
        shape = gpt_shape({**config, "model_type": kind, "vocab_size": words.shape[0]})
        odd = [name for name, usual in SUMMARY.items() if config.get(name) not in usual]
        if shape is None or odd:
            raise ConfigError(
                f"{odd[0]} is {config.get(odd[0])!r}" if odd else "another activation or attention"
            )
        return from_mapping(GptShape, asdict(shape), "")  # every value of its kind
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(
            f"{where}: {what}; expected a GPT or GPT-2 as transfer-learning-conv-ai trained it"
        ) from None


def _mapped(files: ConvAiFiles, weights: Weights, notes: list[str]) -> Weights:
    """The weights under our names; the head that writes must be the word vectors."""
    found: Weights = {}
    words = weights.get("wte.weight")
    for name, tensor in weights.items():
        if name in TIED:
            if words is not None and not (words.shape == tensor.shape and words.equal(tensor)):
                raise CheckpointError(
                    f"{files.model}: {name} is not the word vectors, which it shares in every such "
                    "model; the file is of something else, or damaged"
                )
            found["body.model.wte.weight"] = tensor
            continue
        for theirs, ours in HEADS.items():
            if name.startswith(theirs):
                found[ours + name.removeprefix(theirs)] = tensor
                break
        else:
            found[f"body.model.{name}"] = tensor
    if not any(name in weights for name in TIED):
        notes.append("no head that writes is saved: it is the word vectors")
    if "choice.weight" not in found:
        raise CheckpointError(
            f"{files.model}: has no next-utterance head (multiple_choice_head), so it was not "
            "trained by transfer-learning-conv-ai; train one on this base: "
            f"rejoinder train generator --base {files.folder}"
        )
    return found


def _check_places(files: ConvAiFiles, found: Weights, target: Mapping[str, Tensor]) -> None:
    """Every weight has a place of its shape, and every place a weight."""
    found["added"] = torch.empty(0, found["choice.weight"].shape[-1])
    for name, place in target.items():
        if name not in found:
            raise CheckpointError(
                f"{files.model}: lacks our {name}, which a model of this config.json has; copy the "
                "file again"
            )
        if found[name].shape != place.shape:
            raise CheckpointError(
                f"{files.model}: our {name} has shape {tuple(found[name].shape)}, but config.json "
                f"asks for {tuple(place.shape)}; the two do not belong together"
            )
    unknown = sorted(set(found) - set(target))
    if unknown:
        raise CheckpointError(
            f"{files.model}: holds {unknown[0]} ({len(unknown)} in all), for which such a model "
            "has no place; it is something else"
        )


def _rate(config: Mapping[str, Any], name: str, usual: float) -> float:
    found = config.get(name, usual)
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise ConfigError(f"{name} is {found!r}; expected a number from 0 up to 1")
    return float(found)


def _made(
    files: ConvAiFiles, config: Mapping[str, Any], shape: GptShape, tokens: FoundTokens
) -> TextGenerator:
    """The generator without weights yet; it reads what fits its positions."""
    longest = min(128, shape.n_positions // 4)
    style = TextFormat(
        max_history=HISTORY, max_reply=longest, max_context=shape.n_positions - longest
    )
    try:
        settings = GeneratorConfig(
            base=NATIVE,
            lora=0,
            dropout=_rate(config, "resid_pdrop", 0.0),
            attention_dropout=_rate(config, "attn_pdrop", 0.0),
            choice_dropout=_rate(config, "summary_first_dropout", 0.1),
        )
        with torch.device("meta"):
            return fresh_native(settings, shape, tokens.special, tokens.tokenizer, style)
    except (ConfigError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{files.folder / 'config.json'}: {error}; copy the file again"
        ) from None
