"""Candidate replies from a file: one a line, approved ones of a table, or replies of dialogues."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from pathlib import Path

from rejoinder.data import read
from rejoinder.data.approval import is_table, read_table
from rejoinder.data.files import numbered_lines
from rejoinder.data.formats import recognise
from rejoinder.data.reports import Report, as_report
from rejoinder.errors import DataError

LINES, TABLE = "lines", "candidates"


def read_candidates(
    path: str | PathLike[str],
    format: str | None = None,
    *,
    bad: list[DataError] | Report | None = None,
) -> Iterator[str]:
    """Every candidate of a file, in order, one that comes twice given twice.

    `format` may be "lines", "candidates" (a table, see approval.py) or one of
    `rejoinder.data.READERS`; if None it is guessed. Of a table, only what is approved is given. Of
    dialogues, the candidates are all assistant messages and their alternatives. Blank ones are left
    out.
    """
    path = Path(path)
    return _not_blank(path, _found(path, format or _guess(path), bad))


def _guess(path: Path) -> str:
    named = recognise(path)
    return TABLE if named != "parquet" and is_table(path) else named or LINES


def _found(path: Path, format: str, bad: list[DataError] | Report | None) -> Iterator[str]:
    if format == LINES:
        return _plain(path, as_report(bad))
    if format == TABLE:
        return read_table(path, as_report(bad))
    return _replies(path, format, bad)


def _not_blank(path: Path, found: Iterator[str]) -> Iterator[str]:
    candidate = ""
    for candidate in filter(None, found):
        yield candidate
    if not candidate:
        raise DataError(
            f"{path}: no candidate in it; expected one a line, or dialogues to reply in"
        )


def _plain(path: Path, report: Report) -> Iterator[str]:
    return (line.strip() for _, line in numbered_lines(path, report))


def _replies(path: Path, format: str, bad: list[DataError] | Report | None) -> Iterator[str]:
    for dialogue in read(path, format, bad=bad):
        for message in dialogue.messages:
            if message.role == "assistant":
                for reply in (message.content, *message.alternatives):
                    yield reply.strip()
