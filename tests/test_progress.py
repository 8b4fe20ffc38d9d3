"""The line of progress: nothing where nobody reads it, each stage with its own speed."""

from __future__ import annotations

import sys
from io import StringIO

import pytest

from rejoinder.progress import Bar


class Terminal(StringIO):
    """A text that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_only_a_terminal_sees_it(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar("texts") as bar:
        bar(1, 1)
    assert capsys.readouterr().err == ""


def test_a_new_stage_has_its_own_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Bar("texts") as bar:
        bar.started -= 1000
        bar(5000, 5000)
        assert "5000/5000 texts, 5/s, 0 s left" in terminal.getvalue()
        bar.called -= 10  # the first part of the new stage took ten seconds
        bar(200, 200)
    assert "200/200 texts, 20/s, 0 s left" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r"), "the line is wiped at the end"
