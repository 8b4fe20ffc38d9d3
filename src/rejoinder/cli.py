"""The command line: each command parses, calls one function of `tasks`, and prints.

Results go to stdout, progress and notes to stderr. Heavy libraries are imported inside the
commands, so that `rejoinder --help` is instant.
"""

from __future__ import annotations

import json as jsonlib
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter
from cyclopts.types import NonNegativeInt, PositiveInt

from rejoinder.config import ModelConfig, TrainConfig, read_settings
from rejoinder.errors import RejoinderError
from rejoinder.progress import Bar, note
from rejoinder.text import TextFormat

app = App(name="rejoinder", help="Train, evaluate, and talk with dialogue rankers.")
data_app = App(name="data", help="Look at, convert and fetch dialogues.")
index_app = App(name="index", help="Encode candidate replies once and keep them.")
app.command(data_app)
app.command(index_app)

Files = Annotated[list[Path], Parameter(consume_multiple=True)]
Json = Annotated[bool, Parameter(name="--json", negative=())]
Flag = Annotated[bool, Parameter(negative=())]


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
        jsonl, parlai, parlai-fields, json, csv or tsv; guessed from the content if not given.
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


@app.command
def train(
    kind: Literal["bi", "poly", "cross"],
    /,
    *,
    data: Files,
    dev: Path | None = None,
    out: Path | None = None,
    init_model: str | None = None,
    config: Path | None = None,
    model: Annotated[ModelConfig | None, Parameter(name="*")] = None,
    settings: Annotated[TrainConfig | None, Parameter(name="*")] = None,
    style: Annotated[TextFormat | None, Parameter(name="*")] = None,
    device: str = "cpu",
    tensorboard: Flag = False,
) -> None:
    """Train a bi-, poly- or cross-encoder; again with the same --out, it goes on where it stopped.

    Parameters
    ----------
    data
        Files of dialogues in any format that `rejoinder data check` reads.
    dev
        Dialogues to validate on; the best checkpoint on them is kept, and confidence fitted.
    out
        Folder of the run; a new one in runs/, named after time and kind, if not given.
    init_model
        Start from this model (a folder or a name of the zoo), which may be of another kind.
    config
        A TOML file with [model], [train] and [text]; flags win over it.
    tensorboard
        Write curves; needs the extra: pip install 'rejoinder[tensorboard]'.
    """
    from rejoinder import tasks

    sections = {"model": ModelConfig, "train": TrainConfig, "text": TextFormat}
    values = {} if config is None else read_settings(config, sections)
    for part in (model, settings, style):
        values |= _given(part, sys.argv[1:])
    values.pop("kind", None)
    folder = tasks.train(
        kind,
        data,
        dev=dev,
        out=out,
        init_model=init_model,
        device=device,
        command=shlex.join(["rejoinder", *sys.argv[1:]]),
        tensorboard=tensorboard,
        say=note,
        **values,
    )
    print(folder)


@app.command
def calibrate(model: str, data: Path, /, *, limit: PositiveInt = 1000, json: Json = False) -> None:
    """Fit the confidence of MODEL (a folder) on the dialogues of DATA and store it in the folder.

    Parameters
    ----------
    limit
        The first examples to use.
    """
    from rejoinder import tasks

    with Bar("examples") as bar:
        report = tasks.calibrate(model, data, limit=limit, progress=bar)
    print(jsonlib.dumps(report) if json else _table(report))


@app.command
def evaluate(
    model: str,
    data: Path,
    /,
    *,
    candidates: str = "",
    limit: PositiveInt | None = None,
    persona: bool = True,
    full_corpus: Path | None = None,
    errors: Path | None = None,
    seed: int = 0,
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
    persona
        --no-persona hides who speaks.
    full_corpus
        Rank the right reply among all candidates of this index instead.
    errors
        Write the worst misses to this JSONL file.
    precision
        bf16 halves the time; it is the default where the processor has it.
    """
    from rejoinder import tasks

    with Bar("examples") as bar:
        if full_corpus:
            result: dict[str, Any] = tasks.evaluate_corpus(
                model, data, full_corpus, limit=limit, persona=persona, device=device, progress=bar
            )
        else:
            result = tasks.evaluate(
                model,
                data,
                candidates=candidates,
                limit=limit,
                persona=persona,
                seed=seed,
                errors=errors,
                device=device,
                precision=precision,
                progress=bar,
            ).as_json()
    print(jsonlib.dumps(result) if json else _table(result))


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

    ranker = zoo.load(model, device)
    with tasks.lines_of(file) as lines:
        for answer in tasks.rank_lines(ranker, lines, file, top=top, spread=diverse):
            print(jsonlib.dumps(answer), flush=True)


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
    print(jsonlib.dumps(info) if json else _table(info))


@index_app.command(name="search")
def index_search(
    folder: Path,
    text: str,
    /,
    *,
    model: str = "persona-poly",
    persona: Annotated[list[str] | None, Parameter(negative=())] = None,
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


@app.command
def chat(
    *,
    model: str = "persona-poly",
    candidates: str | None = None,
    index: Path | None = None,
    rerank: str | None = None,
    persona: Annotated[list[str] | None, Parameter(negative=())] = None,
    persona_file: Path | None = None,
    no_persona: Flag = False,
    max_history: NonNegativeInt = 0,
    min_confidence: float = 0.0,
    fallback: str | None = None,
    repeat: Flag = False,
    seed: int | None = None,
    once: str | None = None,
    json: Json = False,
    device: str = "cpu",
) -> None:
    """Talk with a ranker that picks its replies out of many candidates.

    Parameters
    ----------
    candidates
        A file of replies or dialogues, `sample` (the default), or `convai2`.
    index
        A folder that `rejoinder index build` made, instead of candidates.
    rerank
        A second model, such as persona-cross, that orders the best 20 again.
    persona
        A sentence about who the model is; give it several times. A sample one if not given.
    persona_file
        A file of such sentences, one a line.
    max_history
        Newest messages to read; 0 = the whole conversation.
    min_confidence
        Below this probability the fallback text is said instead.
    repeat
        Let it say the same reply twice.
    seed
        Chooses the sample persona.
    once
        Answer this one message and stop.
    json
        With --once: print reply, confidence and candidates as one JSON object.
    """
    from rejoinder import talk

    talk.chat(
        talk.Wishes(
            model=model,
            candidates=candidates,
            index=index,
            rerank=rerank,
            persona=tuple(persona or ()),
            persona_file=persona_file,
            no_persona=no_persona,
            max_history=max_history,
            min_confidence=min_confidence,
            fallback=fallback,
            repeat=repeat,
            seed=seed,
            device=device,
        ),
        once_text=once,
        json=json,
    )


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
            f"{row.name:16} {row.kind:6} hits@1 {score} on {row.examples} examples, "
            f"{row.megabytes:.1f} MB{star}"
        )


def _given(part: Any, arguments: list[str]) -> dict[str, Any]:
    """The settings that flags have set, also to what is the default: they win over a file."""
    if part is None:
        return {}
    flags = {word.partition("=")[0] for word in arguments if word.startswith("--")}
    names = {name.removeprefix("no-") for name in (flag[2:] for flag in flags)}
    return {
        name: getattr(part, name)
        for name in part.__dataclass_fields__
        if name.replace("_", "-") in names or name in names
    }


def _table(values: dict[str, Any]) -> str:
    """Names and values in two columns."""

    def shown(value: Any) -> str:
        if isinstance(value, list):
            return " to ".join(shown(one) for one in value)
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    width = max(map(len, values))
    return "\n".join(f"{name:{width}}  {shown(value)}" for name, value in values.items())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command (that of `sys.argv`); an error for the user is one line and exit code 1."""
    if isinstance(sys.stdout, TextIOWrapper):  # file names may hold bytes that are no text
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            app(sys.argv[1:] if arguments is None else arguments)
        finally:
            if sys.stdout:  # None where it was closed from the start
                sys.stdout.flush()  # here, where an error can still be told
    except RejoinderError as error:
        raise _failed(str(error)) from None
    except KeyboardInterrupt:
        note("\nstopped; nothing that was finished is lost")
        raise SystemExit(130) from None
    except BrokenPipeError:
        _silence_output()  # the reader of our output went away: nobody is left to tell
        raise SystemExit(1) from None
    except OSError as error:
        _silence_output()
        raise _failed(
            f"{error.filename or 'output'}: cannot be read or written ({error.strerror or error}); "
            "check the place and its free space, then run the same command again"
        ) from None
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        raise _failed(
            f"not enough memory ({str(error)[:120] or 'none left'}); take less at once, such as a "
            "smaller --batch-size, --max-context or data file"
        ) from None


def _failed(message: str) -> SystemExit:
    note("rejoinder: " + message.replace("\n", " "))
    return SystemExit(1)


def _silence_output() -> None:
    """Send what is left in the buffer to nowhere, or Python complains about it at the very end."""
    with suppress(OSError, ValueError, AttributeError):
        broken = sys.stdout.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, broken)
        os.close(nowhere)


def _out_of_memory(error: Exception) -> bool:
    """Whether Python, torch on a processor, or torch on a GPU ran out of memory."""
    text = f"{type(error).__name__} {error}"
    return isinstance(error, MemoryError) or any(
        sign in text for sign in ("OutOfMemory", "out of memory", "allocate memory")
    )
