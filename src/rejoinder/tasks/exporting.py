"""Models become folders of other libraries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from rejoinder import checkpoint, zoo
from rejoinder.errors import ConfigError
from rejoinder.exports.cross import export_cross
from rejoinder.exports.onnx import export_onnx
from rejoinder.exports.sentence import export_sentence
from rejoinder.files import check_new
from rejoinder.ranker import TextRanker
from rejoinder.saved import kind_of

Target = Literal["sentence-transformers", "onnx", "transformers"]
Export = Callable[[TextRanker, Path], dict[str, Any]]
SENTENCE: dict[str, Export] = {"cross": export_cross}  # the others are vectors, or refused


def export_model(model: str | Path, to: Target, out: str | Path) -> dict[str, Any]:
    """Write a model to `out`, a new folder, as another library has it, and check that it agrees.

    -> model, kind, what was written, megabytes, and the largest difference of its scores from ours
    as a share of the largest score. Raises ConfigError for a model that the library cannot follow,
    MissingExtra where it is not installed, CheckpointError where what was written scores otherwise,
    RejoinderError where `out` is not empty; then nothing is written.
    """
    folder, out = zoo.find(model), Path(out)
    kind = kind_of(folder)
    _check_target(str(model), kind, to)
    check_new(out)
    name = Path(model).name
    if kind == "generator":
        facts = _generator(folder, out)
    else:
        ranker = checkpoint.load(folder)
        ranker.name = name or ranker.name
        export = export_onnx if to == "onnx" else SENTENCE.get(kind, export_sentence)
        facts = export(ranker, out)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    return {"model": str(model), "kind": kind, "to": to, **facts, "megabytes": size / 1e6}


def _check_target(model: str, kind: str, to: Target) -> None:
    """Raise ConfigError where a library has no such models at all."""
    if kind == "generator" and to != "transformers":
        raise ConfigError(
            f"{model}: is a generator, which writes replies; expected a ranker for --to {to}, so "
            "take --to transformers"
        )
    if kind != "generator" and to == "transformers":
        raise ConfigError(
            f"{model}: is a ranker, of which transformers has no like; expected a generator for "
            "--to transformers, so take --to sentence-transformers or onnx"
        )


def _generator(folder: Path, out: Path) -> dict[str, Any]:
    from rejoinder import generators
    from rejoinder.exports.causal import export_causal

    return export_causal(generators.load(folder), out)
