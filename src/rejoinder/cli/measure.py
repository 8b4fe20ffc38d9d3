"""rejoinder evaluate, compare, rank, zoo: how good models are, what they make of candidates."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.types import NonNegativeInt, PositiveInt

from rejoinder.cli.application import Flag, How, Json, app, given, table
from rejoinder.errors import ConfigError
from rejoinder.progress import Bar, note


@app.command
def evaluate(
    model: str,
    data: Path,
    /,
    *,
    candidates: str = "",
    limit: PositiveInt | None = None,
    sample: PositiveInt | None = None,
    persona: bool = True,
    full_corpus: Path | None = None,
    errors: Path | None = None,
    skip_bad: Flag = False,
    dictionary: Path | None = None,
    how: How = None,
    precision: Literal["fp32", "bf16"] | None = None,
    device: str = "cpu",
    json: Json = False,
) -> None:
    """Measure MODEL (a name, a folder, bm25, or untuned) on the dialogues of DATA.

    Parameters
    ----------
    candidates
        inline, re-drawn:N, or a file of candidates; inline if the data has them, else re-drawn:20.
    limit
        The first examples to use; all of them if not given.
    sample
        So many examples drawn by --seed, out of all or the first.
    persona
        --no-persona hides who speaks.
    full_corpus
        Rank the right reply among all candidates of this index instead.
    errors
        Write the worst misses to this JSONL file.
    skip_bad
        Leave bad lines out and report them, instead of stopping at the first.
    dictionary
        ParlAI's dictionary, a word, a tab and a count a line, for a generator's perplexity of its
        words; the words of DATA if not given.
    precision
        bf16 halves the time; it is the default where the processor has it.
    """
    from rejoinder import tasks

    wishes = given(how)
    seed = wishes.get("seed", 0)  # of the candidates that re-drawn:N draws, and of sampling
    written = how if set(wishes) - {"seed"} else None
    if full_corpus and (candidates or errors or precision or wishes or dictionary or sample):
        raise ConfigError(
            "--full-corpus ranks all candidates of the index in its own precision, so "
            "--candidates, --errors, --sample, --seed, --precision, --dictionary and ways of "
            "writing do not go with it; leave them out"
        )
    told = note if skip_bad else None
    with Bar("examples") as bar:
        if full_corpus:
            result: dict[str, Any] = tasks.evaluate_corpus(
                model,
                data,
                full_corpus,
                limit=limit,
                persona=persona,
                skip_bad=told,
                device=device,
                progress=bar,
            )
        else:
            result = tasks.evaluate(
                model,
                data,
                candidates=candidates,
                limit=limit,
                sample=sample,
                persona=persona,
                seed=seed,
                how=written,
                dictionary=dictionary,
                errors=errors,
                skip_bad=told,
                device=device,
                precision=precision,
                progress=bar,
            ).as_json()
    print(jsonlib.dumps(result) if json else table(result))


@app.command
def compare(
    a: str,
    b: str,
    data: Path,
    /,
    *,
    candidates: str = "",
    limit: PositiveInt | None = None,
    persona: bool = True,
    seed: int = 0,
    device: str = "cpu",
    json: Json = False,
) -> None:
    """Tell whether model B is better than model A on the dialogues of DATA, or it was luck.

    Parameters
    ----------
    candidates
        inline, re-drawn:N, or a file of candidates; inline if the data has them, else re-drawn:20.
    limit
        The first examples to use; all of them if not given.
    persona
        --no-persona hides who speaks.
    seed
        Chooses the candidates that re-drawn:N draws, and the draws of the bootstrap.
    """
    from dataclasses import asdict

    from rejoinder import tasks

    with Bar("examples") as bar:
        found = tasks.compare(
            a,
            b,
            data,
            candidates=candidates,
            limit=limit,
            persona=persona,
            seed=seed,
            device=device,
            progress=bar,
        )
    if json:
        print(jsonlib.dumps({name: asdict(one) for name, one in found.items()}))
        return
    for name, one in found.items():
        print(f"{name}: {one}")


@app.command
def rank(
    model: str,
    file: Annotated[str, Parameter(allow_leading_hyphen=True)] = "-",
    /,
    *,
    top: NonNegativeInt = 0,
    diverse: Flag = False,
    device: str = "cpu",
) -> None:
    """Score candidates: one JSON object a line in (persona, messages, candidates), one out.

    Parameters
    ----------
    file
        A JSONL file, or - for standard input.
    top
        How many candidate numbers to give in `ranking`; 0 = all.
    diverse
        Order so that each is unlike those before it, for suggesting several replies.
    """
    from rejoinder import tasks, zoo

    ranker = zoo.load_ranker(model, device)
    with tasks.lines_of(file) as lines:
        for answer in tasks.rank_lines(ranker, lines, file, top=top, spread=diverse):
            print(jsonlib.dumps(answer), flush=True)


@app.command
def zoo(*, json: Json = False) -> None:
    """List the models that come with the package, with their scores."""
    from rejoinder import zoo as models

    rows = models.listing()
    if json:
        print(models.dump(rows))
        return
    for row in rows:
        score = "-" if row.hits_at_1 is None else f"{row.hits_at_1:.3f}"
        star = " (default)" if row.name == models.DEFAULT else ""
        print(
            f"{row.name:17} {row.kind:9} hits@1 {score} on {row.examples} examples, "
            f"{row.megabytes:.1f} MB{star}"
        )
