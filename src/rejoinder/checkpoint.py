"""One self-describing folder per ranker.

    config.json        what the ranker is, its text format, its confidence, how it was trained
    model.safetensors  all weights; with adapters, only those and the ranker's own (the base, named
                       by its sha256, is found again on loading)
    tokenizer.json     the tokenizer
    README.md          the card: data, command, scores

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
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rejoinder.confidence import Confidence
from rejoinder.config import ModelConfig, from_mapping, to_mapping
from rejoinder.errors import CheckpointError, ConfigError
from rejoinder.files import whole_folder, write_text
from rejoinder.models.build import add_lora, build, merge_lora, towers
from rejoinder.models.pretrained import find_base
from rejoinder.models.rankers import BiEncoder, CrossEncoder, PolyEncoder
from rejoinder.ranker import TextRanker
from rejoinder.sharded import whole
from rejoinder.text import TextFormat
from rejoinder.tokens import Tokens

FILES = ("config.json", "model.safetensors", "tokenizer.json", "README.md")
FORMAT = 1  # of config.json; raised when an old folder can no longer be read as it is


def fresh(config: ModelConfig, style: TextFormat, *, trainable: bool = False) -> TextRanker:
    """A ranker on its pretrained base, not trained yet; with `trainable`, adapters are put on."""
    base = find_base(config.base, config.base_sha256)
    config = replace(config, base_sha256=base.sha256)
    module = build(config, base)
    if trainable and config.lora:
        add_lora(module, config.lora, config.lora_alpha)
    tokens = Tokens.from_file(base.folder / "tokenizer.json", style, _pad_id(base.folder))
    _check_positions(module, style)
    return TextRanker(module, tokens, config, name=f"untuned {config.kind} on {config.base}")


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
    weights = ranker.adapters | state(ranker.module, only_adapters=ranker.config.lora > 0)
    if ranker.config.lora and not any(".lora_" in name for name in weights):
        raise CheckpointError(
            f"{folder}: not saved: {ranker.name!r} should have adapters of rank "
            f"{ranker.config.lora}, but has none; make it with trainable=True"
        )
    if not write:
        return
    if dtype is not None:
        weights = {name: w.to(dtype) if w.is_floating_point() else w for name, w in weights.items()}
    config = {
        "format": FORMAT,
        "model": to_mapping(ranker.config),
        "text": asdict(ranker.tokens.style),
        "pad": ranker.tokens.pad,
        "confidence": asdict(ranker.confidence) if ranker.confidence else None,
        "training": dict(training or {}),
    }
    with whole_folder(folder, FILES) as new:
        save_file(weights, new / "model.safetensors", metadata={"format": "pt"})
        tokenizer = ranker.tokens.tokenizer.to_str(pretty=True)
        (new / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
        (new / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        readme = card or f"# {folder.name}\n"
        (new / "README.md").write_text(readme, encoding="utf-8", errors="replace")


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
    config, style, confidence, pad = _settings(folder)
    weights = _read_weights(folder / "model.safetensors")
    module = build(config, find_base(config.base, config.base_sha256))
    if config.lora and trainable:
        add_lora(module, config.lora, config.lora_alpha)
    _restore(module, weights, config, trainable, folder)
    try:
        _check_positions(module, style)
    except ConfigError as error:
        raise CheckpointError(
            f"{folder / 'config.json'}: {error}; save or fetch the model again"
        ) from None
    tokens = Tokens.from_file(folder / "tokenizer.json", style, pad)
    ranker = TextRanker(
        module,
        tokens,
        config,
        name=folder.name,
        fingerprint=fingerprint(weights, config, style),
        card=card_of(folder),
        confidence=confidence,
    )
    ranker.training = dict(read_config(folder).get("training") or {})
    if not trainable:
        ranker.adapters = {name: tensor for name, tensor in weights.items() if ".lora_" in name}
    return ranker


# What goes with the weights of a checkpoint that training starts from, and what only with those of
# the same kind, where nothing else is asked for.
INHERITED = (
    *("base", "base_sha256", "towers", "share_embeddings", "normalise", "lora", "lora_alpha"),
)
OF_A_KIND = ("poly", "codes", "attention", "heads", "head")
LENGTHS = ("max_context", "max_reply", "max_history", "keep")  # of the text format: may be changed


def initialise(
    folder: Path,
    config: ModelConfig,
    given: Collection[str] = (),
    style: TextFormat | None = None,
) -> tuple[TextRanker, list[str], list[str]]:
    """A trainable ranker of `config`'s kind with the weights of a checkpoint of any kind.

    Base, adapters, towers and text format are the checkpoint's; so are the pooling and, for the
    same kind, its shape, but for settings in `given`. How much text is read (LENGTHS) is that of
    `style` where `given` names it. A cross-encoder takes the context tower.
    Returns the ranker, the names of weights that the checkpoint does not have, and of those that it
    has but the ranker has no place for.
    """
    folder = resolve(folder)
    old, saved, _, _ = _settings(folder)
    asked = {name: getattr(style, name) for name in LENGTHS if style and name in given}
    same = (*INHERITED, "pooling", *(OF_A_KIND if old.kind == config.kind else ()))
    taken_up = {name: getattr(old, name) for name in same if name in INHERITED or name not in given}
    taken_up["towers"] = _towers(old, config, given)
    ranker = fresh(replace(config, **taken_up), replace(saved, **asked), trainable=True)
    target = {plain_name(name): tensor for name, tensor in ranker.module.state_dict().items()}
    taken = {}
    left = []
    for name, weight in _read_weights(folder / "model.safetensors").items():
        tower, _, rest = name.partition(".")
        heirs = _heirs(tower, old, ranker.config)
        if not heirs:
            left.append(tower)
        for heir in heirs:
            new = f"{heir}.{rest}" if rest else heir
            own_shape = ".lora_" not in new and not new.split(".")[0].endswith("encoder")
            fits = new in target and (weight.shape == target[new].shape or not own_shape)
            if fits and not (new == "scale.log" and "scale" in given):
                taken[new] = weight
            else:
                left.append(name)
    _check_shapes(taken, target, folder)
    with torch.no_grad():
        for name, weight in taken.items():
            target[name].copy_(weight)
    own = set(state(ranker.module, only_adapters=old.lora > 0))
    return ranker, sorted(own - set(taken)), sorted(set(left))


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


def resolve(folder: Path) -> Path:
    """The checkpoint itself, where a run's folder was named."""
    return folder / "best" if (folder / "best" / "config.json").is_file() else folder


def card_of(folder: Path) -> str:
    """The text of a checkpoint's card; empty if it has none."""
    file = folder / "README.md"
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


def read_config(folder: Path) -> dict[str, Any]:
    """The settings of a checkpoint folder, checked for being one of ours."""
    file = folder / "config.json"
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(
            f"{file}: {error.strerror}; expected a folder that `rejoinder train` wrote, so "
            "name that one"
        ) from None
    except ValueError as error:
        raise CheckpointError(
            f"{file}: broken JSON ({error}); save or fetch the model again"
        ) from None
    if not isinstance(settings, dict) or settings.get("format") != FORMAT:
        came = settings.get("format") if isinstance(settings, dict) else type(settings).__name__
        raise CheckpointError(
            f"{file}: format {came!r}, expected {FORMAT}: not a rejoinder checkpoint of this "
            "version; name a folder that `rejoinder train` wrote"
        )
    return settings


def _settings(folder: Path) -> tuple[ModelConfig, TextFormat, Confidence | None, int]:
    """What config.json says of the ranker, its text format, its confidence, its padding."""
    settings = read_config(folder)
    where = str(folder / "config.json")
    try:
        config = from_mapping(ModelConfig, settings["model"], where)
        style = from_mapping(TextFormat, settings["text"], where)
        sure = settings.get("confidence")
        confidence = None
        if sure:
            top, margin, z = map(float, sure["weights"])
            confidence = Confidence(float(sure["bias"]), (top, margin, z))
        return config, style, confidence, int(settings.get("pad", 0))
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
        what = str(error).removeprefix(f"{where}: ")
        what += " is missing" if isinstance(error, KeyError) else ""
        raise CheckpointError(
            f"{where}: not a ranker's settings: {what}; save or fetch the model again"
        ) from None


def state(module: nn.Module, *, only_adapters: bool) -> dict[str, Tensor]:
    """What is saved of a ranker, under names that do not depend on how it was trained."""
    own = towers(module)
    kept = {}
    for name, tensor in _each_once(module).items():
        in_tower = name.split(".")[0] in own
        if in_tower and only_adapters and ".lora_" not in name:
            continue
        kept[plain_name(name)] = whole(tensor.detach()).cpu().contiguous()
    return kept


def _each_once(module: nn.Module) -> dict[str, Tensor]:
    """All tensors of a module; one that has two names, under the first."""
    by_identity: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        by_identity.setdefault(id(tensor), (name, tensor))
    return dict(by_identity.values())


def plain_name(name: str) -> str:
    """peft's name of a parameter -> the base's own."""
    for part in ("base_model.model.", "base_layer.", ".default"):
        name = name.replace(part, "")
    return name


def _restore(
    module: BiEncoder | PolyEncoder | CrossEncoder,
    weights: dict[str, Tensor],
    config: ModelConfig,
    trainable: bool,
    folder: Path,
) -> None:
    weights = {name: w.float() if w.is_floating_point() else w for name, w in weights.items()}
    target = {plain_name(name): tensor for name, tensor in module.state_dict().items()}
    adapters = {name: w for name, w in weights.items() if ".lora_" in name}
    if config.lora and not trainable:
        weights = {name: w for name, w in weights.items() if name not in adapters}
    _check_shapes(weights, target, folder)
    own = set(towers(module))
    expected = {
        name
        for name in map(plain_name, _each_once(module))
        if (name.split(".")[0] in own and not (config.lora and ".lora_" not in name))
        or name.split(".")[0] not in own
    }
    if config.lora and not trainable:  # target has no adapters to compare with
        bare = own - {name.split(".")[0] for name in adapters}
        expected |= {f"{tower}.*.lora_A.weight" for tower in bare}
    missing = sorted(expected - set(weights))
    if missing:
        raise CheckpointError(
            f"{folder / 'model.safetensors'}: {len(missing)} weights are missing, e.g. "
            f"{missing[0]}; the file does not belong to this config.json"
        )
    with torch.no_grad():
        for name, tensor in weights.items():
            target[name].copy_(tensor)
        if config.lora and not trainable:
            try:
                merge_lora(target, adapters, config.lora_alpha / config.lora)
            except (KeyError, RuntimeError) as error:
                raise CheckpointError(
                    f"{folder / 'model.safetensors'}: adapters do not fit the base: {error}"
                ) from None


def _check_shapes(
    weights: Mapping[str, Tensor], target: Mapping[str, Tensor], folder: Path
) -> None:
    for name, tensor in weights.items():
        if name not in target:
            raise CheckpointError(
                f"{folder / 'model.safetensors'}: holds {name}, which this kind of ranker does not "
                "have; the file does not belong to this config.json"
            )
        if tensor.shape != target[name].shape:
            raise CheckpointError(
                f"{folder / 'model.safetensors'}: {name} has shape {tuple(tensor.shape)}, expected "
                f"{tuple(target[name].shape)}; the file does not belong to this config.json"
            )


def _read_weights(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise CheckpointError(f"{file}: missing; the folder is not a whole checkpoint")
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{file}: not a whole safetensors file ({error}); copy or fetch it again"
        ) from None


# Settings of a ranker that no score depends on.
ONLY_LEARNING = (
    *("dropout", "attention_dropout", "activation_dropout"),
    *("freeze_embeddings", "freeze_apart"),
)


def fingerprint(weights: Mapping[str, Tensor], config: ModelConfig, style: TextFormat) -> str:
    """A hash of all that scores depend on; an index of another one is stale."""
    digest = hashlib.sha256()
    shape = {name: x for name, x in to_mapping(config).items() if name not in ONLY_LEARNING}
    digest.update(json.dumps([shape, asdict(style)], sort_keys=True).encode())
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


def _check_positions(module: nn.Module, style: TextFormat) -> None:
    tower = next(iter(towers(module).values()))
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
            f"{need - limit}, or take a base that reads more"
        )
    if style.max_reply > limit:
        raise ConfigError(
            f"candidates of {style.max_reply} tokens, but the base reads at most {limit}; lower "
            "max_reply, or take a base that reads more"
        )
