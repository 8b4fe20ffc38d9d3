"""The folders of training runs, read as they lie there: settings, log, position, origin.

Nothing here loads a model, so a hundred runs are listed in a moment.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rejoinder.config import GeneratorConfig, ModelConfig, TrainConfig
from rejoinder.errors import ConfigError, RejoinderError
from rejoinder.shape import Shape
from rejoinder.text import TextFormat

LOWER_IS_BETTER = {"mean_rank", "perplexity"}
SOURCES = ("data", "dev", "init_model", "dictionary")  # named in settings.json beside the sections
Row = dict[str, Any]


@dataclass(frozen=True)
class Recorded:
    """What the folder of a run says of it. Rows are sorted by step, a repeated one counts once."""

    folder: Path
    settings: dict[str, Any]  # by name: those of model, train, text and shape, and SOURCES
    steps: list[Row]  # step, loss, examples_per_second and more
    validations: list[Row]  # step, dev
    position: Row  # step, seconds, waited; of the last save
    origin: Row  # of the best checkpoint: command, data, versions; empty before there is one
    unread: int  # lines of the log that are none of ours, such as one cut off by a crash
    written: float  # time of the last change of the log, seconds since 1970

    @property
    def done(self) -> int:
        """Optimizer steps done."""
        return int(max([self.position.get("step", 0), *(row["step"] for row in self.steps[-1:])]))

    @property
    def planned(self) -> int | None:
        """Optimizer steps of the whole run; None where its folder does not say."""
        told = [self.settings["max_steps"], *(row.get("of", 0) for row in self.steps)]
        return next((int(steps) for steps in told if steps), None)

    @property
    def seconds(self) -> float:
        """Of training, over all parts."""
        last = self.steps[-1].get("seconds", 0.0) if self.steps else 0.0
        return float(max(self.position.get("seconds", 0.0), last))

    @property
    def best(self) -> float | None:
        """The best value of the run's metric on dev; None without a validation."""
        values = [row["dev"][self.settings["metric"]] for row in self.validations]
        choose = min if self.settings["metric"] in LOWER_IS_BETTER else max
        return float(choose(values)) if values else None

    @property
    def finished(self) -> bool:
        """Whether it ended as its settings say: steps done, time over, or no progress."""
        stop, minutes = self.settings["stop_after"], self.settings["max_time"]
        return (
            (self.planned is not None and self.done >= self.planned)
            or bool(stop and self.position.get("waited", 0) >= stop)
            or bool(minutes and self.seconds > 60 * minutes)
        )


def sections(kind: str = "") -> dict[str, type[Any]]:
    """The sections of a run's settings, and the class of each, for a model of a kind."""
    if kind == "generator":
        return {"model": GeneratorConfig, "train": TrainConfig, "text": TextFormat}
    return {"model": ModelConfig, "train": TrainConfig, "text": TextFormat, "shape": Shape}


def defaults(kind: str = "") -> dict[str, Any]:
    """All settings of a kind by name as they are if nobody says anything."""
    kinds = sections(kind).values()
    return {field.name: _plain(field.default) for k in kinds for field in fields(k)}


def read_run(folder: Path) -> Recorded:
    """Read the folder of a run. Raises ConfigError, naming the file, if it is none or broken."""
    file = folder / "settings.json"
    if not file.is_file():
        raise ConfigError(
            f"{folder}: no settings.json in it, so it is no run; expected a folder that "
            "`rejoinder train --out` wrote"
        )
    log = folder / "log.jsonl"
    rows, unread = _log(log)
    position = _object(folder / "last" / "position.json")
    numbers = ("step", "seconds", "waited")
    if not all(_is_number(position.get(name, 0)) for name in numbers):
        raise _broken(folder / "last" / "position.json", f"{', '.join(numbers)} as numbers")
    origin = _object(folder / "best" / "config.json").get("training") or {}
    settings = _settings(file)
    metric = settings["metric"]
    return Recorded(
        folder,
        settings,
        [row for row in rows if _is_number(row.get("loss"))],
        [row for row in rows if _is_number(_dev_of(row).get(metric))],
        position,
        origin if isinstance(origin, dict) else {},
        unread,
        (log if log.is_file() else file).stat().st_mtime,
    )


def read_runs(folder: Path) -> tuple[list[Recorded], list[str]]:
    """The runs in a folder, newest first, and a line on each that cannot be read.

    A folder that is a run itself is a list of one. Raises ConfigError if there is no such folder.
    """
    try:
        inside = [one for one in sorted(folder.iterdir()) if (one / "settings.json").exists()]
    except OSError as error:
        raise ConfigError(
            f"{folder}: {error.strerror}; expected the folder that runs are in, such as runs"
        ) from None
    found, unreadable = [], []
    for one in [folder] if (folder / "settings.json").is_file() else inside:
        try:
            found.append(read_run(one))
        except RejoinderError as error:
            unreadable.append(str(error))
        except OSError as error:
            unreadable.append(f"{one}: cannot be read ({error.strerror or error})")
    return sorted(found, key=lambda one: -one.written), unreadable


def summary(runs: Sequence[Recorded]) -> list[dict[str, Any]]:
    """A plain row for each run, with the settings in which they are not all alike."""
    names = list(dict.fromkeys(name for run in runs for name in run.settings))
    apart = [name for name in names if len({json.dumps(r.settings.get(name)) for r in runs}) > 1]
    return [
        {
            "folder": str(run.folder),
            "kind": run.settings["kind"],
            "steps": run.done,
            "planned": run.planned,
            "metric": run.settings["metric"],
            "best": run.best,
            "minutes": round(run.seconds / 60, 1),
            "state": "finished" if run.finished else "unfinished",
            "settings": {name: run.settings.get(name) for name in apart if name != "kind"},
        }
        for run in runs
    ]


def changed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are not as they would be by themselves; sources of data are none."""
    usual = defaults(str(settings.get("kind")))
    return {
        name: value
        for name, value in settings.items()
        if name in usual and value != usual[name] and name != "base_sha256"
    }


def _settings(file: Path) -> dict[str, Any]:
    """All settings by name; those that an older version did not know have their defaults."""
    read = _object(file)
    model = read.get("model")
    kind = str(model.get("kind")) if isinstance(model, dict) else ""
    found = defaults(kind)
    told = [name for name in sections(kind) if name != "shape" or name in read]  # from scratch
    for section in told:
        if not isinstance(read.get(section), dict):
            raise _broken(file, f"a section {section!r}")
        found |= read[section]
    for name in ("max_steps", "stop_after", "max_time", "batch_size", "update_every"):
        if not _is_number(found[name]):
            raise _broken(file, f"{name} as a number, but it is {found[name]!r}")
    return found | {name: read.get(name) for name in SOURCES}


def _log(file: Path) -> tuple[list[Row], int]:
    """Rows of a log by step, and how many lines are none.

    A run that was broken off and resumed has some steps twice; they are the same, to the last bit.
    """
    if not file.exists():
        return [], 0
    rows: dict[tuple[int, bool, bool], Row] = {}
    unread = 0
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
            rows[int(row["step"]), "mined" in row, "dev" in row] = row
        except (ValueError, TypeError, KeyError, OverflowError):
            unread += 1
    return [rows[key] for key in sorted(rows)], unread


def _dev_of(row: Row) -> Row:
    return row["dev"] if isinstance(row.get("dev"), dict) else {}


def _object(file: Path) -> Row:
    """A JSON object in a file; empty if there is no file."""
    if not file.exists():
        return {}
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _broken(file, f"JSON, but it is broken ({error})") from None
    if not isinstance(read, dict):
        raise _broken(file, f"a JSON object, but it is a {type(read).__name__}")
    return read


def _broken(file: Path, expected: str) -> ConfigError:
    return ConfigError(f"{file}: expected {expected}; the run was written by another program")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    """A setting as JSON gives it back."""
    return list(value) if isinstance(value, tuple) else value
