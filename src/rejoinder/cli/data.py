"""rejoinder data: look at, convert and fetch dialogues."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from cyclopts.types import PositiveInt

from rejoinder.cli.application import Flag, Json, app
from rejoinder.progress import Bar, note
from rejoinder.text import TextFormat

data_app = App(name="data", help="Look at, convert and fetch dialogues.")
app.command(data_app)


@data_app.command(name="check")
def data_check(
    file: Path,
    /,
    *,
    format: str | None = None,
    max_context: PositiveInt = TextFormat().max_context,
    json: Json = False,
) -> None:
    """Count what is in FILE, show examples, list bad lines and what looks personal.

    Parameters
    ----------
    format
        jsonl, parlai, parlai-fields, json, csv, tsv or parquet; guessed if not given.
    max_context
        Tokens a model would read; longer contexts are counted as cut.
    """
    from rejoinder.data.check import check

    report = check(file, format, max_context=max_context)
    print(report.as_json() if json else report.as_text())
    if report.bad:
        raise SystemExit(1)


@data_app.command(name="convert")
def data_convert(
    source: Path, target: Path, /, *, format: str | None = None, skip_bad: Flag = False
) -> None:
    """Write the dialogues of SOURCE to TARGET as JSONL, one dialogue a line.

    Parameters
    ----------
    skip_bad
        Leave bad lines out and report them, instead of stopping at the first.
    """
    from rejoinder.data.convert import convert

    done = convert(source, target, format, skip_bad=skip_bad)
    for error in done.bad:
        note(f"left out: {error}")
    print(
        f"{target}: {done.dialogues} dialogues, {done.messages} messages, {len(done.bad)} bad lines"
    )


@data_app.command(name="get")
def data_get(
    name: Literal["convai2"], /, *, source: Annotated[Path | None, Parameter(name="--from")] = None
) -> None:
    """Download a public data set into the cache folder, and check its sha256.

    Parameters
    ----------
    source
        A copy you have already: the archive, its folder, or its training file.
    """
    from rejoinder.candidates import cache_folder
    from rejoinder.data.download import get_convai2

    with Bar("bytes") as bar:
        for file in get_convai2(cache_folder() / name, source, progress=bar):
            print(file)
