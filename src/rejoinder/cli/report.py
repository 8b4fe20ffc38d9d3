"""rejoinder report and runs: what came of trainings."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rejoinder.cli.application import Json, app
from rejoinder.progress import note
from rejoinder.runs import defaults


@app.command
def report(
    run: Path, data: Path | None = None, /, *, device: str = "cpu", json: Json = False
) -> None:
    """Write the report of RUN (a folder) again, measured anew on the dialogues of DATA if given.

    Parameters
    ----------
    json
        Print what was measured as one JSON object instead of the name of the report.
    """
    from rejoinder import tasks
    from rejoinder.training.report import kept

    file = tasks.report(run, data, device=device)
    print(jsonlib.dumps(kept(run)) if json else file)


@app.command
def runs(folder: Path = Path("runs"), /, *, json: Json = False) -> None:
    """List the training runs in FOLDER, newest first, with the settings in which they differ."""
    from rejoinder import tasks

    found = tasks.list_runs(folder)
    if json:
        print(jsonlib.dumps(found))
        return
    for line in _lines(found["runs"]):
        print(line)
    for line in found["unreadable"]:
        note(f"left out: {line}")


def _lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A table of runs; settings at their defaults are left out."""
    cells = [("run", "kind", "steps", "best on dev", "minutes", "state", "settings")]
    for row in rows:
        best = "-" if row["best"] is None else f"{row['metric']} {row['best']:.3f}"
        apart = {k: v for k, v in row["settings"].items() if v != defaults(row["kind"]).get(k)}
        cells.append(
            (
                Path(row["folder"]).name,
                row["kind"],
                f"{row['steps']}/{'?' if row['planned'] is None else row['planned']}",
                best,
                f"{row['minutes']:.1f}",
                row["state"],
                " ".join(f"{name}={_short(value)}" for name, value in apart.items()),
            )
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(f"{text:{width}}" for text, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]


def _short(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
