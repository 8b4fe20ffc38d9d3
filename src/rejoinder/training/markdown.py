"""Small pieces of Markdown: text that may hold anything, tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

LONGEST = 160  # characters of a text in a cell
_SPECIAL = re.compile(r"([\\`*_\[\]|#~])")
_UNREADABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def cell(text: str, most: int = LONGEST) -> str:
    """Text of anybody as one line of a table: cut, nothing in it read as Markdown or HTML."""
    flat = _UNREADABLE.sub("\ufffd", " ".join(text.split()))
    if len(flat) > most:
        flat = flat[: most - 2].rstrip() + " …"
    plain = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", plain)


def code(text: str) -> str:
    """Text as code in a cell; it may hold backticks and pipes."""
    flat = _UNREADABLE.sub("\ufffd", " ".join(text.split())).replace("|", r"\|")
    longest = max((len(run) for run in re.findall("`+", flat)), default=0)
    fence, gap = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{gap}{flat}{gap}{fence}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table; cells are Markdown already."""
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]
