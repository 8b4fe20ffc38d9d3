"""Examples a second of training a bi-encoder, ours beside the sentence-transformers trainer.

    python bench/throughput.py DATA [--batch-size 64] [--steps 8] [--rounds 3]

Both train all weights of the same base on the same contexts and replies, as far as they go into 160
tokens, in batches of the same size with in-batch negatives, bf16 autocast and AdamW; each in its
own default order of the data. They take turns, so that a noisy machine hits both. The peer runs
with dropout as the base has it (0.1) and without, as ours does; ours also with default adapters.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from rejoinder import checkpoint
from rejoinder.config import ModelConfig, TrainConfig
from rejoinder.data import read
from rejoinder.memory import keep_freed_memory
from rejoinder.models.pretrained import find_base
from rejoinder.schema import Example, examples
from rejoinder.text import TextFormat
from rejoinder.training.source import listed
from rejoinder.training.stepper import Stepper

STYLE = TextFormat()


def main() -> None:
    """Parse, take turns, print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("data", type=Path)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    keep_freed_memory()
    learned = list(examples(read(asked.data)))
    runners = {
        "ours": ours(learned, asked.batch_size, lora=0),
        "peer": peer(learned, asked.batch_size, dropout=0.0),
        "ours_adapters": ours(learned, asked.batch_size, lora=32),
        "peer_dropout": peer(learned, asked.batch_size, dropout=0.1),
    }
    for run in runners.values():
        run(1)  # the first step allocates
    speeds: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(asked.rounds):
        for name, run in runners.items():
            started = time.perf_counter()
            run(asked.steps)
            seconds = time.perf_counter() - started
            speeds[name].append(asked.steps * asked.batch_size / seconds)
    middle = {name: statistics.median(values) for name, values in speeds.items()}
    result = {
        "bench": "throughput",
        "batch_size": asked.batch_size,
        "steps": asked.steps * asked.rounds,
        "examples_per_second": {name: round(value, 1) for name, value in middle.items()},
        "ratio": round(middle["ours"] / middle["peer"], 3),
        "ratio_defaults": round(middle["ours_adapters"] / middle["peer_dropout"], 3),
        "rounds": {name: [round(v, 1) for v in values] for name, values in speeds.items()},
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(result))


def ours(learned: list[Example], batch_size: int, lora: int) -> Callable[[int], None]:
    """Steps of our training, one call going on from the other."""
    ranker = checkpoint.fresh(ModelConfig(lora=lora), STYLE, trainable=True)
    config = TrainConfig(batch_size=batch_size, drop_persona=0.0)
    stepper = Stepper(ranker, listed(learned, ranker.tokens, config), 10_000, say=lambda _: None)
    done = 0

    def run(steps: int) -> None:
        nonlocal done
        for _ in range(steps):
            stepper.step(done)
            done += 1

    return run


def peer(learned: list[Example], batch_size: int, dropout: float) -> Callable[[int], None]:
    """Steps of the sentence-transformers trainer; each call is a trainer of its own."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    model = SentenceTransformer(str(find_base("minilm").folder), device="cpu")
    model.max_seq_length = STYLE.max_context
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = dropout
        if isinstance(getattr(layer, "dropout_prob", None), float):
            setattr(layer, "dropout_prob", dropout)  # noqa: B010 - a plain float of its attention
    tokens = checkpoint.fresh(ModelConfig(), STYLE).tokens
    pairs = {
        "anchor": [
            tokens.tokenizer.decode(ids) for ids in tokens.contexts([e.context for e in learned])
        ],
        "positive": [example.reply for example in learned],
    }
    data = Dataset.from_dict(pairs)

    def run(steps: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            settings = SentenceTransformerTrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=batch_size,
                max_steps=steps,
                bf16=True,
                use_cpu=True,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                logging_strategy="no",
            )
            loss = MultipleNegativesRankingLoss(model)
            SentenceTransformerTrainer(model, settings, train_dataset=data, loss=loss).train()

    return run


if __name__ == "__main__":
    main()
