"""Where the scalars of a run go beside its log: TensorBoard, Weights & Biases, both or neither.

The loop knows `Writer` alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, Protocol

from rejoinder import extras
from rejoinder.errors import RejoinderError

Curves = Literal["tensorboard", "wandb"]
Say = Callable[[str], None]


class Writer(Protocol):
    """Takes a value of each name and step, such as `train/loss`."""

    def add_scalar(self, name: str, value: float, step: int) -> None: ...

    def close(self) -> None: ...


class WandbWriter:
    """A run of Weights & Biases; all values of one step are one row there."""

    def __init__(self, run: Any) -> None:
        self.run = run

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.run.log({name: value}, step=step)

    def close(self) -> None:
        self.run.finish()


class Several:
    """The same scalars to several writers."""

    def __init__(self, writers: Sequence[Writer]) -> None:
        self.writers = writers

    def add_scalar(self, name: str, value: float, step: int) -> None:
        for writer in self.writers:
            writer.add_scalar(name, value, step)

    def close(self) -> None:
        with ExitStack() as stack:  # closes all of them, also after one that fails
            for writer in self.writers:
                stack.callback(writer.close)


def open_writer(
    wanted: Collection[Curves], out: Path, settings: Mapping[str, Any], say: Say
) -> Writer | None:
    """The writers that are wanted as one; None if none is. `settings` go along to wandb.

    Raises MissingExtra before the training, not after it.
    """
    found: list[Writer] = []
    if "wandb" in wanted:
        found.append(_wandb(out, settings, say))
    if "tensorboard" in wanted:
        found.append(_tensorboard(out))
    return Several(found) if found else None


def _tensorboard(out: Path) -> Writer:
    module = extras.require("torch.utils.tensorboard", "tensorboard")
    writer: Writer = module.SummaryWriter(str(out))
    return writer


def _wandb(out: Path, settings: Mapping[str, Any], say: Say) -> Writer:
    """Begin a run of the project rejoinder; WANDB_PROJECT, WANDB_MODE and the like are heeded.

    A training that is resumed is a new run of the same group: W&B takes no step twice.
    """
    wandb = extras.require("wandb", "wandb")
    out.mkdir(parents=True, exist_ok=True)
    try:
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "rejoinder"),
            name=out.name,
            group=out.name,
            dir=str(out),
            config=dict(settings),
            settings=wandb.Settings(console="off", silent=True),  # our progress stays our own
        )
    except wandb.errors.Error as error:
        reason = str(error).split("\n")[0][:160]
        raise RejoinderError(
            f"--wandb: Weights & Biases cannot be reached ({reason}); log in with `wandb login`, "
            "or set WANDB_MODE=offline to keep the curves in the run's folder"
        ) from None
    say(f"curves go to {Path(run.dir).parent if run.offline else run.url}")
    return WandbWriter(run)
