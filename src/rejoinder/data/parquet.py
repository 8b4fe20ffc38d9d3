"""Parquet files with the columns of the native format, through the library `datasets`.

A row is a dialogue: `messages`, a list of {role, content} and maybe {candidates, alternatives};
maybe `persona` and `partner_persona`, lists of texts. Such are the conversational datasets of the
Hugging Face hub. Needs the extra: pip install 'rejoinder[parquet]'.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rejoinder.data.messages import LAYOUT, parse_dialogue
from rejoinder.data.reports import Report, stop
from rejoinder.errors import DataError
from rejoinder.extras import require
from rejoinder.schema import Dialogue

MAGIC = b"PAR1"  # a parquet file begins and ends with it


def is_parquet(path: Path) -> bool:
    """Whether a file begins as parquet does."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False  # whoever reads it says what is wrong


def read_parquet(path: Path, report: Report = stop) -> Iterator[tuple[int, Dialogue]]:
    """Every dialogue with the number of its row, from 1; a bad row is reported and left out."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; looked from the folder {Path.cwd()}")
    datasets = require("datasets", "parquet")
    try:
        rows = datasets.load_dataset("parquet", data_files=str(path), split="train", streaming=True)
        for number, row in enumerate(rows, 1):
            try:
                yield number, parse_dialogue(row)
            except DataError as error:
                report(DataError(f"{path}:{number}: {error}"))
    except (OSError, ValueError, datasets.exceptions.DatasetGenerationError) as error:
        raise DataError(
            f"{path}: not a whole parquet file ({str(error).splitlines()[0][:160]}); expected rows "
            f"of {LAYOUT}, so copy or download it again"
        ) from error
