"""A ranker as ONNX: its parts as graphs that any runtime runs, without torch and without rejoinder.

    bi     encoder.onnx, or context.onnx and candidate.onnx: vectors; a score is their product
    poly   context.onnx: codes; candidate.onnx: vectors; score.onnx: scores of the two
    cross  cross.onnx: scores of pairs

Beside them tokenizer.json (of some models from ParlAI dictionary.json) and config.json, which names
what goes in and what comes out. Rows may be of any length and number, up to what the ranker reads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rejoinder import __version__
from rejoinder.errors import CheckpointError, ConfigError
from rejoinder.exports import graphs
from rejoinder.exports.checking import sample_texts
from rejoinder.exports.joined import Joined, joined
from rejoinder.exports.onnx_card import onnx_card
from rejoinder.exports.onnx_check import difference
from rejoinder.exports.quiet import quiet
from rejoinder.exports.settled import settled
from rejoinder.exports.texts import joint
from rejoinder.extras import require
from rejoinder.files import check_new, whole_folder
from rejoinder.models.rankers import BiEncoder, CrossEncoder
from rejoinder.parlai_text import ParlaiTokens
from rejoinder.ranker import TextRanker
from rejoinder.tokens import Tokens

LIBRARIES = ("onnx", "onnxscript", "onnxruntime")
MOST_BYTES = 1_500_000_000  # of weights inside one file, whose format ends at two billion
IDS = {"input_ids": ("batch", "length"), "attention_mask": ("batch", "length")}


@dataclass(frozen=True)
class Graph:
    """A graph to write: what it computes, and the axes of what goes in and comes out.

    An axis is a name, where it may have any size, or its size.
    """

    module: nn.Module
    inputs: Mapping[str, tuple[str | int, ...]]
    outputs: Mapping[str, tuple[str | int, ...]]


def export_onnx(ranker: TextRanker, out: Path) -> dict[str, Any]:
    """Write a ranker of any kind to `out`, a new folder, as ONNX.

    -> its graphs, and the largest difference of its scores from ours, as a share of the largest
    one. Raises ConfigError for a base that torch cannot write, MissingExtra where a library is not
    installed, CheckpointError where what was written scores otherwise; then nothing is written.
    """
    for name in LIBRARIES:
        require(name, "export")
    check_new(out)
    ranker = settled(ranker)
    with quiet(), whole_folder(out) as new:
        text = _text(ranker, out)
        made = graphs_of(ranker, text)
        for name, graph in made.items():
            _write(graph, new / name, _most(ranker))
        for name, content in _tokenizer_files(ranker, text).items():
            (new / name).write_text(content, encoding="utf-8")
        settings = json.dumps(_settings(ranker, text, made), indent=2, ensure_ascii=False)
        (new / "config.json").write_text(settings + "\n", encoding="utf-8")
        card = onnx_card(ranker, out.name, made, text)
        (new / "README.md").write_text(card, encoding="utf-8", errors="replace")
        found = difference(ranker, new, made, out)
    return {"graphs": list(made), "difference": found}


def graphs_of(ranker: TextRanker, text: Joined | None) -> dict[str, Graph]:
    """The graphs of a ranker by the names of their files."""
    module = ranker.module
    if isinstance(module, CrossEncoder):
        inputs = IDS | {"token_type_ids": ("batch", "length")}
        pairs = graphs.PairScore(module, text)
        return {"cross.onnx": Graph(pairs, inputs, {"scores": ("batch",)})}
    width = module.candidate_encoder.width
    vectors = {"vectors": ("batch", width)}
    candidate = Graph(graphs.CandidateVector(module, text), IDS, vectors)
    if isinstance(module, BiEncoder):
        if module.context_encoder is module.candidate_encoder and module.mlp is None:
            return {"encoder.onnx": candidate}
        context = Graph(graphs.ContextVector(module, text), IDS, vectors)
        return {"context.onnx": context, "candidate.onnx": candidate}
    codes: str | int = len(module.codes) if module.codes is not None else "codes"
    inner = {"codes": ("batch", codes, width), "codes_mask": ("batch", codes)}
    score = {**inner, "candidates": ("candidates", width)}
    return {
        "context.onnx": Graph(graphs.ContextCodes(module, text), IDS, inner),
        "candidate.onnx": candidate,
        "score.onnx": Graph(graphs.CodeScore(module), score, {"scores": ("batch", "candidates")}),
    }


def _text(ranker: TextRanker, out: Path) -> Joined | None:
    """The tokenizer for contexts as strings; None where pieces can only be read one by one."""
    try:
        text = joined(ranker.tokens)
        sample_texts(ranker, text, out)
    except (ConfigError, CheckpointError):
        return None
    return text


def _tokenizer_files(ranker: TextRanker, text: Joined | None) -> Mapping[str, str]:
    if text is None:
        return ranker.tokens.files()
    return {"tokenizer.json": text.tokenizer.to_str()}


def _most(ranker: TextRanker) -> int:
    style = ranker.tokens.style
    if ranker.is_cross:
        return style.max_context + style.max_reply
    return max(style.max_context, style.max_reply)


@torch.no_grad()
def _write(graph: Graph, file: Path, most: int) -> None:
    """Write one graph. Raises ConfigError where torch cannot."""
    passes = require("onnx_ir.passes.common", "export")
    dims = {
        name: torch.export.Dim(name, max=most) if name == "length" else torch.export.Dim(name)
        for axes in graph.inputs.values()
        for name in axes
        if isinstance(name, str)
    }
    shapes = {
        name: {place: dims[axis] for place, axis in enumerate(axes) if isinstance(axis, str)}
        for name, axes in graph.inputs.items()
    }
    module = graph.module.eval()
    try:
        program = torch.onnx.export(
            module,
            tuple(_example(name, axes) for name, axes in graph.inputs.items()),
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes=shapes,
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        passes.ClearMetadataAndDocStringPass()(program.model)  # which has paths of this machine
        size = sum(weight.numel() * weight.element_size() for weight in module.parameters())
        program.save(str(file), external_data=size > MOST_BYTES)
    except OSError:
        raise
    except Exception as error:  # torch raises what it likes
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split())[:120]
        raise ConfigError(
            f"{file.name}: torch cannot write this encoder as onnx ({type(cause).__name__}: "
            f"{reason}); export a ranker on another base, such as minilm"
        ) from error


SIZES = {"batch": 2, "length": 7, "codes": 5, "candidates": 3}  # no two alike, and none of them 1


def _example(name: str, axes: tuple[str | int, ...]) -> Tensor:
    """Something to trace a graph with."""
    sizes = [SIZES[axis] if isinstance(axis, str) else axis for axis in axes]
    if name in ("codes", "candidates"):
        return torch.linspace(-1, 1, torch.Size(sizes).numel()).view(sizes)
    if name == "token_type_ids":
        return (torch.arange(sizes[1]) > 3).long().expand(sizes).contiguous()
    return torch.ones(sizes, dtype=torch.long)


def _settings(ranker: TextRanker, text: Joined | None, made: Mapping[str, Graph]) -> dict[str, Any]:
    """config.json: all that a program needs which runs the graphs."""
    tokens, kind = ranker.tokens, ranker.config.kind
    between = None
    if text and isinstance(tokens, ParlaiTokens):
        between = tokens.dictionary.words.delimiter
    elif text and isinstance(tokens, Tokens):
        between = joint(tokens.tokenizer)
    return {
        "made_by": f"rejoinder {__version__}",
        "kind": kind,
        "graphs": {
            name: {"inputs": graph.inputs, "outputs": graph.outputs} for name, graph in made.items()
        },
        "score": SCORES[kind],
        "higher_is_better": True,
        "tokenizer": next(iter(_tokenizer_files(ranker, text))),
        "between_pieces": between,
        "text": asdict(tokens.style),
        "pad": tokens.pad,
        "padding_counts": ranker.module.reads_padding,
    }


SCORES = {
    "bi": "the product of the context's vector and the candidate's",
    "poly": "what score.onnx gives for codes and mask of contexts and vectors of candidates",
    "cross": "what cross.onnx gives for context and candidate in one row",
}
