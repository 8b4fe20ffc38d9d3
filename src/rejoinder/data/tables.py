r"""Spreadsheets of replies: CSV or TSV with a context and a reply in each row.

A first row that has the name `reply` says which column is which: `reply`, `context`, `persona`;
others are ignored. Without it the first two columns are context and reply. Several turns of a
context, or sentences of a persona, stand on lines of their own, or have a literal \n between them;
the last turn is the user's. A row without a context is a reply that opens the dialogue. Where a
first row with names has semicolons, as spreadsheets write it where the comma is for decimals, they
separate the columns of a CSV.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from rejoinder.data.files import LONGEST, head, numbered_lines
from rejoinder.data.parlai import is_silence
from rejoinder.data.reports import Report, stop
from rejoinder.errors import DataError
from rejoinder.schema import Dialogue, Message, Role

COLUMNS = ("context", "reply", "persona")


def read_csv(path: Path, report: Report = stop) -> Iterator[tuple[int, Dialogue]]:
    """Every row of a table with commas or semicolons as a dialogue, with its line's number."""
    return _rows(path, _comma(path), report)


def read_tsv(path: Path, report: Report = stop) -> Iterator[tuple[int, Dialogue]]:
    """Every row of a tab-separated table as a dialogue, with the number of its first line."""
    return _rows(path, "\t", report)


def columns(row: list[str]) -> dict[str, int] | None:
    """Say where the known columns are if the row is a header, else None."""
    names = [name.strip().lower() for name in row]
    if "reply" not in names:
        return None
    return {name: names.index(name) for name in COLUMNS if name in names}


def lists_candidates(row: list[str]) -> bool:
    """Whether a row is the header of a table of candidates (approval.py), not of dialogues."""
    names = {name.strip().lower() for name in row}
    return "candidate" in names and bool(names & {"approved", "count"}) and "reply" not in names


def _comma(path: Path) -> str:
    """Say what separates columns; a pipe cannot be looked at twice."""
    first = head(path).lstrip().partition("\n")[0] if path.is_file() else ""
    names = (name.strip(' "\r') for name in first.split(";"))
    return ";" if columns(list(names)) else ","


def _rows(path: Path, delimiter: str, report: Report) -> Iterator[tuple[int, Dialogue]]:
    place: dict[str, int] | None = None
    width = 0
    for number, row in split_rows(path, delimiter, report):
        if place is None:
            width, place = len(row), columns(row)
            if place is not None:
                continue
            if lists_candidates(row):
                raise DataError(
                    f"{path}:{number}: a table of candidates, expected one of dialogues; give it "
                    "to `rejoinder index build` or `rejoinder chat --candidates`"
                )
            if width < 2:
                raise DataError(
                    f"{path}:{number}: 1 column, {row[0][:60]!r}; expected context and reply, or "
                    "a first row with their names (a column of replies only has the name: reply)"
                )
            place = {"context": 0, "reply": 1}
        try:
            yield number, _dialogue(row, width, place)
        except ValueError as error:
            report(DataError(f"{path}:{number}: {error}"))


def split_rows(path: Path, delimiter: str, report: Report) -> Iterator[tuple[int, list[str]]]:
    """Every row that is not blank, with the number of its first line."""
    here = 0  # the last line handed to the parser

    def lines() -> Iterator[str]:
        nonlocal here
        for number, line in numbered_lines(path, report):
            here = number
            yield line + "\n"

    csv.field_size_limit(LONGEST)  # csv's own limit of 128 KiB is less than a long turn
    parser = csv.reader(lines(), delimiter=delimiter, strict=True)
    while True:
        before = here
        try:
            row = next(parser, None)
        except csv.Error as error:
            report(
                DataError(
                    f"{path}:{before + 1}: {error}; expected rows of a table. In a field "
                    'in quotes, write a quote as "" and close it'
                )
            )
            continue
        if row is None:
            return
        if any(field.strip() for field in row):
            yield before + 1, row


def _dialogue(row: list[str], width: int, place: dict[str, int]) -> Dialogue:
    if len(row) != width:
        raise ValueError(
            f"{len(row)} columns, expected {width} as in the first row, got {row!r:.60}; "
            "put a text that has the separator in it into double quotes"
        )
    field = {name: row[column].strip() for name, column in place.items()}
    if not field["reply"]:
        raise ValueError(f"no reply in {row!r:.60}; expected a text, so fill it or delete the row")
    turns = _lines(field.get("context", ""))
    roles: tuple[Role, Role] = ("assistant", "user")
    messages = [
        Message(roles[(len(turns) - turn) % 2], text)
        for turn, text in enumerate(turns)
        if not is_silence(text)
    ]
    messages.append(Message("assistant", field["reply"]))
    return Dialogue(tuple(messages), tuple(_lines(field.get("persona", ""))))


def _lines(field: str) -> list[str]:
    parts = field.replace("\\n", "\n").split("\n")
    return [part.strip() for part in parts if part.strip()]
