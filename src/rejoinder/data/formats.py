"""Tell the format of a file of dialogues from how it begins."""

from __future__ import annotations

import re
from pathlib import Path

from rejoinder.data.files import BLOCK, head
from rejoinder.data.parquet import is_parquet
from rejoinder.data.tables import columns
from rejoinder.errors import DataError

LOOKED_AT = 50  # lines
SPLIT = re.compile(r'"(train|valid|validation|dev|test)"\s*:\s*\[')
LIST = re.compile(r"\[\s*[\[{\"\]]")  # but not a line such as "[laughs] hello"
OBJECT = re.compile(r"{\s*[\"'}]")
NUMBERED = re.compile(r"[0-9]+ ")


def recognise(path: Path) -> str | None:
    """Name the format, or None if the file looks like none of them (it may be plain lines)."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise DataError(
            f"{path}: is a pipe or device, so its start cannot be looked at; name the format"
        )
    if is_parquet(path):
        return "parquet"
    text = head(path)
    if len(text) < BLOCK // 4:  # all of it, most likely
        text += "\n"
    lines = [line.rstrip("\r") for line in text.split("\n")[:-1] if line.strip()] or [text]
    if not text.strip():
        return None
    return _json(text.lstrip(), lines[0].strip()) or _text(lines[:LOOKED_AT], path)


def _json(text: str, first: str) -> str | None:
    if LIST.match(text):
        return "json"
    if OBJECT.match(text):
        return "json" if first == "{" or SPLIT.match(text[1:].lstrip()) else "jsonl"
    return None


def _text(lines: list[str], path: Path) -> str | None:
    """Tell formats of text lines apart: half of them have to look right, for some may be bad."""
    half = len(lines) / 2
    if sum(_has_fields(line) for line in lines) >= half:
        return "parlai-fields"
    if sum(bool(NUMBERED.match(line)) for line in lines) >= half and any(
        "\t" in line or "persona:" in line for line in lines
    ):
        return "parlai"
    for name, delimiter in (("tsv", "\t"), ("csv", ","), ("csv", ";")):
        header = [name.strip(' "') for name in lines[0].split(delimiter)]
        if (columns(header) and len(header) > 1) or f".{name}" in path.suffixes[-2:]:
            return name
    return "tsv" if sum("\t" in line for line in lines) >= half else None


def _has_fields(line: str) -> bool:
    names = {field.partition(":")[0] for field in line.split("\t") if ":" in field}
    return "text" in names and bool(names & {"labels", "eval_labels", "label_candidates", "id"})
