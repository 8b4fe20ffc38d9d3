"""The card of a checkpoint: what it is, what it learned from, how it was made, how good it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rejoinder.evaluation import Report
from rejoinder.ranker import TextRanker

KINDS = {"bi": "bi-encoder", "poly": "poly-encoder", "cross": "cross-encoder"}


def card(ranker: TextRanker, name: str, origin: Mapping[str, Any], report: Report | None) -> str:
    """Markdown text of the card."""
    config = ranker.config
    lines = [
        f"# {name}",
        "",
        f"A {KINDS[config.kind]} that scores candidate replies to a dialogue, made with rejoinder "
        f"on the base `{config.base}` (sha256 of its weights {config.base_sha256[:16]}).",
        "",
        "| | |",
        "|---|---|",
        f"| data | {', '.join(origin['data'])} ({origin['examples']} examples) |",
        f"| command | `{origin['command']}` |",
        f"| started from | {origin['init_model'] or 'the base'} |",
        f"| weights | {_weights(ranker)} |",
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
    option = "--rerank" if config.kind == "cross" else "--model"
    lines += ["", f"Use it: `rejoinder chat {option} FOLDER`.", ""]
    return "\n".join(lines)


def _weights(ranker: TextRanker) -> str:
    trained = sum(p.numel() for p in ranker.module.parameters() if p.requires_grad)
    how = f"adapters of rank {ranker.config.lora}" if ranker.config.lora else "all weights"
    return f"{how}, {trained / 1e6:.1f} M trained"
