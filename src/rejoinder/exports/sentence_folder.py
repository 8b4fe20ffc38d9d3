"""What a SentenceTransformer and a CrossEncoder have in common: how their folder is written."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from rejoinder.errors import ConfigError
from rejoinder.exports.checking import Checked, ours, sample_texts, share
from rejoinder.exports.encoders import library_encoder
from rejoinder.exports.joined import Joined, joined, write_tokenizer
from rejoinder.exports.quiet import quiet
from rejoinder.exports.settled import settled
from rejoinder.extras import require
from rejoinder.files import check_new, whole_folder
from rejoinder.models.encoder import Encoder, Pooling
from rejoinder.ranker import TextRanker

LIBRARY = "sentence-transformers"
MODES = {"first": "cls", "mean": "mean", "max": "max"}  # of pooling, as the library calls them
Build = Callable[[TextRanker, Joined, ModuleType], Any]  # -> a model of the library
Card = Callable[[TextRanker, str], str]  # of a folder's name
Score = Callable[[Path, Checked, ModuleType], Tensor]  # what a folder says of texts: (B, N)


def write_folder(ranker: TextRanker, out: Path, build: Build, card: Card, score: Score) -> float:
    """Write a ranker that was found fit to `out`, a new folder, and check it.

    -> the largest difference of its scores from ours, as a share of the largest one. Raises as
    `export_sentence` says.
    """
    library = require("sentence_transformers", "export")
    check_new(out)
    ranker = settled(ranker)
    text = joined(ranker.tokens)
    with quiet(), whole_folder(out) as new:
        texts = sample_texts(ranker, text, out)
        build(ranker, text, library).save_pretrained(str(new), create_model_card=False)
        (new / "README.md").write_text(card(ranker, out.name), "utf-8", errors="replace")
        return share(ours(ranker, texts), score(new, texts, library), out, LIBRARY)


def check_padding(ranker: TextRanker) -> None:
    """Raise ConfigError for a ranker whose scores padding is part of."""
    if ranker.module.reads_padding:
        raise ConfigError(
            f"{ranker.name}: padding is part of its scores, as ParlAI has them with pooling = "
            f"{ranker.config.pooling}, and {LIBRARY} leaves padding out; export it to onnx"
        )


def parts() -> ModuleType:
    """The library's modules, which a model is a row of."""
    return require("sentence_transformers.sentence_transformer.modules", "export")


def transformer(
    encoder: Encoder,
    text: Joined,
    longest: int,
    *,
    types: bool = False,
    sides: tuple[int, int] | None = None,
) -> Any:
    """The library's module of an encoder and its tokenizer, which cuts to `longest` tokens.

    types: it tells the two sides of a pair apart. sides: tokens of a query, and of a document. The
    library makes such a module of a folder only.
    """
    query, document = sides or (None, None)
    with tempfile.TemporaryDirectory() as folder:
        library_encoder(encoder, text).save_pretrained(folder)
        write_tokenizer(text, Path(folder), longest, types=types)
        return parts().Transformer(folder, query_length=query, document_length=document)


def pooling(encoder: Encoder, how: Pooling) -> Any:
    """The library's module that pools an encoder's states."""
    return parts().Pooling(encoder.width, pooling_mode=MODES[how])


def dense(linear: nn.Linear, activation: nn.Module, **names: str) -> Any:
    """The library's module of a linear layer and what stands behind it."""
    bias: Tensor | None = linear.bias
    return parts().Dense(
        linear.in_features,
        linear.out_features,
        bias=bias is not None,
        activation_function=activation,
        init_weight=linear.weight.detach(),
        init_bias=None if bias is None else bias.detach(),
        **names,
    )


def times(factor: float, width: int) -> Any:
    """The library's module that multiplies vectors by a factor: a layer, as it has no other."""
    linear = nn.Linear(width, width, bias=False)
    with torch.no_grad():
        linear.weight.copy_(factor * torch.eye(width))
    return dense(linear, nn.Identity())
