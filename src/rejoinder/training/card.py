"""The card of a checkpoint: what it is, what it learned from, how it was made, how good it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rejoinder import checkpoint, saved
from rejoinder.calibration import Calibrated
from rejoinder.evaluation import Report
from rejoinder.files import write_bytes
from rejoinder.generator import TextGenerator
from rejoinder.ranker import TextRanker
from rejoinder.shape import NATIVE, Shape
from rejoinder.training.markdown import table

KINDS = {
    "bi": "bi-encoder",
    "poly": "poly-encoder",
    "cross": "cross-encoder",
    "generator": "generator",
}
WHAT = {"generator": "writes replies to a dialogue and scores given ones"}


def nothing(base: str) -> str:
    """Where a model started from that started from no other model."""
    return "random weights, from scratch" if base == NATIVE else "the base"


def card(
    model: TextRanker | TextGenerator, name: str, origin: Mapping[str, Any], report: Report | None
) -> str:
    """Markdown text of the card."""
    config = model.config
    what = WHAT.get(config.kind, "scores candidate replies to a dialogue")
    lines = [
        f"# {name}",
        "",
        f"A {KINDS[config.kind]} that {what}, made with rejoinder on {_base(model)}.",
        "",
        "| | |",
        "|---|---|",
        f"| data | {', '.join(origin['data'])} ({origin['examples']} examples) |",
        f"| command | `{origin['command']}` |",
        f"| started from | {origin['init_model'] or nothing(config.base)} |",
        f"| weights | {_weights(model)} |",
        f"| versions | torch {origin['torch']}, transformers {origin['transformers']}, "
        f"Python {origin['python']} |",
    ]
    if report:
        lines += [
            f"| development set | {origin['dev']}, {report.examples} examples spread over it, "
            f"{report.candidates:.0f} candidates each |",
            f"| hits@1 | {report.hits_at_1:.3f} "
            f"(95 % interval {report.low:.3f} to {report.high:.3f}) |",
            f"| MRR | {report.mrr:.3f} |",
        ]
    if report and report.perplexity is not None:
        lines.append(f"| perplexity per token of the right replies | {report.perplexity:.2f} |")
    option = "--rerank" if config.kind == "cross" else "--model"
    lines += ["", f"Use it: `rejoinder chat {option} FOLDER`.", ""]
    return "\n".join(lines)


def _base(model: TextRanker | TextGenerator) -> str:
    config = model.config
    if config.base == NATIVE:
        native = checkpoint.native_of(model.module)
        return f"a transformer of its own{_sizes(native.shape) if native else ''}"
    return f"the base `{config.base}` (sha256 of its weights {config.base_sha256[:16]})"


def _sizes(shape: Shape) -> str:
    return (
        f" ({shape.n_layers} layers, {shape.embedding_size} wide, {shape.n_heads} heads, "
        f"{shape.vocabulary:,} tokens)"
    )


def _weights(model: TextRanker | TextGenerator) -> str:
    trained = sum(p.numel() for p in model.module.parameters() if p.requires_grad)
    how = f"adapters of rank {model.config.lora}" if model.config.lora else "all weights"
    if model.config.freeze_embeddings and not model.config.lora:
        how += " but the word vectors"
    return f"{how}, {trained / 1e6:.1f} M trained"


def store_calibration(folder: Path, found: Calibrated) -> None:
    """Write a newly fitted confidence into a checkpoint, and how good it is into its card."""
    checkpoint.store_confidence(folder, found.confidence)
    folder = saved.resolve(folder)
    old = re.sub(
        r"^## Confidence\n.*?(?=^## |\Z)",
        "",
        saved.card_of(folder),
        flags=re.DOTALL | re.MULTILINE,
    )
    text = "\n".join([old.rstrip("\n"), "", *confidence_lines(asdict(found))])
    write_bytes(folder / "README.md", text.encode("utf-8", "replace"))


def confidence_lines(found: Mapping[str, Any]) -> list[str]:
    """Markdown on how well a confidence does; `found` is a `Calibrated` as plain values."""
    sizes = [
        [
            f"{one['size']:,}",
            str(one["pools"]),
            *(f"{one[name]:.3f}" for name in ("right", "error", "separation", "present")),
        ]
        for one in found["sizes"]
    ]
    bins = [[f"{b['said']:.2f}", f"{b['right']:.2f}", str(b["count"])] for b in found["bins"]]
    return [
        "## Confidence",
        "",
        f"Measured on {found['pools']} pools of candidates, crosswise: fitted on one half of the "
        "examples, asked on the other. In half of the examples no right reply is in the pool. "
        '"Right" is the reply that was really given.',
        "",
        f"Expected calibration error {found['error']:.3f}; AUROC of right against wrong first "
        f"choices {found['separation']:.3f}, of a right reply in the pool against none "
        f"{found['present']:.3f}; area under risk over coverage {found['area']:.3f} (a perfect "
        f"order would give {found['best_area']:.3f}).",
        "",
        *table(["pool", "pools", "right", "error", "AUROC right", "AUROC in pool"], sizes),
        *table(["confidence", "were right", "pools"], bins),
    ]
