"""rejoinder import: models of archived systems become ours."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path

from rejoinder.cli.application import Json, app, table
from rejoinder.progress import Bar, note


@app.command(name="import")
def import_model(
    source: Path, /, *, out: Path, check: Path | None = None, json: Json = False
) -> None:
    """Make a checkpoint of a ParlAI ranker: SOURCE is its model file, its folder, or an archive.

    Nothing of it is executed. The model scores as it did, and chats, evaluates and indexes like any
    other.

    Parameters
    ----------
    out
        The folder to write.
    check
        Dialogues to measure hits@1 on, 200 examples of them.
    """
    from rejoinder import tasks

    with Bar("examples") as bar:
        told = tasks.import_model(source, out, check=check, progress=bar)
    if json:
        print(jsonlib.dumps(told))
        return
    for line in told.pop("notes"):
        note(line)
    print(table(told))
