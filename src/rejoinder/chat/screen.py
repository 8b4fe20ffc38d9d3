"""How a chat looks: plain lines and one table, readable at 80 columns and without colour.

rich only lays text out. Writing is done here, as rich would end the program at a broken pipe.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import IO, TextIO

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from rejoinder.chat.commands import Note, Outcome, Why
from rejoinder.chat.persona import shown
from rejoinder.chat.readable import readable
from rejoinder.chat.session import Answer, ChatOptions
from rejoinder.errors import RejoinderError

LISTED = 10  # candidates in the table of /why


class Screen:
    """Replies and tables go to `out`, what the chat itself says to `notes`.

    With somebody at the terminal both are the same, and replies say who speaks. Otherwise `out` has
    each reply as it is, and nothing is wrapped.
    """

    def __init__(self, out: TextIO, notes: TextIO, live: bool) -> None:
        self.live = live
        self._out = _console(out)
        self._notes = _console(notes)
        self._begun = False  # whether pieces of a reply are on the screen already

    def opening(self, options: ChatOptions) -> None:
        """Say who is there and how to begin."""
        if options.title:
            _write(self._notes, Text(readable(options.title), style="bold"))
        self.note(f"{shown(options.persona)}\nType a message; /help lists what else there is.")

    def heard(self, piece: str) -> None:
        """Show a piece of a reply while it is written."""
        if not self._begun:
            _write(self._out, Text("bot: ", style="bold"), end="")
        self._begun = True
        _send(self._out, readable(piece))

    def show(self, outcome: Outcome) -> None:
        """Show what came of a line."""
        if isinstance(outcome, Answer):
            self._answer(outcome)
        elif isinstance(outcome, Why):
            _write(self._out, *explained(outcome))
        elif isinstance(outcome, Note):
            self.note(outcome.text)

    def note(self, text: str) -> None:
        """Say something that is no reply."""
        self._begun = False  # Ctrl-C may have come in the middle of one
        _write(self._notes, Text(readable(text)), wrap=self.live)

    def trouble(self, error: RejoinderError) -> None:
        """Show what went wrong."""
        _write(self._notes, Text(readable(f"Error: {error}"), style="red"), wrap=self.live)

    def _answer(self, answer: Answer) -> None:
        if not self.live:
            _send(self._out, readable(answer.said) + "\n")
            return
        if self._begun:
            _send(self._out, "\n")
            self._begun = False
        else:
            _write(self._out, Text.assemble(("bot: ", "bold"), readable(answer.said)))
        if answer.fallback:
            self.note("(not sure enough; /why tells more)")


def explained(why: Why) -> list[RenderableType]:
    """Lay out how an answer came about: its candidates, best first, and how sure it was."""
    answer, reply = why.answer, why.answer.reply
    lines: list[RenderableType] = []
    if answer.fallback:
        lines.append(Text(f"It would have said: {readable(reply.text)}"))
    if reply.considered:
        lines.append(_table(why))
    shown_count = min(LISTED, len(reply.considered))
    sure = "unknown (the model is not calibrated)"
    if reply.confidence is not None:
        sure = f"{reply.confidence:.2f}"
        if why.min_confidence:
            side = "below" if answer.fallback else "not below"
            sure += f", {side} the minimum of {why.min_confidence:.2f}"
        if reply.meaning:
            sure += f" ({reply.meaning})"
    lines.append(Text(f"Confidence: {sure}."))
    lines.append(
        Text(
            f"Candidates considered: {len(reply.considered)}, shown: {shown_count}. "
            f"Time: {answer.seconds:.2f} s."
        )
    )
    return lines


def _table(why: Why) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    listed = why.answer.reply.considered[:LISTED]
    origins = any(scored.origin for scored in listed)
    if origins:
        table.add_column("from", no_wrap=True)
    table.add_column("candidate", overflow="fold")
    for place, scored in enumerate(listed, start=1):
        cells = [str(place), f"{scored.score:.3f}", *([scored.origin] if origins else [])]
        table.add_row(*cells, Text(readable(scored.text)))
    return table


def _console(stream: TextIO) -> Console:
    return Console(file=stream, highlight=False, markup=False, emoji=False)


def _write(console: Console, *parts: RenderableType, wrap: bool = True, end: str = "\n") -> None:
    """Lay out and send."""
    with console.capture() as laid_out:
        for part in parts:
            console.print(part, soft_wrap=not wrap, end=end)
    _send(console, laid_out.get())


def _send(console: Console, text: str) -> None:
    """Write and flush, whatever the encoding; BrokenPipeError if nobody reads any more."""
    stream, encoding = console.file, console.encoding
    try:
        stream.write(text.encode(encoding, "replace").decode(encoding))
        stream.flush()
    except OSError as error:
        _silence(stream)
        if isinstance(error, BrokenPipeError):
            raise
        raise RejoinderError(
            f"the output cannot be written ({error.strerror or error}); "
            "is the disk full that it is sent to?"
        ) from error


def _silence(stream: IO[str]) -> None:
    """Send what is left in a stream's buffer to nowhere, or Python complains when it ends."""
    with suppress(OSError, ValueError):
        broken = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, broken)
        os.close(nowhere)
