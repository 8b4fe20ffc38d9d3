"""Peak memory and time per example of large training batches, next to small ones.

    python bench/memory.py DATA [--small 64] [--large 512] [--examples 1024]

Each size is trained in a process of its own (bi-encoder, default settings). What the process takes
before the first step is part of the peak.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from rejoinder import checkpoint
from rejoinder.config import ModelConfig, TrainConfig
from rejoinder.data import read
from rejoinder.memory import keep_freed_memory, peak_memory
from rejoinder.schema import examples
from rejoinder.text import TextFormat
from rejoinder.training.source import listed
from rejoinder.training.stepper import Stepper


def main() -> None:
    """Parse; start a process per size and print one JSON line, or be that process."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("data", type=Path)
    parser.add_argument("--small", type=int, default=64)
    parser.add_argument("--large", type=int, default=512)
    parser.add_argument("--examples", type=int, default=1024)
    parser.add_argument("--one", type=int, help="measure this batch size, in this process")
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measured(asked.data, asked.one, asked.examples)))
        return
    found = {}
    for name, size in (("small", asked.small), ("large", asked.large)):
        command = [sys.executable, __file__, str(asked.data), "--one", str(size)]
        command += ["--examples", str(asked.examples)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[name] = json.loads(done.stdout)
    small, large = found["small"], found["large"]
    result = {
        "bench": "memory",
        **found,
        "memory_ratio": round(large["peak_mib"] / small["peak_mib"], 3),
        "time_ratio": round(large["seconds_per_example"] / small["seconds_per_example"], 3),
    }
    print(json.dumps(result))


def measured(data: Path, size: int, count: int) -> dict[str, float]:
    """Train on `count` examples in batches of `size`."""
    keep_freed_memory()
    learned = list(examples(read(data)))
    ranker = checkpoint.fresh(ModelConfig(), TextFormat(), trainable=True)
    config = TrainConfig(batch_size=size)
    stepper = Stepper(ranker, listed(learned, ranker.tokens, config), 1000, say=lambda _: None)
    stepper.step(0)
    started = time.perf_counter()
    steps = max(1, count // size)
    for number in range(1, steps + 1):
        stepper.step(number)
    seconds = time.perf_counter() - started
    return {
        "batch_size": size,
        "peak_mib": round(peak_memory() / 2**20),
        "seconds_per_example": round(seconds / (steps * size), 4),
    }


if __name__ == "__main__":
    main()
