"""rejoinder import: models of archived systems become ours."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path

from rejoinder.cli.application import Json, app, table
from rejoinder.progress import Bar, note


@app.command(name="import")
def import_model(
    source: str,
    /,
    *,
    out: Path,
    candidates: Path | None = None,
    index: Path | None = None,
    check: Path | None = None,
    json: Json = False,
) -> None:
    """Make a checkpoint of SOURCE: a model that ParlAI or transfer-learning-conv-ai trained.

    Name ParlAI's model file, the folder of either, an archive, an address, or a name of ParlAI's
    zoo (zoo:pretrained_transformers/model_poly/model). Nothing of it is executed. The model scores
    and speaks as it did, and chats, evaluates and trains on like any other.

    Parameters
    ----------
    source
        A path, http, https or file address, or zoo:NAME.
    out
        The folder to write, new or empty.
    candidates
        A file of ParlAI's fixed candidates, one a line, or the name of one in the archive; what it
        kept of them beside the model (.vecs and .encs) is taken where it is true.
    index
        The folder to write the index of these candidates to.
    check
        Dialogues to measure hits@1 on, 200 examples of them.
    """
    from rejoinder import tasks

    with Bar("bytes") as fetching, Bar("texts") as bar:
        told = tasks.import_model(
            source,
            out,
            candidates=candidates,
            index=index,
            check=check,
            progress=bar,
            fetching=fetching,
        )
    if json:
        print(jsonlib.dumps(told))
        return
    for line in [*told.pop("notes"), *(f"warning: {one}" for one in told.pop("warnings"))]:
        note(line)
    print(table(told))
