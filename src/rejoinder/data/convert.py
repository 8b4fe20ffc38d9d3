"""Turn a file of dialogues in any format into the native JSONL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from rejoinder.data import read
from rejoinder.data.messages import write_jsonl
from rejoinder.errors import DataError
from rejoinder.schema import Dialogue


@dataclass(frozen=True, kw_only=True)
class Converted:
    """How much was written, and what was left out."""

    dialogues: int
    messages: int
    bad: tuple[DataError, ...]


def convert(
    source: str | PathLike[str],
    target: str | PathLike[str],
    format: str | None = None,
    *,
    skip_bad: bool = False,
) -> Converted:
    """Write the dialogues of `source` to `target` as JSONL, packed if it ends in .gz or .xz.

    A bad line raises `DataError` and leaves `target` as it was, or is left out with `skip_bad`.
    """
    bad: list[DataError] = []
    count = messages = 0

    def counted() -> Iterator[Dialogue]:
        nonlocal count, messages
        for dialogue in read(source, format, bad=bad if skip_bad else None):
            messages += len(dialogue.messages)
            count += 1
            yield dialogue
        if not count:
            raise DataError(f"{source}: all {len(bad)} records are bad; the first one: {bad[0]}")

    write_jsonl(counted(), Path(target))
    return Converted(dialogues=count, messages=messages, bad=tuple(bad))
