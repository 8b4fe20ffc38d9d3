"""Dialogues from files: one reader per format, all giving `Dialogue` records one by one.

    from rejoinder.data import read

    for dialogue in read("train.txt.xz"):
        ...

Files may be plain, .gz or .xz, and of any size: a reader holds one dialogue at a time. A new format
is one function and one line in `READERS`. Beside this: candidates in `lines`, a look over a file in
`check`, other formats to JSONL in `convert`, ConvAI2 in `download`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path

from rejoinder.data.convai2 import read_json
from rejoinder.data.formats import recognise
from rejoinder.data.messages import parse_dialogue, read_jsonl, to_json, write_jsonl
from rejoinder.data.parlai import read_parlai
from rejoinder.data.parlai_fields import read_parlai_fields
from rejoinder.data.parquet import read_parquet
from rejoinder.data.reports import Report, as_report
from rejoinder.data.tables import read_csv, read_tsv
from rejoinder.errors import DataError
from rejoinder.schema import Dialogue

__all__ = ["READERS", "guess", "parse_dialogue", "read", "read_numbered", "to_json", "write_jsonl"]

Reader = Callable[[Path, Report], Iterator[tuple[int, Dialogue]]]

READERS: dict[str, Reader] = {
    "csv": read_csv,
    "json": read_json,
    "jsonl": read_jsonl,
    "parlai": read_parlai,
    "parlai-fields": read_parlai_fields,
    "parquet": read_parquet,
    "tsv": read_tsv,
}


def read(
    path: str | PathLike[str],
    format: str | None = None,
    *,
    bad: list[DataError] | Report | None = None,
) -> Iterator[Dialogue]:
    """Every dialogue of a file, one at a time, in a format of `READERS`; guessed if None.

    A bad line raises `DataError`, or, if `bad` is given, is left out and its error added to the
    list or handed to the function `bad`. What is wrong with the whole file is always raised.
    """
    return (dialogue for _, dialogue in read_numbered(path, format, bad=bad))


def read_numbered(
    path: str | PathLike[str],
    format: str | None = None,
    *,
    bad: list[DataError] | Report | None = None,
) -> Iterator[tuple[int, Dialogue]]:
    """Every dialogue as `read` gives it, with the number of the line where it begins."""
    path = Path(path)
    format = format or guess(path)
    if format not in READERS:
        raise DataError(f"{path}: unknown format {format!r}; expected one of {_known()}")
    return _not_empty(path, format, as_report(bad))


def guess(path: str | PathLike[str]) -> str:
    """Name the format of a file from how its text begins."""
    found = recognise(Path(path))
    if found is None:
        raise DataError(
            f"{path}: does not begin like any known format; expected one of {_known()}, "
            "so name one of them or convert the file (a table needs a first row: context,reply)"
        )
    return found


def _known() -> str:
    return ", ".join(sorted(READERS))


def _not_empty(path: Path, format: str, report: Report) -> Iterator[tuple[int, Dialogue]]:
    """Pass dialogues on; a file with none, good or bad, is not what the user meant."""
    found = False

    def noted(error: DataError) -> None:
        nonlocal found
        found = True
        report(error)

    for item in READERS[format](path, noted):
        found = True
        yield item
    if not found:
        raise DataError(f"{path}: no dialogue in it; expected at least one in the format {format}")
