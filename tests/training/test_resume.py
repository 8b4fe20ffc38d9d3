"""The state of an interrupted run: everything comes back, and a wrong one is refused."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn

from rejoinder.config import TrainConfig
from rejoinder.errors import CheckpointError, RejoinderError
from rejoinder.training.resume import Position, load_state, save_state
from rejoinder.training.steps import make_optimizer

FullDisk = Callable[[int], AbstractContextManager[None]]
POSITION = Position(
    step=7,
    seconds=1.5,
    best=0.25,
    waited=2,
    validated=1.25,
    rate={"factor": 0.5, "waited": 1, "best": 0.1},
)


def trained(
    kind: Literal["adamw", "adamax"] = "adamw", width: int = 4, seed: int = 0, steps: int = 2
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A small module with a frozen part, and its optimizer after some steps."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(3, width), nn.Linear(width, 2), nn.LayerNorm(2))
    for parameter in module[2].parameters():
        parameter.requires_grad_(False)
    config = TrainConfig(optimizer=kind, lr=0.1)
    optimizer = make_optimizer((p for p in module.parameters() if p.requires_grad), config)
    for _ in range(steps):
        step(module, optimizer)
    return module, optimizer


def step(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    module(torch.ones(1, 3)).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("kind", ["adamw", "adamax"])
def test_weights_moments_and_position_come_back(
    tmp_path: Path, kind: Literal["adamw", "adamax"]
) -> None:
    one, two = trained(kind), trained(kind, seed=1, steps=0)
    save_state(tmp_path / "last", *one, POSITION)
    assert load_state(tmp_path / "last", *two) == POSITION
    for _ in range(3):
        step(*one)
        step(*two)
    for a, b in zip(one[0].parameters(), two[0].parameters(), strict=True):
        assert a.equal(b)


def test_a_state_before_the_first_step_comes_back(tmp_path: Path) -> None:
    save_state(tmp_path / "last", *trained(steps=0), Position())
    module, optimizer = trained(seed=1, steps=0)
    assert load_state(tmp_path / "last", module, optimizer) == Position()
    assert not optimizer.state


def test_moments_live_where_their_weights_do(tmp_path: Path) -> None:
    """Shown on the meta device, the only other one everywhere; the count of steps may stay."""
    save_state(tmp_path / "last", *trained(), POSITION)
    module, _ = trained(steps=0)
    module.to("meta")
    optimizer = make_optimizer((p for p in module.parameters() if p.requires_grad), TrainConfig())
    load_state(tmp_path / "last", module, optimizer)
    kept = [(key, x.device.type) for state in optimizer.state.values() for key, x in state.items()]
    assert {key for key, _ in kept} == {"exp_avg", "exp_avg_sq", "step"}
    assert {device for key, device in kept if key != "step"} == {"meta"}


@pytest.mark.parametrize("name", ["state.safetensors", "position.json"])
@pytest.mark.parametrize("size", [None, 0, 30])
def test_a_broken_state_is_refused(tmp_path: Path, name: str, size: int | None) -> None:
    folder = tmp_path / "last"
    save_state(folder, *trained(), POSITION)
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    if size is not None:
        (folder / name).write_bytes(content[:size])
    with pytest.raises(CheckpointError, match="last: cannot be resumed from .* delete the folder"):
        load_state(folder, *trained())


@pytest.mark.parametrize("other", [nn.Linear(3, 2), trained(width=5)[0]])
def test_a_state_of_another_ranker_is_refused(tmp_path: Path, other: nn.Module) -> None:
    save_state(tmp_path / "last", *trained(), POSITION)
    optimizer = make_optimizer(other.parameters(), TrainConfig())
    with pytest.raises(CheckpointError, match="last: belongs to another ranker"):
        load_state(tmp_path / "last", other, optimizer)


def test_a_full_disk_leaves_the_state_before(tmp_path: Path, full_disk: FullDisk) -> None:
    save_state(tmp_path / "last", *trained(), POSITION)
    with full_disk(100), pytest.raises(RejoinderError, match="last: could not be written"):
        save_state(tmp_path / "last", *trained(steps=5), Position(step=9))
    assert load_state(tmp_path / "last", *trained(seed=1)) == POSITION
    assert [file.name for file in tmp_path.iterdir()] == ["last"]
