"""The chat itself: read a line, do what it says, show what came of it."""

from __future__ import annotations

import sys
from typing import TextIO

from rejoinder.chat.commands import COMMANDS, Over, handle
from rejoinder.chat.lines import Ask, piped, typed
from rejoinder.chat.screen import Screen
from rejoinder.chat.session import ChatOptions, Responder, Session
from rejoinder.errors import RejoinderError


def run_chat(
    agent: Responder,
    options: ChatOptions,
    *,
    stdin: TextIO | None = None,
    stdout: TextIO | None = None,
    stderr: TextIO | None = None,
) -> None:
    """Chat until the input ends; streams that are not given are those of the process.

    At a terminal an error is shown and the chat goes on. Otherwise a line is a message or command,
    a reply is a line on `stdout`, notes go to `stderr`, and an error ends the chat and is raised.
    """
    stdin = sys.stdin if stdin is None else stdin
    stdout = sys.stdout if stdout is None else stdout
    stderr = sys.stderr if stderr is None else stderr
    live = _somebody_there(stdin, stdout)
    screen = Screen(stdout, stdout if live else stderr, live)
    session = Session(agent, options, screen.heard if live else None)
    try:
        screen.opening(options)
        ask = typed("you: ", [f"/{name}" for name in COMMANDS]) if live else piped(stdin)
        while _turn(session, ask, screen):
            pass
    except (BrokenPipeError, KeyboardInterrupt):
        pass  # whoever read the replies has left, or does not want more of them


def _somebody_there(stdin: TextIO | None, stdout: TextIO) -> bool:
    """Tell if a person types and reads at the terminal of this process."""
    ours = stdin is sys.stdin and stdout is sys.stdout
    return ours and stdin is not None and stdin.isatty() and stdout.isatty()


def _turn(session: Session, ask: Ask, screen: Screen) -> bool:
    """Do one line; False if it was the last."""
    try:
        line = _next(ask)
        outcome = Over() if line is None else handle(session, line)
        if outcome is not None:
            screen.show(outcome)
        return not isinstance(outcome, Over)
    except KeyboardInterrupt:
        if not screen.live:
            raise
        screen.note("\nDropped. Ctrl-D or /exit leaves.")
        return True
    except RejoinderError as error:
        if not screen.live:
            raise
        screen.trouble(error)
        return True


def _next(ask: Ask) -> str | None:
    try:
        return ask()
    except EOFError:
        return None
