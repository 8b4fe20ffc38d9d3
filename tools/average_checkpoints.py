"""Average the weights of checkpoints of one shape that were trained one from the other.

    python tools/average_checkpoints.py OUT RUN RUN ... [--sharpness 7]

The mean of such checkpoints is often better than each (Wortsman et al. 2022, "Model soups",
arXiv:2203.05482): what they overfitted differs, what they learned does not. Adapters are averaged
factor by factor, which stands in for the average of their products as long as they are near each
other. `--sharpness` sets the scale inside a poly-encoder's attention; choose it on a development
set. OUT becomes the folder of a run, to be measured and to train on from.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rejoinder import checkpoint


def main() -> None:
    """Parse, average, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--sharpness", type=float)
    asked = parser.parse_args()
    rankers = [checkpoint.load(run, trainable=True) for run in asked.runs]
    found = rankers[0]
    states = [ranker.module.state_dict() for ranker in rankers]
    found.module.load_state_dict({name: mean([s[name] for s in states]) for name in states[0]})
    names = ", ".join(run.name for run in asked.runs)
    command = f"python tools/average_checkpoints.py {asked.out} {' '.join(map(str, asked.runs))}"
    if asked.sharpness:
        found.module.sharpness.log.data.fill_(math.log(asked.sharpness))
        command += f" --sharpness {asked.sharpness:g}"
    last = checkpoint.load(asked.runs[-1])
    training = last.training | {"command": command, "init_model": names, "scores": None}
    lines = [
        f"| command | `{command}` |"
        if line.startswith("| command |")
        else f"| average of | {names} |"
        if line.startswith("| started from |")
        else line.replace(f"# {asked.runs[-1].name}", f"# {asked.out.name}")
        for line in last.card.split("\n")
        if not line.startswith(("| development set |", "| hits@1 |", "| MRR |"))
    ]
    checkpoint.save(found, asked.out / "best", card="\n".join(lines), training=training)


def mean(tensors: Sequence[Tensor]) -> Tensor:
    """Of floats; anything else is the same in all of them."""
    if not tensors[0].is_floating_point():
        return tensors[0]
    return torch.stack(list(tensors)).mean(0)


if __name__ == "__main__":
    main()
