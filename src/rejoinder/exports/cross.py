"""A cross-encoder as a folder of sentence-transformers, which gives the same scores.

    Transformer, Pooling, Dense: one number

Only head = linear is such a function of one pooled vector. The pair is read as by us: the context,
and behind it the candidate with a start and an end of its own.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from rejoinder.errors import ConfigError
from rejoinder.exports.cards import cross_card
from rejoinder.exports.checking import Checked
from rejoinder.exports.encoders import check_told
from rejoinder.exports.joined import Joined
from rejoinder.exports.sentence_folder import (
    check_padding,
    dense,
    pooling,
    transformer,
    write_folder,
)
from rejoinder.models.rankers import CrossEncoder
from rejoinder.ranker import TextRanker


def export_cross(ranker: TextRanker, out: Path) -> dict[str, Any]:
    """Write a cross-encoder with a linear head to `out`, a new folder, as a CrossEncoder.

    -> how it is built, and the largest difference of its scores from ours, as a share of the
    largest one. Raises ConfigError for a ranker that the library cannot follow, MissingExtra where
    the library is not installed, CheckpointError where what was written scores otherwise; then
    nothing is written.
    """
    _check_fit(ranker)
    difference = write_folder(ranker, out, _model, cross_card, _scores)
    return {"architecture": "CrossEncoder", "difference": difference}


def _check_fit(ranker: TextRanker) -> None:
    """Raise ConfigError, saying what to do, for what cannot be exported."""
    module = ranker.module
    if not isinstance(module, CrossEncoder):
        raise ConfigError(
            f"{ranker.name}: a {ranker.config.kind}-encoder reads the two sides apart, as no "
            "CrossEncoder does; export it as a SentenceTransformer or to onnx"
        )
    if module.head != "linear":
        raise ConfigError(
            f"{ranker.name}: its head is {module.head!r}, which also reads the two sides apart, as "
            "no CrossEncoder does; export it to onnx, or train one with --head linear"
        )
    check_padding(ranker)
    check_told(module.encoder, ranker.name)


def _model(ranker: TextRanker, text: Joined, library: ModuleType) -> Any:
    module, style = ranker.module, ranker.tokens.style
    assert isinstance(module, CrossEncoder)
    # only our native encoder is told which side a token is of
    types = module.encoder.native is not None
    row = [
        transformer(module.encoder, text, style.max_context + style.max_reply, types=types),
        pooling(module.encoder, module.pooling),
        dense(module.linear, nn.Identity(), module_output_name="scores"),
    ]
    return library.CrossEncoder(modules=row, activation_fn=nn.Identity(), device="cpu")


def _scores(folder: Path, texts: Checked, library: ModuleType) -> Tensor:
    model = library.CrossEncoder(str(folder), device="cpu", local_files_only=True)
    pairs = [(context, one) for context in texts.contexts for one in texts.candidates]
    scores: Tensor = model.predict(pairs, convert_to_tensor=True, show_progress_bar=False)
    return torch.unflatten(scores, 0, (len(texts.contexts), len(texts.candidates)))
