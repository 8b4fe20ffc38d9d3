"""The state that an interrupted run goes on from: safetensors and JSON, no pickle."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rejoinder.errors import CheckpointError
from rejoinder.files import whole_folder
from rejoinder.sharded import cut_like, whole

STATE_FILES = ("state.safetensors", "position.json")
HARD = "hard.negatives"  # beside model.* and optimizer.*


@dataclass
class Position:
    """Where a run stands."""

    step: int = 0  # optimizer steps done
    seconds: float = 0.0  # of training, over all parts
    best: float | None = None  # best value of the metric on dev, the higher the better
    waited: int = 0  # validations since then
    validated: float = 0.0  # seconds at the last validation
    rate: dict[str, float] | None = None  # of a plateau schedule
    scaler: dict[str, float] | None = None  # of the loss in fp16


def save_state(
    folder: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    position: Position,
    *,
    hard: Tensor | None = None,
    write: bool = True,
) -> None:
    """Write trained weights, optimizer moments, position and hard negatives, or nothing at all.

    All processes put weights in pieces together; the one with `write` writes.
    """
    tensors = {f"model.{name}": p.detach() for name, p in _trained(module)}
    for name, parameter in _trained(module):
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = torch.as_tensor(value).detach()
    tensors = {name: whole(tensor).cpu().contiguous().clone() for name, tensor in tensors.items()}
    if not write:
        return
    if hard is not None:
        tensors[HARD] = hard
    with whole_folder(folder, STATE_FILES) as new:
        save_file(tensors, new / "state.safetensors")
        text = json.dumps(asdict(position), indent=2)
        (new / "position.json").write_text(text, encoding="utf-8")


def load_state(folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> Position:
    """Take up a saved state. Raises CheckpointError if it does not belong to this ranker."""
    try:
        tensors = load_file(folder / "state.safetensors")
        position = _position(json.loads((folder / "position.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, LookupError, AttributeError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder}: cannot be resumed from ({error}); delete the folder to start again"
        ) from None
    parameters = dict(_trained(module))
    moments: dict[str, dict[str, Tensor]] = {name: {} for name in parameters}
    try:
        with torch.no_grad():
            for full, tensor in tensors.items():
                use, name = full.split(".", 1)
                if full == HARD:
                    continue
                if use == "model":
                    parameters[name].copy_(cut_like(tensor, parameters[name]))
                else:
                    key, name = name.split(".", 1)
                    moments[name][key] = tensor
    except (KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{folder}: belongs to another ranker ({error}); choose another --out, or delete the "
            "folder to start again"
        ) from None
    for name, kept in moments.items():
        if kept:
            _restore_moments(optimizer, parameters[name], kept)
    return position


def load_hard(folder: Path) -> Tensor | None:
    """The table of hard negatives that a saved state has; None if it has none."""
    return load_file(folder / "state.safetensors").get(HARD)


def _position(values: dict[str, Any]) -> Position:
    def numbers(name: str) -> dict[str, float] | None:
        kept = values.get(name)
        return {key: float(value) for key, value in kept.items()} if kept else None

    return Position(
        step=int(values["step"]),
        seconds=float(values["seconds"]),
        best=None if values["best"] is None else float(values["best"]),
        waited=int(values.get("waited", 0)),
        validated=float(values.get("validated", 0.0)),
        rate=numbers("rate"),
        scaler=numbers("scaler"),
    )


def _trained(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, p) for name, p in module.named_parameters() if p.requires_grad]


def _restore_moments(
    optimizer: torch.optim.Optimizer, parameter: nn.Parameter, kept: dict[str, Tensor]
) -> None:
    optimizer.state[parameter] = {  # the step stays on the CPU
        key: value if key == "step" else cut_like(value.to(parameter.device), parameter)
        for key, value in kept.items()
    }
