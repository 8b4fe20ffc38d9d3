"""Choose candidates: propose replies of logs to a person."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from rejoinder import baselines, zoo
from rejoinder.candidates import read_block
from rejoinder.data import read
from rejoinder.data.approval import is_table, read_rows, write_table
from rejoinder.errors import ConfigError, DataError
from rejoinder.suggestion import Log, Vectors, listen, suggest
from rejoinder.words import composed

Progress = Callable[[int, int], None]
Say = Callable[[str], None]

# Just above the likest pair of different meaning of bench/likeness.py, with persona-poly.
LIKENESS = 0.97


@dataclass(frozen=True, kw_only=True)
class Suggested:
    """What was read and written."""

    replies: int  # the assistant's, repeated ones included
    blocked: int  # of them
    distinct: int  # those that are not blocked
    clusters: int
    rows: int
    warnings: int  # rows with a warning


def suggest_candidates(
    logs: Sequence[str | Path],
    out: Path,
    *,
    model: str | Path = zoo.DEFAULT,
    likeness: float = LIKENESS,
    least: int = 1,
    most: int | None = None,
    block: Path | None = None,
    format: str | None = None,
    skip_bad: Say | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Suggested:
    """Write the replies of some logs, near-duplicates put together, as a table to approve.

    model: whose candidate vectors tell what is alike; a name, a folder, or `untuned`. likeness:
    cosine from which two replies are near-duplicates. least: times that a reply or a near-duplicate
    of it must have been said. most: rows. block: a file of what no reply may have. format: of all
    logs, guessed if None. skip_bad: is told of every bad line, which is left out; without it the
    first one is an error. Raises ConfigError for a cross-encoder, which has no vectors, and for an
    `out` that would be lost: some other file, or a table that somebody has answered.
    """
    if not 0 < likeness <= 1:
        raise ConfigError(f"--likeness is {likeness}; expected a cosine above 0, up to 1")
    _check_out(out)  # now, not after many minutes of encoding
    bad = (lambda error: skip_bad(f"left out: {error}")) if skip_bad else None
    dialogues = chain.from_iterable(read(file, format, bad=bad) for file in logs)
    stops = read_block(block).stops if block else None
    log = listen(dialogues, lambda text: bool(stops and stops(composed(text))))
    _check_log(log, logs, block)
    ranker = (baselines.untuned() if model == "untuned" else zoo.load_ranker(model)).to(device)

    def encode(texts: Sequence[str]) -> Vectors:
        # in fp32, or it would depend on the processor which replies are put together
        vectors: Vectors = ranker.encode_candidates(texts, progress).cpu().numpy()
        return vectors

    found = suggest(log.said, encode, likeness)
    rows = [one for one in found if one.count >= least][:most]
    if not rows:
        raise DataError(
            f"--least is {least}, but the reply said most was said {found[0].count} times; lower it"
        )
    write_table(rows, out)
    return Suggested(
        replies=log.replies,
        blocked=log.blocked,
        distinct=len(log.said),
        clusters=len(found),
        rows=len(rows),
        warnings=sum(bool(row.warning) for row in rows),
    )


def _check_out(out: Path) -> None:
    """Raise ConfigError if `out` cannot be written or holds what would be lost."""
    if not out.parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {out.parent}; make it first")
    if not out.exists():
        return
    if not out.is_file() or not is_table(out):
        raise ConfigError(
            f"--out {out}: is there, and no table of candidates; expected a new file, so choose "
            "another name"
        )
    answered = sum(row.touched for row in read_rows(out))
    if answered:
        raise ConfigError(
            f"--out {out}: {answered} of its candidates are answered, which would be lost; "
            "expected a new file, so choose another name"
        )


def _check_log(log: Log, logs: Sequence[str | Path], block: Path | None) -> None:
    """Raise DataError if there is nothing to propose."""
    if not log.replies:
        raise DataError(
            f"{', '.join(map(str, logs))}: no assistant message in it, so there is nothing to "
            "propose; expected dialogues in which the assistant says something"
        )
    if not log.said:
        raise DataError(
            f"{block}: blocks all {log.blocked} replies, so none is left; expected words that few "
            "of them have, so take the widest ones out"
        )
