"""Look at runs: write the report of one again, list many."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from rejoinder import runs, zoo
from rejoinder.config import TrainConfig, from_mapping
from rejoinder.data import read
from rejoinder.errors import CheckpointError, DataError
from rejoinder.runs import Recorded


def report(run: str | Path, data: str | Path | None = None, *, device: str = "cpu") -> Path:
    """Write a run's report.md again; with `data` its figures are measured anew on that file.

    Takes the examples that a validation on `data` would take. Nothing but the report is changed.
    Returns the file.
    """
    from rejoinder.training import start
    from rejoinder.training.measured import measure_run
    from rejoinder.training.report import write_report

    record = runs.read_run(Path(run))
    if data is None:
        return write_report(record.folder)
    if not record.origin:
        raise CheckpointError(
            f"{record.folder}: no best checkpoint in it yet, so nothing can be measured; repeat "
            "the command of the training, or leave the data out to see the curves"
        )
    file, settings = Path(data), _settings(record)
    held = start.dev_examples(file, read(file), settings)
    failures, calibrated = [], None
    try:
        if record.settings["kind"] != "generator":
            calibrated = start.fit_confidence(record.folder, held, settings, device)
    except DataError as error:
        failures.append(f"confidence: {error}")
    first = _first_model(record)
    if first is None and record.settings["init_model"]:
        failures.append(f"{record.settings['init_model']}: not found beside the run or in the zoo")
    found = measure_run(
        record.folder,
        held,
        file.name,
        settings,
        calibrated=calibrated,
        init_model=first,
        device=device,
    )
    return write_report(record.folder, found | {"failures": failures + found["failures"]})


def list_runs(folder: str | Path = "runs") -> dict[str, Any]:
    """The runs in a folder, newest first, under `runs`, and what cannot be read, `unreadable`.

    Of each: folder, kind, steps done and planned, metric and its best value on dev, minutes, state
    (`finished` or `unfinished`), and the settings in which the runs are not all alike.
    """
    found, unreadable = runs.read_runs(Path(folder))
    return {"runs": runs.summary(found), "unreadable": unreadable}


def _settings(record: Recorded) -> TrainConfig:
    names = [field.name for field in fields(TrainConfig)]
    values = {name: record.settings[name] for name in names}
    return from_mapping(TrainConfig, values, str(record.folder / "settings.json"))


def _first_model(record: Recorded) -> Path | None:
    """What a run began from: it noted a name alone, of the zoo or, we hope, of a run beside it."""
    name = record.settings["init_model"]
    if name in zoo.names():
        return zoo.find(name)
    beside = record.folder.parent / str(name)
    return zoo.find(beside) if name and beside.is_dir() else None
