"""Train a ranker on dialogues, then measure it beside BM25, which knows words only.

    python examples/own_dialogues.py                     the sample dialogues
    python examples/own_dialogues.py TRAIN DEV OUT       yours, in any format that is read

Twenty steps show that it works. For a good model take `--steps 0`, which is two epochs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rejoinder import evaluate, train
from rejoinder.candidates import SAMPLE


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description="Train a ranker on dialogues and measure it.")
    parser.add_argument("train", nargs="?", type=Path, default=SAMPLE / "train.jsonl")
    parser.add_argument("dev", nargs="?", type=Path, default=SAMPLE / "dev.jsonl")
    parser.add_argument("out", nargs="?", type=Path, default=Path("runs/own"))
    parser.add_argument("--base", default="minilm")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--max-context", type=int, default=160)
    asked = parser.parse_args()
    model = train(
        "bi",
        asked.train,
        dev=asked.dev,
        out=asked.out,
        base=asked.base,
        max_steps=asked.steps,
        max_context=asked.max_context,
        batch_size=32,
        warmup=5,
    )
    for name in ("bm25", model):
        report = evaluate(name, asked.dev, candidates="re-drawn:20", limit=100)
        print(f"{name}: hits@1 {report.hits_at_1:.2f} ({report.low:.2f} to {report.high:.2f})")


if __name__ == "__main__":
    main()
