"""What a reader does about a line that it cannot read: tell a report, which may raise."""

from __future__ import annotations

from collections.abc import Callable

from rejoinder.errors import DataError

Report = Callable[[DataError], None]


def stop(error: DataError) -> None:
    """Raise what was reported: the first bad line ends the reading."""
    raise error


def as_report(bad: list[DataError] | Report | None) -> Report:
    """Give the report for a `bad` argument: collect in the list, call it, or stop if None."""
    if bad is None:
        return stop
    return bad.append if isinstance(bad, list) else bad
