"""One self-describing folder per ranker (see `saved`), which tells its confidence too.

Weights under `context_encoder.`, `candidate_encoder.` (absent where towers are shared) or
`encoder.` carry the names of the base's own state, adapters those names with `.lora_A.weight` and
`.lora_B.weight`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rejoinder.confidence import Confidence
from rejoinder.config import ModelConfig, from_mapping, to_mapping
from rejoinder.dictionary import NAME as DICTIONARY
from rejoinder.dictionary import Dictionary, load_words
from rejoinder.errors import CheckpointError, ConfigError
from rejoinder.files import write_text
from rejoinder.models.build import add_lora, build, towers
from rejoinder.models.encoder import Encoder
from rejoinder.models.pretrained import Native, find_base
from rejoinder.models.rankers import BiEncoder, CrossEncoder, PolyEncoder
from rejoinder.models.transformer import Transformer
from rejoinder.parlai_text import ParlaiTokens
from rejoinder.ranker import TextRanker
from rejoinder.saved import card_of, kind_of, read_config, read_weights, resolve, write_folder
from rejoinder.shape import NATIVE, Shape
from rejoinder.text import TextFormat
from rejoinder.tokens import Rows, Tokens
from rejoinder.weights import (
    assign,
    fill,
    fill_on_base,
    plain_name,
    state,
    to_save,
    word_names,
)


def fresh(config: ModelConfig, style: TextFormat, *, trainable: bool = False) -> TextRanker:
    """A ranker on its pretrained base, not trained yet; with `trainable`, adapters are put on."""
    base = find_base(config.base, config.base_sha256)
    config = replace(config, base_sha256=base.sha256)
    module = build(config, base)
    if trainable and config.lora:
        add_lora(module, config.lora, config.lora_alpha)
    tokens = Tokens.from_file(base.folder / "tokenizer.json", style, _pad_id(base.folder))
    check_positions(module, style)
    return TextRanker(module, tokens, config, name=f"untuned {config.kind} on {config.base}")


def fresh_native(config: ModelConfig, shape: Shape, tokens: Rows) -> TextRanker:
    """A ranker on an encoder of our own, not trained yet."""
    check_all_learned(config)
    module = build(config, Native(shape))
    check_positions(module, tokens.style)
    return TextRanker(module, tokens, config, name=f"untuned {config.kind} on {NATIVE}")


def check_all_learned(config: ModelConfig) -> None:
    """Raise ConfigError for adapters on an encoder of our own."""
    if config.lora:
        raise ConfigError(
            f"lora is {config.lora}, but the base is native: its weights are the model's own and "
            "all learned; take lora 0"
        )


def save(
    ranker: TextRanker,
    folder: Path,
    *,
    card: str = "",
    training: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    write: bool = True,
) -> None:
    """Write the folder whole or not at all; `dtype` rounds the weights (adapters fit in fp16).

    Of several processes only one should `write`; the others put weights in pieces together.
    """
    native = native_of(ranker.module)
    lora, frozen = ranker.config.lora, ranker.config.freeze_embeddings and native is None
    weights = to_save(ranker.module, ranker.adapters, folder, lora=lora, frozen=frozen, dtype=dtype)
    if not write:
        return
    config = {
        "model": to_mapping(ranker.config),
        **({"shape": to_mapping(native.shape)} if native else {}),
        "text": asdict(ranker.tokens.style),
        "pad": ranker.tokens.pad,
        "confidence": asdict(ranker.confidence) if ranker.confidence else None,
        "training": dict(training or {}),
    }
    write_folder(folder, config, weights, ranker.tokens.files(), card)


def store_confidence(folder: Path, confidence: Confidence) -> None:
    """Write a newly fitted confidence into an existing checkpoint."""
    folder = resolve(folder)
    settings = read_config(folder) | {"confidence": asdict(confidence)}
    write_text(folder / "config.json", json.dumps(settings, indent=2) + "\n")


def load(folder: Path, *, trainable: bool = False) -> TextRanker:
    """Read a folder that `save` wrote; adapters are merged into the base unless `trainable`.

    Raises CheckpointError naming the file and what does not fit.
    """
    folder = resolve(folder)
    told = _settings(folder)
    config = told.model
    weights = read_weights(folder / "model.safetensors")
    module = _filled(told, weights, folder, trainable=trainable)
    try:
        check_positions(module, told.text)
    except ConfigError as error:
        raise CheckpointError(
            f"{folder / 'config.json'}: {error}; save or fetch the model again"
        ) from None
    ranker = TextRanker(
        module,
        _tokens(folder, told),
        config,
        name=folder.name,
        fingerprint=fingerprint(weights, config, told.text, told.shape),
        card=card_of(folder),
        confidence=told.confidence,
    )
    ranker.training = dict(read_config(folder).get("training") or {})
    if not trainable:
        ranker.adapters = {name: tensor for name, tensor in weights.items() if ".lora_" in name}
    return ranker


def _filled(
    told: Settings, weights: Mapping[str, Tensor], folder: Path, *, trainable: bool
) -> BiEncoder | PolyEncoder | CrossEncoder:
    """The module with a checkpoint's weights; a native one takes them as they are, uncopied."""
    config = told.model
    if told.shape:
        with torch.device("meta"):
            module = build(config, Native(told.shape))
        assign(module, weights, folder)
        return module
    module = build(config, find_base(config.base, config.base_sha256))
    fill_on_base(module, config, weights, folder, trainable=trainable)
    return module


def _tokens(folder: Path, told: Settings) -> Rows:
    """What makes rows: the tokenizer of the folder, or ParlAI's dictionary."""
    if (folder / DICTIONARY).is_file():
        return ParlaiTokens(Dictionary(load_words(folder)), told.text)
    return Tokens.from_file(folder / "tokenizer.json", told.text, told.pad)


# What goes with the weights of a checkpoint that training starts from, and what only with those of
# the same kind, where nothing else is asked for.
INHERITED = (
    *("base", "base_sha256", "towers", "share_embeddings", "normalise", "lora", "lora_alpha"),
)
OF_A_KIND = (
    *("poly", "codes", "attention", "heads", "code_attention", "code_heads", "head", "mlp"),
)
OF_NATIVE = ("scale", "learn_scale", "dropout", "attention_dropout", "activation_dropout")
LENGTHS = ("max_context", "max_reply", "max_history", "keep")  # of the text format: may be changed


def initialise(
    folder: Path,
    config: ModelConfig,
    given: Collection[str] = (),
    lengths: TextFormat | None = None,
    output_scaling: float | None = None,
) -> tuple[TextRanker, list[str], list[str]]:
    """A trainable ranker of `config`'s kind with the weights of a checkpoint of any kind.

    Base, adapters, towers and text format are the checkpoint's; so are the pooling and, for the
    same kind, its shape, but for settings in `given`. How much text is read (LENGTHS) is that of
    `lengths` where `given` names it. A cross-encoder takes the context tower. output_scaling: the
    factor on the states of an encoder of our own, if it is to be another.
    Returns the ranker, the names of weights that the checkpoint does not have, and of those that it
    has but the ranker has no place for.
    """
    folder = resolve(folder)
    told = _settings(folder)
    old, saved = told.model, told.text
    asked = {name: getattr(lengths, name) for name in LENGTHS if lengths and name in given}
    same = [*INHERITED, "pooling", *(OF_A_KIND if old.kind == config.kind else ())]
    same += OF_NATIVE if told.shape else ()
    taken_up = {name: getattr(old, name) for name in same if name in INHERITED or name not in given}
    taken_up["towers"] = _towers(old, config, given)
    if told.shape and config.kind == "cross" and "head" not in given:
        taken_up["head"] = "linear"  # the only one that such models ever had
    wanted, style = replace(config, **taken_up), replace(saved, **asked)
    if told.shape:
        tokens = _tokens(folder, told._replace(text=style))
        scaling = told.shape.output_scaling if output_scaling is None else output_scaling
        shape = replace(told.shape, output_scaling=scaling)
        ranker = fresh_native(wanted, shape, tokens)
    elif "output_scaling" in given:
        raise ConfigError(
            f"output_scaling is of an encoder of our own, but {folder} is on {old.base!r}; leave "
            "it out, or take --scale, the factor on the score"
        )
    else:
        ranker = fresh(wanted, style, trainable=True)
    anew = {"scale.log"} if "scale" in given else set[str]()
    taken, left = _taken_up(read_weights(folder / "model.safetensors"), old, ranker, anew)
    fill(ranker.module, taken, folder)
    own = set(state(ranker.module, only_adapters=old.lora > 0)) - anew
    kept = old.freeze_embeddings and not told.shape
    own -= word_names(ranker.module) if kept else set()  # those of the base
    return ranker, sorted(own - set(taken)), left


def _taken_up(
    weights: Mapping[str, Tensor], old: ModelConfig, ranker: TextRanker, anew: Collection[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """Weights of an `old` model that a ranker has a place for, and names of those that it has not.

    Those in `anew` are neither.
    """
    target = {plain_name(name): tensor for name, tensor in ranker.module.state_dict().items()}
    taken = {}
    left = set()
    for name, weight in weights.items():
        tower, _, rest = name.partition(".")
        heirs = _heirs(tower, old, ranker.config)
        if not heirs:
            left.add(tower)
        for heir in heirs:
            new = f"{heir}.{rest}" if rest else heir
            own_shape = ".lora_" not in new and not new.split(".")[0].endswith("encoder")
            if new in target and (weight.shape == target[new].shape or not own_shape):
                taken[new] = weight
            else:
                left.add(name)
    taken = {name: weight for name, weight in taken.items() if name not in anew}
    return taken, sorted(left - set(anew))


def _towers(old: ModelConfig, config: ModelConfig, given: Collection[str]) -> str:
    """Shared or separate, of what takes up the weights of `old` and was asked to be `config`."""
    if config.kind == "cross":  # both of its towers may come from one
        return config.towers if old.kind != "cross" or "towers" in given else old.towers
    return "shared" if old.kind == "cross" else old.towers


def _heirs(tower: str, old: ModelConfig, config: ModelConfig) -> list[str]:
    """Which towers take up a tower of `old`; what is no tower keeps its name."""
    both = ["encoder", "apart_encoder"] if config.towers == "separate" else ["encoder"]
    heirs: dict[str, list[str]] = {}
    if config.kind == "cross" and old.kind != "cross":
        heirs = {"context_encoder": both, "candidate_encoder": []}
    elif config.kind == "cross":
        heirs = {"encoder": both} if old.towers == "shared" else {"apart_encoder": both[1:]}
    elif old.kind == "cross" and old.towers == "shared":
        heirs = {"encoder": ["context_encoder"]}
    elif old.kind == "cross":
        heirs = {"encoder": [], "apart_encoder": ["context_encoder"]}
    return heirs.get(tower, [tower])


def config_of(folder: Path) -> ModelConfig:
    """What the ranker of a folder is made of. Raises CheckpointError if it is none."""
    return _settings(resolve(folder)).model


class Settings(NamedTuple):
    """What config.json says of a ranker; `shape` of a native one."""

    model: ModelConfig
    text: TextFormat
    confidence: Confidence | None
    pad: int
    shape: Shape | None


def _settings(folder: Path) -> Settings:
    settings = read_config(folder)
    where = str(folder / "config.json")
    if kind_of(folder) == "generator":
        raise CheckpointError(
            f"{folder}: is a generator, which writes replies; expected a ranker, which chooses "
            "them, so name a bi-, poly- or cross-encoder"
        )
    try:
        config = from_mapping(ModelConfig, settings["model"], where)
        style = from_mapping(TextFormat, settings["text"], where)
        sure = settings.get("confidence")
        confidence = None
        if sure:
            top, margin, z = map(float, sure["weights"])
            confidence = Confidence(float(sure["bias"]), (top, margin, z))
        shape = from_mapping(Shape, settings["shape"], where) if config.base == NATIVE else None
        return Settings(config, style, confidence, int(settings.get("pad", 0)), shape)
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
        what = str(error).removeprefix(f"{where}: ")
        what += " is missing" if isinstance(error, KeyError) else ""
        raise CheckpointError(
            f"{where}: not a ranker's settings: {what}; save or fetch the model again"
        ) from None


# Settings of a ranker that no score depends on.
ONLY_LEARNING = (
    *("dropout", "attention_dropout", "activation_dropout"),
    *("freeze_embeddings", "freeze_apart"),
)


# Settings that came later: at their usual value they leave older fingerprints as they were.
LATER = {"code_attention": "basic", "code_heads": 4, "mlp": False}


def fingerprint(
    weights: Mapping[str, Tensor],
    config: ModelConfig,
    style: TextFormat,
    shape: Shape | None = None,
) -> str:
    """A hash of all that scores depend on; an index of another one is stale."""
    digest = hashlib.sha256()
    made = {name: x for name, x in to_mapping(config).items() if name not in ONLY_LEARNING}
    made = {name: x for name, x in made.items() if (name, x) not in LATER.items()}
    parts = [made, asdict(style), *([asdict(shape)] if shape else [])]
    digest.update(json.dumps(parts, sort_keys=True).encode())
    for name in sorted(weights):
        digest.update(name.encode())
        flat = weights[name].reshape(-1)  # a lone number has no axis to be viewed as bytes
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]


def _pad_id(folder: Path) -> int:
    try:
        value = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("pad_token_id")
    except (OSError, ValueError):
        return 0
    return int(value) if isinstance(value, int) else 0


def native_of(module: nn.Module) -> Transformer | None:
    """The first tower's model, if it is our native transformer."""
    tower = next(iter(towers(module).values()))
    return tower.native if isinstance(tower, Encoder) else None


def check_positions(module: nn.Module, style: TextFormat) -> None:
    """Raise ConfigError where a format asks for longer rows than a ranker's towers can read."""
    tower, native = next(iter(towers(module).values())), native_of(module)
    if native is not None:
        limit: Any = native.shape.n_positions
    else:
        limit = getattr(tower.model.config, "max_position_embeddings", None)
    if not isinstance(limit, int):
        return
    for name, layer in tower.named_modules():
        padding = getattr(layer, "padding_idx", None)
        if name.endswith("position_embeddings") and isinstance(padding, int):
            limit -= padding + 1  # RoBERTa and its kin count from behind the padding's
    together = isinstance(module, CrossEncoder) and module.head != "prefix"
    need = style.max_context + style.max_reply if together else style.max_context
    if need > limit:
        raise ConfigError(
            f"contexts of {need} tokens, but the base reads at most {limit}; lower max_context by "
            f"{need - limit}, or {_more_room(native)}"
        )
    if style.max_reply > limit:
        raise ConfigError(
            f"candidates of {style.max_reply} tokens, but the base reads at most {limit}; lower "
            f"max_reply, or {_more_room(native)}"
        )


def _more_room(native: Transformer | None) -> str:
    return "take a base that reads more" if native is None else "from scratch raise n_positions"
