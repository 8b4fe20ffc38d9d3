"""A ranker as an export wants it: plain weights in 32 bits, on the processor."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import torch

from rejoinder import checkpoint
from rejoinder.ranker import TextRanker


def settled(ranker: TextRanker) -> TextRanker:
    """The ranker itself, or a copy of it whose adapters are merged, in fp32, on the processor."""
    state = ranker.module.state_dict()
    if any(".lora_" in name for name in state):
        with tempfile.TemporaryDirectory() as folder:
            checkpoint.save(ranker, Path(folder) / "model", card=ranker.card)
            merged = checkpoint.load(Path(folder) / "model")
            merged.name = ranker.name
            return merged
    if ranker.precision == "fp32" and all(
        weight.dtype == torch.float32 and weight.device.type == "cpu"
        for weight in state.values()
        if weight.is_floating_point()
    ):
        return ranker
    other = copy.copy(ranker)
    other.module = copy.deepcopy(ranker.module).float().cpu()
    other.precision = "fp32"
    return other
