"""rejoinder index: encode candidate replies once and keep them."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from cyclopts.types import PositiveInt

from rejoinder.cli.application import Json, Persona, app, table
from rejoinder.progress import Bar

index_app = App(name="index", help="Encode candidate replies once and keep them.")
app.command(index_app)


@index_app.command(name="build")
def index_build(
    candidates: Annotated[list[str], Parameter(consume_multiple=True)],
    /,
    *,
    model: str = "persona-poly",
    out: Path,
    block: Path | None = None,
    precision: Literal["fp32", "bf16"] | None = None,
    device: str = "cpu",
) -> None:
    """Encode the replies in CANDIDATES (text, dialogues, sample, convai2) and keep them in OUT.

    Parameters
    ----------
    block
        A file of words or /regular expressions/, one a line, that no candidate may match.
    precision
        bf16 halves time and memory; it is the default where the processor has it.
    """
    from rejoinder import tasks

    with Bar("candidates") as bar:
        index, found = tasks.build_index(
            candidates, model, out, block=block, precision=precision, device=device, progress=bar
        )
    print(
        f"{out}: {len(index.texts)} candidates ({found.repeated} repeated ones and {found.blocked} "
        "blocked ones left out)"
    )


@index_app.command(name="info")
def index_info(folder: Path, /, *, json: Json = False) -> None:
    """Say what an index holds and which model it belongs to."""
    from rejoinder.index import read_info

    info = read_info(folder)
    print(jsonlib.dumps(info) if json else table(info))


@index_app.command(name="search")
def index_search(
    folder: Path,
    text: str,
    /,
    *,
    model: str = "persona-poly",
    persona: Persona = None,
    k: PositiveInt = 10,
    json: Json = False,
) -> None:
    """Show the best candidates of an index for a message TEXT."""
    from rejoinder import tasks

    rows = tasks.search(folder, text, model, tuple(persona or ()), k)
    for row in rows:
        print(
            jsonlib.dumps(row, ensure_ascii=False)
            if json
            else f"{row['score']:8.3f}  {row['text']}"
        )
