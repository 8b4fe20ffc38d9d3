"""Average the weights of checkpoints that were trained from one base.

    python tools/average_checkpoints.py OUT RUN RUN ... [--sharpness 7] [--rank 32]

The mean of such checkpoints is often better than each (Wortsman et al. 2022, "Model soups",
arXiv:2203.05482): what they overfitted differs, what they learned does not. What is averaged is the
product of each pair of adapters, that is, the change of the base's weight; the adapters of the
result are the best ones of `--rank` for that mean (by its singular values). The kind is that of
the first run; a weight that others lack is its own. `--sharpness` sets the scale inside a
poly-encoder's attention; choose it on a development set. OUT becomes the folder of a run, to be
measured and to train on from.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from rejoinder import checkpoint, saved
from rejoinder.config import ModelConfig, from_mapping
from rejoinder.errors import RejoinderError
from rejoinder.ranker import TextRanker
from rejoinder.weights import plain_name, state

FACTOR = 2.0  # lora_alpha / lora of the result
WEIGHTS = "model.safetensors"


def main() -> None:
    """Parse, average, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--sharpness", type=float)
    parser.add_argument("--rank", type=int, default=32)
    asked = parser.parse_args()
    folders = [saved.resolve(run) for run in asked.runs]
    found = with_rank(folders[0], asked.rank)
    own = state(found.module, only_adapters=True)
    given = [deltas(folder) for folder in folders]
    target = {plain_name(n): tensor for n, tensor in found.module.state_dict().items()}
    with torch.no_grad():
        for name in own:
            if name.endswith(".lora_A.weight"):
                tower = name.removesuffix(".lora_A.weight")
                a, b = factors(mean([weights[tower] for weights in given]), asked.rank)
                target[name].copy_(a)
                target[f"{tower}.lora_B.weight"].copy_(b / FACTOR)
            elif ".lora_" not in name:
                target[name].copy_(mean([w[name] for w in given if name in w]))
    names = ", ".join(run.name for run in asked.runs)
    command = f"python tools/average_checkpoints.py {asked.out} {' '.join(map(str, asked.runs))}"
    if asked.rank != 32:
        command += f" --rank {asked.rank}"
    if asked.sharpness:
        found.module.sharpness.log.data.fill_(math.log(asked.sharpness))
        command += f" --sharpness {asked.sharpness:g}"
    one = checkpoint.load(asked.runs[0])
    training = one.training | {"command": command, "init_model": names, "scores": None}
    lines = [
        f"| command | `{command}` |"
        if line.startswith("| command |")
        else f"| average of | {names} |"
        if line.startswith("| started from |")
        else line.replace(f"# {asked.runs[0].name}", f"# {asked.out.name}")
        for line in one.card.split("\n")
        if not line.startswith(("| development set |", "| hits@1 |", "| MRR |"))
    ]
    checkpoint.save(found, asked.out / "best", card="\n".join(lines), training=training)


def with_rank(folder: Path, rank: int) -> TextRanker:
    """A ranker like that in a folder, with fresh adapters of another rank."""
    config = from_mapping(ModelConfig, saved.read_config(folder)["model"], str(folder))
    ranker = checkpoint.load(folder)
    config = replace(config, lora=rank, lora_alpha=round(FACTOR * rank))
    return checkpoint.fresh(config, ranker.tokens.style, trainable=True)


def deltas(folder: Path) -> dict[str, Tensor]:
    """What adapters change of each weight, and the ranker's own weights as they are."""
    weights = {name: weight.float() for name, weight in load_file(folder / WEIGHTS).items()}
    model = saved.read_config(folder)["model"]
    found = {name: weight for name, weight in weights.items() if ".lora_" not in name}
    for name, a in weights.items():
        if name.endswith(".lora_A.weight"):
            tower = name.removesuffix(".lora_A.weight")
            b = weights[f"{tower}.lora_B.weight"]
            found[tower] = model["lora_alpha"] / model["lora"] * (b @ a)
    return found


def factors(delta: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The nearest product of rank `rank`: (out, in) -> A (rank, in), B (out, rank)."""
    u, s, v = torch.linalg.svd(delta, full_matrices=False)
    root = s[:rank].sqrt()
    return root[:, None] * v[:rank], u[:, :rank] * root


def mean(tensors: Sequence[Tensor]) -> Tensor:
    """Of all alike."""
    return torch.stack(list(tensors)).mean(0)


if __name__ == "__main__":
    try:
        main()
    except (RejoinderError, OSError) as error:
        sys.exit(f"{Path(__file__).name}: {error}")
