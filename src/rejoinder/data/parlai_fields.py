"""ParlAI dialogue text with named fields: `text:hi<TAB>labels:hello|hey<TAB>episode_done:True`.

Read: `text` and `labels` (or `eval_labels`), both needed, `label_candidates`, `episode_done`; other
fields are ignored. A text of several lines may begin with `your persona:` lines. As in ParlAI, any
value of `episode_done` ends the dialogue, even False: a dialogue that goes on has no such field.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rejoinder.data.files import numbered_lines
from rejoinder.data.parlai import Episode, ended
from rejoinder.data.reports import Report, stop
from rejoinder.errors import DataError
from rejoinder.schema import Dialogue

LAYOUT = "text:...<TAB>labels:...<TAB>label_candidates:...|...<TAB>episode_done:True"


def read_parlai_fields(path: Path, report: Report = stop) -> Iterator[tuple[int, Dialogue]]:
    """Every dialogue with the number of its first line.

    A bad line is reported and left out; the rest of its dialogue is kept.
    """
    episode, first = Episode(), 0
    for number, line in numbered_lines(path, report):
        if not line.strip():
            continue
        first = first or number
        done = False
        try:
            fields = _fields(line)
            done = bool(fields.get("episode_done"))
            _add(episode, fields)
        except ValueError as error:
            report(DataError(f"{path}:{number}: {error}"))
        if done:
            yield from ended(first, episode)
            episode, first = Episode(), 0
    yield from ended(first, episode)


def _fields(line: str) -> dict[str, str]:
    found = {}
    for field in line.split("\t"):
        key, colon, value = field.partition(":")
        if not colon:
            raise ValueError(
                f"expected fields like {LAYOUT!r}, got {field[:60]!r} without a colon; "
                r"write a tab inside a text as \t"
            )
        found[key] = value
    return found


def _add(episode: Episode, fields: dict[str, str]) -> None:
    replies = fields.get("labels") or fields.get("eval_labels")
    if "text" not in fields or not replies:
        missing = "text" if "text" not in fields else "labels"
        raise ValueError(
            f"{missing} is missing or empty; expected {LAYOUT!r}, got the fields "
            f"{', '.join(fields)}. Add the field, or take the line out"
        )
    candidates = fields.get("label_candidates", "")
    episode.hear(_unescaped(fields["text"]))
    episode.say(_split(replies), _split(candidates) if candidates else [])


def _split(field: str) -> list[str]:
    return [_unescaped(member) for member in field.split("|")]


def _unescaped(text: str) -> str:
    return text.replace("\\t", "\t").replace("\\n", "\n").replace("__PIPE__", "|")
