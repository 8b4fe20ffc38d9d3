"""A line of progress on stderr: how far, how fast, how long still."""

from __future__ import annotations

import sys
import time
from types import TracebackType


def note(text: str) -> None:
    """One line for the person at the terminal, beside the results."""
    if sys.stderr:  # None where it was closed from the start
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


class Bar:
    """Called with (done, all); writes at most five times a second, and only to a terminal.

    A count that falls begins a new stage, whose speed is its own.
    """

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self.started = time.monotonic()
        self.called = self.started
        self.done = 0
        self.written = 0.0
        self.shown = False

    def __enter__(self) -> Bar:
        return self

    def __call__(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if done < self.done:
            self.started = self.called
        self.done, self.called = done, now
        if not sys.stderr or not sys.stderr.isatty():
            return
        if now - self.written < 0.2 and done != total:
            return
        self.written, self.shown = now, True
        speed = done / max(now - self.started, 1e-9)
        left = f", {(total - done) / max(speed, 1e-9):.0f} s left" if total else ""
        of = f"/{total}" if total else ""
        sys.stderr.write(f"\r{done}{of} {self.unit}, {speed:.0f}/s{left}   ")
        sys.stderr.flush()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.shown:
            sys.stderr.write("\r" + " " * 60 + "\r")
