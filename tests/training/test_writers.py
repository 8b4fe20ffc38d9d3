"""Scalars go to TensorBoard and W&B alike."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rejoinder.errors import MissingExtra
from rejoinder.training.writers import Curves, Several, open_writer


class Kept:
    """A writer that keeps what it is given in a list that may be shared."""

    def __init__(self, rows: list[tuple[str, float, int]], *, broken: bool = False) -> None:
        self.rows, self.broken, self.closed = rows, broken, False

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.rows.append((name, value, step))

    def close(self) -> None:
        self.closed = True
        if self.broken:
            raise OSError("disk is full")


def test_all_writers_get_all_scalars_and_are_closed() -> None:
    rows: list[tuple[str, float, int]] = []
    writers = [Kept(rows), Kept(rows, broken=True), Kept(rows)]
    several = Several(writers)
    several.add_scalar("train/loss", 0.5, 3)
    assert rows == [("train/loss", 0.5, 3)] * 3
    with pytest.raises(OSError, match="disk is full"):
        several.close()
    assert all(writer.closed for writer in writers)


def test_nobody_asks_for_curves(tmp_path: Path) -> None:
    assert open_writer([], tmp_path, {}, print) is None


@pytest.mark.parametrize(
    ("name", "module"), [("wandb", "wandb"), ("tensorboard", "torch.utils.tensorboard")]
)
def test_a_missing_extra_says_how_to_get_it(
    name: Curves, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    with pytest.raises(MissingExtra, match=rf"pip install 'rejoinder\[{name}\]'"):
        open_writer([name], tmp_path / "run", {}, print)


WANDB = """
from pathlib import Path
from rejoinder.training.writers import open_writer

writer = open_writer(["wandb"], Path("mine"), {"lr": 0.5}, print)
for step in (1, 2):
    writer.add_scalar("train/loss", 1 / step, step)
    writer.add_scalar("dev/hits@1", 0.5, step)
writer.close()
"""


def with_wandb(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """What W&B does in a process of its own: it remembers what it first read of the environment."""
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    theirs = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    return subprocess.run(
        [sys.executable, "-c", WANDB],
        cwd=folder,
        env={**theirs, "HOME": str(folder), "NETRC": str(folder / "none"), **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_wandb_without_a_network(tmp_path: Path) -> None:
    done = with_wandb(tmp_path, WANDB_MODE="offline")
    assert done.returncode == 0, done.stderr
    (kept,) = (tmp_path / "mine" / "wandb").glob("offline-run-*")
    assert done.stdout == f"curves go to {kept.relative_to(tmp_path)}\n"
    (rows,) = kept.glob("*.wandb")
    content = rows.read_bytes()
    for name in (b"train/loss", b"dev/hits@1", b"rejoinder", b"mine", b"lr"):
        assert name in content


@pytest.mark.slow
def test_wandb_without_a_key(tmp_path: Path) -> None:
    done = with_wandb(tmp_path)
    assert done.returncode == 1
    assert "RejoinderError: --wandb: Weights & Biases cannot be reached" in done.stderr
    assert "WANDB_MODE=offline" in done.stderr
