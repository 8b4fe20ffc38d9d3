"""rejoinder export: a model as a folder of another library."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Literal

from rejoinder.cli.application import Json, app, table


@app.command
def export(
    model: str,
    /,
    *,
    to: Literal["sentence-transformers", "onnx", "transformers"],
    out: Path,
    json: Json = False,
) -> None:
    """Write MODEL as a folder of another library, and check there that it gives the same scores.

    Parameters
    ----------
    to
        sentence-transformers: a bi-encoder, or a cross-encoder with a linear head. onnx: any
        ranker. transformers: a generator.
    out
        The folder to write, new or empty.
    """
    from rejoinder import tasks

    told = tasks.export_model(model, to, out)
    if json:
        print(jsonlib.dumps(told))
        return
    if "graphs" in told:
        told["graphs"] = ", ".join(told["graphs"])
    print(table(told))
