"""rejoinder train and calibrate: make a model, and make it know how sure it is."""

from __future__ import annotations

import json as jsonlib
import os
import re
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.types import PositiveInt

from rejoinder.cli.application import Files, Flag, Json, app, table, typed
from rejoinder.config import ModelConfig, TrainConfig, read_overrides, read_settings
from rejoinder.errors import ConfigError
from rejoinder.progress import Bar, note
from rejoinder.text import TextFormat

OVERRIDE = re.compile(r"(model|train|text)\.\w+=")


@app.command
def train(
    kind: Literal["bi", "poly", "cross"],
    /,
    *overrides: str,
    data: Files,
    dev: Path | None = None,
    out: Path | None = None,
    init_model: str | None = None,
    config: Path | None = None,
    model: Annotated[ModelConfig | None, Parameter(name="*")] = None,
    settings: Annotated[TrainConfig | None, Parameter(name="*")] = None,
    style: Annotated[TextFormat | None, Parameter(name="*")] = None,
    skip_bad: Flag = False,
    device: str = "cpu",
    tensorboard: Flag = False,
    wandb: Flag = False,
    report: bool = True,
) -> None:
    """Train a bi-, poly- or cross-encoder; again with the same --out, it goes on where it stopped.

    Parameters
    ----------
    overrides
        Settings as words, such as train.lr=3e-5 model.dropout=0.1; they win over --config.
    data
        Files of dialogues in any format that `rejoinder data check` reads.
    dev
        Dialogues to validate on; the best checkpoint on them is kept, and confidence fitted.
    out
        Folder of the run; a new one in runs/, named after time and kind, if not given.
    init_model
        Start from this model (a folder or a name of the zoo), which may be of another kind.
    config
        A TOML file with [model], [train] and [text]; flags win over it.
    skip_bad
        Leave bad lines out and report them, instead of stopping at the first.
    tensorboard
        Write curves; needs the extra: pip install 'rejoinder[tensorboard]'.
    wandb
        Send them to Weights & Biases; needs the extra: pip install 'rejoinder[wandb]'.
    report
        --no-report leaves out report.md, which measures the best checkpoint and baselines.
    """
    from rejoinder import tasks

    sections = {"model": ModelConfig, "train": TrainConfig, "text": TextFormat}
    values = {} if config is None else read_settings(config, sections)
    # --data takes all words that follow it, these too
    words = [str(path) for path in data if OVERRIDE.match(str(path))]
    data = [path for path in data if str(path) not in words]
    values |= read_overrides([*overrides, *words], sections)
    for part in (model, settings, style):
        values |= _given(part)
    if values.pop("kind", kind) != kind:
        raise ConfigError(
            f"the settings say another kind than train {kind}; leave --kind and kind = out"
        )
    folder = tasks.train(
        kind,
        data,
        dev=dev,
        out=out,
        init_model=init_model,
        skip_bad=skip_bad,
        device=device,
        command=shlex.join(["rejoinder", *typed]),
        tensorboard=tensorboard,
        wandb=wandb,
        report=report,
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


def _given(part: Any) -> dict[str, Any]:
    """The settings that flags have set, also to what is the default: they win over a file."""
    if part is None:
        return {}
    flags = {word.partition("=")[0] for word in typed if word.startswith("--")}
    names = {name.removeprefix("no-") for name in (flag[2:] for flag in flags)}
    return {
        name: getattr(part, name)
        for name in part.__dataclass_fields__
        if name.replace("_", "-") in names or name in names
    }
