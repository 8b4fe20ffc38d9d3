"""The graphs of an export, run on sample texts and held against the ranker."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rejoinder.batching import pad
from rejoinder.errors import CheckpointError
from rejoinder.exports.checking import sample, share
from rejoinder.extras import require
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue

Arrays = dict[str, "np.ndarray[Any, Any]"]
Run = Callable[[str, Arrays], Arrays]  # a graph, by name, and what goes in -> what comes out
Rows = Sequence[Sequence[int]]


def difference(ranker: TextRanker, folder: Path, graphs: Collection[str], out: Path) -> float:
    """How far the scores of a folder's graphs are from ours, as a share of the largest score.

    Raises CheckpointError, naming `out`, where that is more than rounding, or nothing comes out.
    """
    dialogues, replies = sample()
    ours = torch.stack(ranker.score_many(dialogues, [replies] * len(dialogues)))
    try:
        theirs = Runner(ranker, graphs, sessions(folder)).scores(dialogues, replies)
    except Exception as error:  # the runtime has a dozen kinds of errors, all with a text
        reason = " ".join(str(error).split())[:160]
        raise CheckpointError(
            f"{out}: not written: onnxruntime cannot run it ({reason}); use the model with "
            "rejoinder"
        ) from error
    return share(ours, theirs, out, "onnxruntime")


def sessions(folder: Path) -> Run:
    """Graphs of a folder, run by onnxruntime on the processor."""
    runtime = require("onnxruntime", "export")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors only
    options.intra_op_num_threads = torch.get_num_threads()  # unasked it binds threads to cores
    opened: dict[str, Any] = {}

    def run(name: str, inputs: Arrays) -> Arrays:
        if name not in opened:
            file = str(folder / name)
            opened[name] = runtime.InferenceSession(
                file, options, providers=["CPUExecutionProvider"]
            )
        names = [one.name for one in opened[name].get_outputs()]
        return dict(zip(names, opened[name].run(names, inputs), strict=True))

    return run


class Runner:
    """Scores through graphs, with rows of token ids that the ranker makes."""

    def __init__(self, ranker: TextRanker, graphs: Collection[str], run: Run) -> None:
        self.ranker = ranker
        self.run = run
        one = "encoder.onnx" in graphs
        self.context = "encoder.onnx" if one else "context.onnx"
        self.candidate = "encoder.onnx" if one else "candidate.onnx"

    def scores(self, dialogues: Sequence[Dialogue], replies: Sequence[str]) -> Tensor:
        """Of every dialogue with every reply: -> (B, N)."""
        tokens = self.ranker.tokens
        contexts, candidates = tokens.contexts(dialogues), tokens.candidates(replies)
        alone = self.ranker.is_cross or self.ranker.module.reads_padding
        groups = [[row] for row in contexts] if alone else [contexts]
        score = self._together if self.ranker.is_cross else self._apart
        return torch.cat([torch.from_numpy(score(group, candidates)) for group in groups])

    def _apart(self, contexts: Rows, candidates: Rows) -> Any:
        left = self.run(self.context, self._padded(contexts))
        right = self.run(self.candidate, self._padded(candidates))["vectors"]
        if "codes" in left:
            return self.run("score.onnx", {**left, "candidates": right})["scores"]
        return left["vectors"] @ right.T

    def _together(self, contexts: Rows, candidates: Rows) -> Any:
        (context,) = contexts
        found = self._padded([[*context, *row] for row in candidates])
        types = [[0] * len(context) + [1] * len(row) for row in candidates]
        found["token_type_ids"] = pad(types)[0].numpy()
        return self.run("cross.onnx", found)["scores"][None]

    def _padded(self, rows: Rows) -> Arrays:
        ids, mask = pad(rows, self.ranker.tokens.pad)
        return {"input_ids": ids.numpy(), "attention_mask": mask.long().numpy()}
