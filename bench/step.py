"""Where the time of a training step goes, by kind of work, in percent.

    python bench/step.py DATA [--kind bi] [--lora 32] [--steps 3]

Steps of 64 with the default settings, after one to warm up, under torch's profiler: time of each
operation itself, without what it calls, summed over forward and backward. The rest of the step
(Python, tokenizing, padding) is what the profiler does not see in any operation.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from rejoinder import checkpoint
from rejoinder.config import ModelConfig, TrainConfig
from rejoinder.data import read
from rejoinder.errors import RejoinderError
from rejoinder.memory import keep_freed_memory
from rejoinder.schema import examples
from rejoinder.text import TextFormat
from rejoinder.training.source import listed
from rejoinder.training.stepper import Stepper

# Kinds of work by what the name of an operation contains, the first that fits.
KINDS = {
    "attention": ("attention",),
    "linear layers": ("mm", "linear", "dot"),
    "normalisation": ("norm",),
    "activation": ("gelu",),
    "softmax and loss": ("softmax", "nll", "logsumexp"),
    "optimizer": ("adam", "foreach", "lerp", "addcdiv", "addcmul"),
    "word vectors": ("embedding", "index", "gather", "scatter"),
    "copies and casts": ("copy", "to", "contiguous", "clone", "cat", "fill", "zero", "empty"),
}


def main() -> None:
    """Parse, profile, print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("data", type=Path)
    parser.add_argument("--kind", choices=["bi", "poly", "cross"], default="bi")
    parser.add_argument("--lora", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=3)
    asked = parser.parse_args()
    keep_freed_memory()
    ranker = checkpoint.fresh(
        ModelConfig(kind=asked.kind, lora=asked.lora), TextFormat(), trainable=True
    )
    config = TrainConfig(batch_size=asked.batch_size)
    data = listed(list(examples(read(asked.data))), ranker.tokens, config)
    stepper = Stepper(ranker, data, 10_000, say=lambda _: None)
    stepper.step(0)
    started = time.perf_counter()
    for number in range(asked.steps):
        stepper.step(1 + number)
    seconds = time.perf_counter() - started
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        started = time.perf_counter()
        for number in range(asked.steps):
            stepper.step(1 + asked.steps + number)
        watched = time.perf_counter() - started
    spent: dict[str, float] = {}
    for event in seen.key_averages():
        kind = kind_of(event.key)
        spent[kind] = spent.get(kind, 0.0) + event.self_cpu_time_total / 1e6
    spent["outside operations"] = watched - sum(spent.values())
    result = {
        "bench": "step",
        "kind": asked.kind,
        "lora": asked.lora,
        "batch_size": asked.batch_size,
        "steps": asked.steps,
        "examples_per_second": round(asked.steps * asked.batch_size / seconds, 1),
        "percent": {
            name: round(100 * value / watched, 1)
            for name, value in sorted(spent.items(), key=lambda one: -one[1])
        },
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
    }
    print(json.dumps(result))


def kind_of(name: str) -> str:
    """An operation's kind of work."""
    plain = name.lower().removeprefix("aten::")
    for kind, parts in KINDS.items():
        if any(part in plain for part in parts):
            return kind
    return "all else"


if __name__ == "__main__":
    try:
        main()
    except RejoinderError as error:
        sys.exit(f"{Path(__file__).name}: {error}")
