"""rejoinder train and calibrate: make a model, and make it know how sure it is."""

from __future__ import annotations

import json as jsonlib
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter
from cyclopts.types import PositiveInt

from rejoinder.cli.application import Files, Flag, Json, app, given, table, typed
from rejoinder.config import (
    GeneratorConfig,
    ModelConfig,
    TrainConfig,
    read_overrides,
    read_settings,
)
from rejoinder.errors import ConfigError
from rejoinder.progress import Bar, note
from rejoinder.shape import Shape
from rejoinder.text import TextFormat

OVERRIDE = re.compile(r"(model|train|text|shape)\.\w+=")
Sections = Mapping[str, type[Any]]
COMMON: Sections = {"train": TrainConfig, "text": TextFormat}
OWN = "An encoder of our own, with --base native"  # heading of options in the help


train_app = App(
    name="train",
    help="Train a model; again with the same --out, it goes on where it stopped.",
)
app.command(train_app)


@dataclass(frozen=True, kw_only=True)
class Around:
    """What a training reads and writes beside its settings."""

    data: Files
    """Files of dialogues in any format that `rejoinder data check` reads."""
    dev: Path | None = None
    """Dialogues to validate on; the best checkpoint on them is kept."""
    out: Path | None = None
    """Folder of the run; a new one in runs/, named after time and kind, if not given."""
    init_model: str | None = None
    """Start from this model (a folder or a name of the zoo), which may be of another kind."""
    dictionary: Path | None = None
    """With --base native: ParlAI's .dict file, its .codecs beside it, in place of a tokenizer that
    is learned from the data."""
    config: Path | None = None
    """A TOML file with [model], [train], [text] and [shape]; flags win over it."""
    skip_bad: Flag = False
    """Leave bad lines out and report them, instead of stopping at the first."""
    device: str = "cpu"
    """Where to compute, such as cuda."""
    tensorboard: Flag = False
    """Write curves; needs the extra: pip install 'rejoinder[tensorboard]'."""
    wandb: Flag = False
    """Send them to Weights & Biases; needs the extra: pip install 'rejoinder[wandb]'."""
    report: bool = True
    """--no-report leaves out report.md, which measures the best checkpoint and baselines."""


@train_app.default
def train(
    kind: Literal["bi", "poly", "cross"],
    /,
    *overrides: str,
    around: Annotated[Around, Parameter(name="*")],
    preset: Literal["parlai-bi", "parlai-poly", "parlai-cross"] | None = None,
    model: Annotated[ModelConfig | None, Parameter(name="*")] = None,
    settings: Annotated[TrainConfig | None, Parameter(name="*")] = None,
    style: Annotated[TextFormat | None, Parameter(name="*")] = None,
    shape: Annotated[Shape | None, Parameter(name="*", group=OWN)] = None,
) -> None:
    """Train a bi-, poly- or cross-encoder; again with the same --out, it goes on where it stopped.

    Parameters
    ----------
    overrides
        Settings as words, such as train.lr=3e-5 model.dropout=0.1; they win over --config.
    preset
        Settings to begin with: those that ParlAI's rankers were tuned with. --config wins.
    """
    sections: Sections = {"model": ModelConfig, **COMMON, "shape": Shape}
    _train(kind, sections, overrides, around, (model, settings, style, shape), preset)


@train_app.command
def generator(
    *overrides: str,
    around: Annotated[Around, Parameter(name="*")],
    preset: Literal["transfertransfo"] | None = None,
    model: Annotated[GeneratorConfig | None, Parameter(name="*")] = None,
    settings: Annotated[TrainConfig | None, Parameter(name="*")] = None,
    style: Annotated[TextFormat | None, Parameter(name="*")] = None,
) -> None:
    """Train a language model that writes replies and tells which of several follows.

    Parameters
    ----------
    overrides
        Settings as words, such as train.lr=3e-5 model.lm_coef=1; they win over --config.
    preset
        Settings to begin with: transfertransfo has those of the paper's code. --config wins.
    """
    sections: Sections = {"model": GeneratorConfig, **COMMON}
    _train("generator", sections, overrides, around, (model, settings, style), preset)


def _train(
    kind: str,
    sections: Sections,
    overrides: Sequence[str],
    around: Around,
    parts: Sequence[Any],
    preset: str | None = None,
) -> None:
    """Settings from the least to the most particular: preset, file, words, flags."""
    from rejoinder import tasks

    values = {} if around.config is None else read_settings(around.config, sections)
    # --data takes all words that follow it, these too
    words = [str(path) for path in around.data if OVERRIDE.match(str(path))]
    data = [path for path in around.data if str(path) not in words]
    values |= read_overrides([*overrides, *words], sections)
    for part in parts:
        values |= given(part)
    if values.pop("kind", kind) != kind:
        raise ConfigError(
            f"the settings say another kind than train {kind}; leave --kind and kind = out"
        )
    folder = tasks.train(
        kind,
        data,
        dev=around.dev,
        out=around.out,
        init_model=around.init_model,
        dictionary=around.dictionary,
        skip_bad=around.skip_bad,
        device=around.device,
        command=shlex.join(["rejoinder", *typed]),
        tensorboard=around.tensorboard,
        wandb=around.wandb,
        report=around.report,
        preset=preset,
        say=note,
        **values,
    )
    if os.environ.get("RANK", "0") == "0":  # of several processes one talks
        print(folder)


@app.command
def calibrate(model: str, data: Path, /, *, limit: PositiveInt = 1000, json: Json = False) -> None:
    """Fit the confidence of MODEL (a folder) on the dialogues of DATA and store it in the folder.

    Parameters
    ----------
    limit
        The first examples to use.
    """
    from rejoinder import tasks

    with Bar("examples") as bar:
        report = tasks.calibrate(model, data, limit=limit, progress=bar)
    print(jsonlib.dumps(report) if json else table(report))
