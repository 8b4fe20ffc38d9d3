"""Make models: train them, fit their confidence."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any

from rejoinder import calibration, checkpoint, zoo
from rejoinder.config import GeneratorConfig, ModelConfig, TrainConfig, from_mapping
from rejoinder.errors import ConfigError
from rejoinder.presets import KIND_OF, PRESETS
from rejoinder.shape import Shape
from rejoinder.tasks.machine import fast_precision
from rejoinder.tasks.measuring import examples_of
from rejoinder.text import TextFormat

Progress = Callable[[int, int], None]
Say = Callable[[str], None]


def train(
    kind: str,
    data: str | Path | Sequence[str | Path],
    *,
    dev: str | Path | None = None,
    out: str | Path | None = None,
    init_model: str | Path | None = None,
    dictionary: str | Path | None = None,
    skip_bad: bool = False,
    device: str = "cpu",
    command: str = "",
    tensorboard: bool = False,
    wandb: bool = False,
    report: bool = True,
    preset: str | None = None,
    say: Say = lambda _: None,
    **settings: Any,
) -> Path:
    """Train a `bi`, `poly` or `cross` ranker or a `generator`; returns the run's folder.

    The folder loads as a model.

    With `skip_bad` a bad line is told to `say` and left out. `tensorboard` and `wandb` get the
    curves; `report` says whether report.md is written at the end. `settings` are fields of
    ModelConfig (of a generator GeneratorConfig), TrainConfig and TextFormat by name, such as
    `epochs=3`; they win over those of `preset`. A ranker with `base="native"` begins from scratch:
    then fields of Shape are settings too, and `dictionary` is one of ParlAI to read with.
    """
    from rejoinder.training import processes, start
    from rejoinder.training.scratch import Scratch
    from rejoinder.training.writers import Curves

    wanted: dict[Curves, bool] = {"tensorboard": tensorboard, "wandb": wandb}
    begun = _preset(preset, kind)
    parts = split_settings({"kind": kind, **begun, **settings})
    scaling = {**begun, **settings}.get("output_scaling")
    files = [data] if isinstance(data, (str, Path)) else data
    group, device = processes.join(device)
    folder = group.told(Path(out) if out else default_out(kind))
    say = say if group.first else _silent
    start.train(
        [Path(file) for file in files],
        Path(dev) if dev else None,
        folder,
        model=parts[0],
        settings=parts[1],
        style=parts[2],
        scratch=Scratch(parts[3], Path(dictionary) if dictionary else None, scaling),
        init_model=zoo.find(init_model) if init_model else None,
        given={*settings, *(() if kind == "generator" else _shape_of(begun))},
        skip_bad=skip_bad,
        device=device,
        command=command or f"rejoinder.train({kind!r}, ...)",
        curves=[name for name, on in wanted.items() if on],
        report=report,
        say=say,
        processes=group,
    )
    return folder


def _preset(name: str | None, kind: str) -> Mapping[str, Any]:
    """The settings of a recipe. Raises ConfigError for one of another kind of model."""
    if name is None:
        return {}
    if name not in PRESETS:
        raise ConfigError(f"preset is {name!r}; known: {', '.join(PRESETS)}")
    if KIND_OF[name] != kind:
        fitting = ", ".join(one for one in PRESETS if KIND_OF[one] == kind)
        raise ConfigError(
            f"preset {name} trains a {KIND_OF[name]}, but this is train {kind}; take {fitting}"
        )
    return PRESETS[name]


def _shape_of(begun: Mapping[str, Any]) -> set[str]:
    """What a recipe for rankers says even where --init-model has it otherwise."""
    own = {field.name for field in fields(Shape)}  # of an encoder of our own, where there is one
    return begun.keys() - set(checkpoint.INHERITED) - own


def _silent(_: str) -> None:
    """What every process would say is said by the first."""


def split_settings(
    values: dict[str, Any],
) -> tuple[ModelConfig | GeneratorConfig, TrainConfig, TextFormat, Shape]:
    """Each setting to the class that has it; an unknown one is an error with the nearest name."""
    writes = values.get("kind") == "generator"
    model: type[ModelConfig | GeneratorConfig] = GeneratorConfig if writes else ModelConfig
    kinds = (model, TrainConfig, TextFormat, *(() if writes else (Shape,)))
    known = {field.name: kind for kind in kinds for field in fields(kind)}
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
            raise ConfigError(f"unknown setting {name!r}; {hint}")

    def part(kind: type[Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if known[name] is kind}

    return (
        from_mapping(model, part(model), "settings"),
        from_mapping(TrainConfig, part(TrainConfig), "settings"),
        from_mapping(TextFormat, part(TextFormat), "settings"),
        from_mapping(Shape, part(Shape), "settings"),
    )


def default_out(name: str) -> Path:
    """A new run's folder: runs/<time>_<name>."""
    return Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}_{name}"


def calibrate(
    model: str | Path,
    data: str | Path,
    *,
    limit: int | None = 1000,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Fit a checkpoint's confidence and store it; returns how well it says what is right.

    Figures of pools of one size stand under `name@size`. The card of the checkpoint says them too.
    """
    from rejoinder.training.card import store_calibration

    folder = zoo.find(model)
    held = examples_of(data)
    ranker = checkpoint.load(folder)
    ranker.precision = fast_precision()
    if ranker.is_cross:
        limit = min(limit or len(held), calibration.CROSS_LIMIT)
    report = calibration.fit_and_report(ranker, held[:limit], others=held, progress=progress)
    store_calibration(folder, report)
    return report.as_json()
