"""A table of candidates that a person looks through and approves: CSV, made for spreadsheets.

    candidate,count,examples,approved,warning,wordings,others

`approved` is `yes` for what may be said; rows with `no` or nothing there are left out. A table
without that column is taken whole, unless a row has a warning. Only `candidate`, `approved` and
`warning` are read back; columns may be moved, left out and added. The separator may be a comma,
semicolon or tab, as spreadsheets choose it.

A spreadsheet takes a field that begins with =, +, - or @ for a formula, which may be somebody's
attack (OWASP, "CSV injection"). Such a text is written with an apostrophe before it, and read
without one; a text that begins with apostrophes before such a sign gets one more. All other texts
stand as they are, so every text comes back as it was.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rejoinder.data.files import head, writing
from rejoinder.data.reports import Report, stop
from rejoinder.data.tables import lists_candidates, split_rows
from rejoinder.errors import DataError

COLUMNS = ("candidate", "count", "examples", "approved", "warning", "wordings", "others")
YES = {"yes", "y", "true", "1", "x", "ok"}
NO = {"no", "n", "false", "0", ""}
# What starts a formula, the wide signs in Chinese and Japanese spreadsheets too.
FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")


@dataclass(frozen=True)
class Proposal:
    """A reply that could be a candidate, with what a person needs to judge it."""

    text: str
    count: int  # times that it, or a near-duplicate, was said
    examples: tuple[str, ...] = ()  # user messages that it answered
    warning: str = ""  # why it should not be said as it is; empty if nothing is odd
    wordings: int = 1  # distinct replies that it stands for, itself included
    others: tuple[str, ...] = ()  # some of them, the most unlike first


@dataclass(frozen=True)
class Row:
    """A candidate of a table, and what was answered about it."""

    text: str
    approved: bool
    touched: bool  # a person has answered: not as `write_table` left it


def write_table(proposals: Iterable[Proposal], path: Path) -> None:
    """Write proposals, whole or not at all; those with a warning are answered `no`."""
    with writing(path) as file:
        file.write("\ufeff")  # without it spreadsheets take UTF-8 for something else
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for one in proposals:
            fields = (
                one.text,
                str(one.count),
                "\n".join(one.examples),
                _untouched(one.warning),
                one.warning,
                str(one.wordings),
                "\n".join(one.others),
            )
            table.writerow(map(guarded, fields))


def guarded(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if FORMULA.match(text) else text


def unguarded(text: str) -> str:
    """The text that `guarded` was given."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


def is_table(path: Path) -> bool:
    """Whether a file begins with the header of such a table."""
    return lists_candidates(_names(path))


def _names(path: Path) -> list[str]:
    """The fields of the first line, at whichever separator it has most of."""
    first = head(path).lstrip("\r\n").split("\n", 1)[0].rstrip("\r")
    return [name.strip(' "').lower() for name in first.split(_separator(first))]


def _separator(line: str) -> str:
    return max(",;\t", key=line.count)


def read_table(path: Path, report: Report = stop) -> Iterator[str]:
    """Every approved candidate, in order; a bad row is reported and left out.

    Raises DataError if the table has rows, but none of them is approved.
    """
    rows = approved = 0
    for row in read_rows(path, report):
        rows += 1
        if row.approved:
            approved += 1
            yield row.text
    if rows and not approved:
        raise DataError(
            f"{path}: none of its {rows} candidates is approved; expected yes in the column "
            "approved of those that may be said, so look through them first"
        )


def read_rows(path: Path, report: Report = stop) -> Iterator[Row]:
    """Every candidate with its answer; without the column `approved` all are taken."""
    first = head(path).lstrip("\r\n").split("\n", 1)[0]
    rows = split_rows(path, _separator(first), report)
    names: list[str] = []
    for line, header in islice(rows, 1):
        names = [name.strip().lower() for name in header]
        if "candidate" not in names:
            raise DataError(
                f"{path}:{line}: the first row is {header!r:.60}; expected the names of the "
                "columns, candidate among them"
            )
    for number, fields in rows:
        try:
            yield _row(fields, names)
        except ValueError as error:
            report(DataError(f"{path}:{number}: {error}"))


def _row(fields: list[str], names: list[str]) -> Row:
    if len(fields) != len(names):
        raise ValueError(
            f"{len(fields)} columns, expected {len(names)} as in the first row, got "
            f"{fields!r:.60}; put a text that has the separator in it into double quotes"
        )
    field = dict(zip(names, fields, strict=True))
    text = unguarded(field["candidate"].strip())
    if not text:
        raise ValueError(
            f"no candidate in {fields!r:.60}; expected a text, so fill it or delete the row"
        )
    warning = field.get("warning", "").strip()
    if "approved" not in field:
        if warning:
            raise ValueError(
                f"has a warning ({warning}), but there is no column approved to say that it may be "
                "said; add the column, or delete the row"
            )
        return Row(text, True, True)
    answer = field["approved"].strip().lower()
    if answer not in YES | NO:
        raise ValueError(f"approved is {field['approved'][:60]!r}; expected yes, or no or nothing")
    return Row(text, answer in YES, answer != _untouched(warning))


def _untouched(warning: str) -> str:
    """What stands under `approved` before anybody has answered."""
    return "no" if warning else ""
