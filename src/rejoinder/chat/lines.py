"""Where typed lines come from: a person at a terminal, or a pipe.

Both give a function like `input`: the next line, EOFError at the end, KeyboardInterrupt at Ctrl-C.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from io import TextIOWrapper
from typing import TextIO

from rejoinder.chat.persona import is_only_persona, is_persona_line

Ask = Callable[[], str]


def piped(stdin: TextIO | None) -> Ask:
    """Read plain lines; what cannot be decoded is replaced. None is a closed input.

    Persona lines come as one text with those that follow, as each text replaces the persona.
    """
    _forgive(stdin)
    ahead: list[str] = []  # at most one line, read too early

    def read() -> str:
        return stdin.readline().removeprefix("\ufeff") if stdin else ""

    def ask() -> str:
        text = ahead.pop() if ahead else read()
        if not text:
            raise EOFError
        last = text
        while is_only_persona(last):
            last = read()
            if not is_persona_line(last):
                ahead.append(last)
                break
            text += last
        return text.rstrip("\r\n")

    return ask


def typed(prompt: str, words: Iterable[str]) -> Ask:
    """Read from our terminal with line editing, history, and `words` to complete with Tab."""
    from prompt_toolkit import PromptSession  # only a person at a terminal waits for its import
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.shortcuts import CompleteStyle
    from prompt_toolkit.utils import is_dumb_terminal

    from rejoinder.chat.history import open_history

    if is_dumb_terminal():  # prompt_toolkit would send it cursor codes
        _forgive(sys.stdin)
        return lambda: input(prompt)
    session: PromptSession[str] = PromptSession(
        prompt,
        history=open_history(),
        completer=WordCompleter(list(words), sentence=True),
        complete_while_typing=False,
        complete_style=CompleteStyle.READLINE_LIKE,  # other styles keep 8 lines free for a menu
        enable_suspend=True,
    )
    return session.prompt


def _forgive(stdin: TextIO | None) -> None:
    """Replace what cannot be decoded."""
    if isinstance(stdin, TextIOWrapper):
        stdin.reconfigure(errors="replace")
