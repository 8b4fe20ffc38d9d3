"""rejoinder candidates: choose replies that may be said."""

from __future__ import annotations

import json as jsonlib
from dataclasses import asdict
from pathlib import Path

from cyclopts import App
from cyclopts.types import PositiveInt

from rejoinder.cli.application import Files, Flag, Json, app
from rejoinder.progress import Bar, note

candidates_app = App(name="candidates", help="Choose candidate replies.")
app.command(candidates_app)


@candidates_app.command(name="suggest")
def candidates_suggest(
    logs: Files,
    /,
    *,
    out: Path,
    model: str = "persona-poly",
    likeness: float = 0.97,
    least: PositiveInt = 1,
    most: PositiveInt | None = None,
    block: Path | None = None,
    format: str | None = None,
    skip_bad: Flag = False,
    device: str = "cpu",
    json: Json = False,
) -> None:
    """Propose candidates out of the assistant's replies in LOGS: a CSV table to approve.

    Parameters
    ----------
    out
        The table to write; index build and chat --candidates take the rows approved with yes.
    model
        Whose vectors tell what is alike: a name, a folder, or untuned.
    likeness
        Cosine from which two replies are near-duplicates.
    least
        Times that a reply, or a near-duplicate of it, must have been said.
    most
        Rows to propose; all of them if not given.
    block
        A file of words or /regular expressions/, one a line, that no reply may match.
    format
        jsonl, parlai, parlai-fields, json, csv, tsv or parquet; guessed if not given.
    skip_bad
        Leave bad lines out and report them, instead of stopping at the first.
    json
        Print what was read and written as one JSON object.
    """
    from rejoinder import tasks

    with Bar("replies encoded") as bar:
        done = tasks.suggest_candidates(
            logs,
            out,
            model=model,
            likeness=likeness,
            least=least,
            most=most,
            block=block,
            format=format,
            skip_bad=note if skip_bad else None,
            device=device,
            progress=bar,
        )
    if json:
        print(jsonlib.dumps(asdict(done)))
        return
    print(
        f"{out}: {done.rows} candidates to approve, of {done.replies} replies ({done.distinct} "
        f"distinct, {done.clusters} after near-duplicates, {done.blocked} blocked)"
    )
    if done.warnings:
        note(f"{done.warnings} have a warning, so approved is no; look at them first")
