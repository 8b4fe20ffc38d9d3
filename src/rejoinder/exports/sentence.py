"""A bi-encoder as a folder of sentence-transformers, which gives the same scores.

    context    Transformer, Pooling,                 [Normalize], [Dense: times the root of scale]
    candidate  Transformer, Pooling, [Dense, Dense], [Normalize], [Dense: times the root of scale]

A score is a scale times the product of two vectors. The library multiplies vectors and nothing
else, so each side brings the root of the scale along. A context is what it calls a query, a
candidate a document; where the two are read in different ways, a Router parts them.
"""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from rejoinder.errors import ConfigError
from rejoinder.exports.cards import sentence_card
from rejoinder.exports.checking import Checked
from rejoinder.exports.encoders import check_told
from rejoinder.exports.joined import Joined
from rejoinder.exports.sentence_folder import (
    check_padding,
    dense,
    parts,
    pooling,
    times,
    transformer,
    write_folder,
)
from rejoinder.models.encoder import Encoder
from rejoinder.models.rankers import BiEncoder
from rejoinder.parlai_text import ParlaiTokens
from rejoinder.ranker import TextRanker


def export_sentence(ranker: TextRanker, out: Path) -> dict[str, Any]:
    """Write a bi-encoder to `out`, a new folder, as a SentenceTransformer.

    -> how it is built, and the largest difference of its scores from ours, as a share of the
    largest one. Raises ConfigError for a ranker that the library cannot follow, MissingExtra where
    the library is not installed, CheckpointError where what was written scores otherwise; then
    nothing is written.
    """
    module = _fit(ranker)
    difference = write_folder(ranker, out, _model, sentence_card, _scores)
    name = "Router" if _parted(module) else "SentenceTransformer"
    return {"architecture": name, "difference": difference}


def _fit(ranker: TextRanker) -> BiEncoder:
    """The bi-encoder. Raises ConfigError, saying what to do, for what cannot be exported."""
    module = ranker.module
    if not isinstance(module, BiEncoder):
        raise ConfigError(
            f"{ranker.name}: a {ranker.config.kind}-encoder has no place in a SentenceTransformer, "
            "which has one vector for a text; export it to onnx, or take a bi-encoder"
        )
    check_padding(ranker)
    for encoder in (module.context_encoder, module.candidate_encoder):
        check_told(encoder, ranker.name)
    return module


def _parted(module: BiEncoder) -> bool:
    """Whether contexts and candidates are read in different ways."""
    return module.context_encoder is not module.candidate_encoder or module.mlp is not None


def _model(ranker: TextRanker, text: Joined, library: ModuleType) -> Any:
    module = ranker.module
    assert isinstance(module, BiEncoder)
    row = [_tower(module.context_encoder, ranker, text)]
    pooled = pooling(module.context_encoder, module.pooling)
    if _parted(module):
        other = row[0]
        if module.candidate_encoder is not module.context_encoder:
            other = _tower(module.candidate_encoder, ranker, text)
        candidate = [other, pooled, *_two_layers(module)]
        # without a default, so that `encode`, which does not say which side it means, is an error
        router = parts().Router.for_query_document(
            [row[0], pooled], candidate, default_route=None, allow_empty_key=False
        )
        row = [router]
    else:
        row.append(pooled)
    if module.normalise:
        row.append(parts().Normalize())
    scale = float(module.scale().detach())
    if scale != 1:
        row.append(times(math.sqrt(scale), module.context_encoder.width))
    return library.SentenceTransformer(
        modules=row, prompts=_prompts(ranker), similarity_fn_name="dot", device="cpu"
    )


def _tower(encoder: Encoder, ranker: TextRanker, text: Joined) -> Any:
    style = ranker.tokens.style
    sides = (style.max_context, style.max_reply)
    return transformer(encoder, text, max(sides), sides=sides)


def _two_layers(module: BiEncoder) -> list[Any]:
    """What stands behind a candidate's vector only."""
    if module.mlp is None:
        return []
    first, last = module.mlp[0], module.mlp[2]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    return [dense(first, nn.ReLU()), dense(last, nn.Identity())]


def _prompts(ranker: TextRanker) -> dict[str, str]:
    """What the library puts before a candidate: its mark."""
    if isinstance(ranker.tokens, ParlaiTokens):
        return {}
    return {"document": f"{ranker.tokens.style.assistant_mark} "}


def _scores(folder: Path, texts: Checked, library: ModuleType) -> Tensor:
    model = library.SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    how = {"convert_to_tensor": True, "show_progress_bar": False}
    contexts = model.encode_query(texts.contexts, **how)
    scores: Tensor = model.similarity(contexts, model.encode_document(texts.replies, **how))
    return scores
