"""Mine hard negatives: dialogues in, the same dialogues with hard wrong candidates out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rejoinder import candidates as sources_of
from rejoinder import mining, zoo
from rejoinder.data import read, write_jsonl
from rejoinder.errors import ConfigError, DataError
from rejoinder.mining import Mined, MiningSettings
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue, examples
from rejoinder.tasks.machine import fast_precision

Progress = Callable[[int, int], None]
Say = Callable[[str], None]


def mine(
    model: str | Path,
    data: str | Path | Sequence[str | Path],
    out: str | Path,
    settings: MiningSettings | None = None,
    *,
    candidates: Sequence[str | Path] = (),
    teacher: str | Path | None = None,
    both_sides: bool = False,
    limit: int | None = None,
    skip_bad: Say | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Mined:
    """Write the dialogues of DATA to the JSONL file OUT, hard negatives as their candidates.

    An assistant message has its own text and then its negatives, hardest first, in `candidates`, or
    none where none was found. candidates: sources of the pool; without them the replies of DATA.
    teacher: a second model that judges what the first one found. both_sides: every dialogue again
    with the roles swapped. limit: the first examples to use; dialogues are cut behind the last one.
    skip_bad: is told of every bad line, which is left out. OUT is written at the end or not at all.
    """
    out = Path(out)
    files = [data] if isinstance(data, (str, Path)) else data
    _check_out(out, [*files, *candidates])
    ranker = _loaded(model, device)
    judge = _loaded(teacher, device) if teacher else None
    dialogues = list(_sides(files, both_sides, skip_bad))
    pool = [reply for example in examples(dialogues) for reply in example.replies]
    if not pool:
        raise DataError(
            f"{', '.join(map(str, files))}: no assistant message in it, so there is nothing to "
            "mine for; expected dialogues in which the assistant says something"
        )
    if candidates:
        pool = sources_of.collect(candidates).texts
    if limit is not None:
        dialogues = list(first_examples(dialogues, limit))
    chosen = list(examples(dialogues))
    mined = mining.mine(
        ranker, chosen, pool, settings or MiningSettings(), teacher=judge, progress=progress
    )
    write_jsonl(with_candidates(dialogues, mined.lists), out)
    return mined


def _check_out(out: Path, sources: Iterable[str | Path]) -> None:
    """Raise ConfigError now, not after the mining, if OUT cannot be written or is input."""
    if out.is_dir():
        raise ConfigError(f"--out {out}: is a folder; expected the name of a file to write")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"--out {out}: no folder {out.parent}; expected one, so make it first")
    if out.exists() and any(Path(one).exists() and out.samefile(one) for one in sources):
        raise ConfigError(f"--out {out}: is read here and would be lost; choose another name")


def _loaded(model: str | Path, device: str) -> TextRanker:
    ranker = zoo.load_ranker(model, device)
    ranker.precision = fast_precision()
    return ranker


def _sides(
    files: Iterable[str | Path], both_sides: bool, skip_bad: Say | None
) -> Iterator[Dialogue]:
    """All dialogues, each followed by itself with swapped roles if both sides are wanted."""
    bad = (lambda error: skip_bad(f"left out: {error}")) if skip_bad else None
    for file in files:
        for dialogue in read(file, bad=bad):
            yield dialogue
            if both_sides:
                yield dialogue.swapped()


def first_examples(dialogues: Iterable[Dialogue], limit: int) -> Iterator[Dialogue]:
    """The dialogues of the first `limit` assistant messages, the last one cut behind them."""
    for dialogue in dialogues:
        if limit <= 0:
            return
        turns = [i for i, message in enumerate(dialogue.messages) if message.role == "assistant"]
        yield dialogue.before(turns[limit]) if len(turns) > limit else dialogue
        limit -= len(turns)


def with_candidates(
    dialogues: Iterable[Dialogue], lists: Iterable[tuple[str, ...]]
) -> Iterator[Dialogue]:
    """Each assistant message with its own text and the next list as candidates; () gives none."""
    left = iter(lists)
    for dialogue in dialogues:
        messages = []
        for message in dialogue.messages:
            wrong = next(left) if message.role == "assistant" else ()
            listed = (message.content, *wrong) if wrong else ()
            messages.append(replace(message, candidates=listed))
        yield replace(dialogue, messages=tuple(messages))
