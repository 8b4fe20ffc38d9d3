"""rejoinder mine: give dialogues hard wrong candidates to train on."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.types import NonNegativeInt, PositiveInt

from rejoinder.cli.application import Files, Flag, Json, app, table
from rejoinder.progress import Bar, note


@app.command
def mine(
    model: str,
    data: Files,
    /,
    *,
    out: Path,
    candidates: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    keep: PositiveInt = 4,
    skip: NonNegativeInt = 0,
    draw: NonNegativeInt = 0,
    margin: float | None = None,
    teacher: str | None = None,
    both_sides: Flag = False,
    limit: PositiveInt | None = None,
    skip_bad: Flag = False,
    seed: int = 0,
    device: str = "cpu",
    json: Json = False,
) -> None:
    """Find wrong replies that MODEL takes for the best, for `rejoinder train --candidates inline`.

    Parameters
    ----------
    data
        Files of dialogues in any format that `rejoinder data check` reads.
    out
        The JSONL file to write: the dialogues with hard wrong candidates.
    candidates
        Where candidates come from: text, dialogues, sample, convai2; if not given, DATA's replies.
    keep
        Wrong candidates for each reply, at most.
    skip
        Leave out so many of the best ranks.
    draw
        Rank so many random candidates for each reply, instead of all: cheaper and less hard.
    margin
        Leave out what scores above the right reply minus this; all scores will do if not given.
    teacher
        A second model, such as persona-cross, whose scores the margin (then 0 if not given) is of.
    both_sides
        Mine for the user's messages too, with the roles swapped.
    limit
        The first replies to mine for; all of them if not given.
    skip_bad
        Leave bad lines out and report them, instead of stopping at the first.
    seed
        Of the candidates that --draw draws.
    """
    from rejoinder import tasks
    from rejoinder.mining import MiningSettings

    settings = MiningSettings(keep=keep, skip=skip, draw=draw, margin=margin, seed=seed)
    with Bar("texts") as bar:
        mined = tasks.mine(
            model,
            data,
            out,
            settings,
            candidates=candidates or (),
            teacher=teacher,
            both_sides=both_sides,
            limit=limit,
            skip_bad=note if skip_bad else None,
            device=device,
            progress=bar,
        )
    result = mined.as_json()
    print(jsonlib.dumps(result) if json else table(result))
