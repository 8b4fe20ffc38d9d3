"""Candidate replies from a file: one a line, or the replies of a file of dialogues."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from pathlib import Path

from rejoinder.data import read
from rejoinder.data.files import numbered_lines
from rejoinder.data.formats import recognise
from rejoinder.data.reports import Report, as_report
from rejoinder.errors import DataError

LINES = "lines"


def read_candidates(
    path: str | PathLike[str],
    format: str | None = None,
    *,
    bad: list[DataError] | Report | None = None,
) -> Iterator[str]:
    """Every candidate of a file, in order, one that comes twice given twice.

    `format` may be "lines" or one of `rejoinder.data.READERS`; if None it is guessed. Of dialogues,
    the candidates are all assistant messages and their alternatives. Blank ones are left out.
    """
    path = Path(path)
    format = format or recognise(path) or LINES
    found = _plain(path, as_report(bad)) if format == LINES else _replies(path, format, bad)
    return _not_blank(path, found)


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
