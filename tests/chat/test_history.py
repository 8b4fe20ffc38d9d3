"""Typed lines are kept where the standard says, for their owner only, or not at all."""

import stat
from pathlib import Path

import pytest
from prompt_toolkit.history import InMemoryHistory

from rejoinder.chat.history import history_file, open_history


def test_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert history_file() == Path("/state/rejoinder/history")
    for relative in ("", "state"):
        monkeypatch.setenv("XDG_STATE_HOME", relative)
        assert history_file() == Path("/home/somebody/.local/state/rejoinder/history")


def test_lines_are_kept_for_their_owner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    open_history().append_string("hi\nthere")
    open_history().append_string("half \udcff")
    assert list(open_history().load_history_strings()) == ["half ?", "hi\nthere"]
    assert stat.S_IMODE(history_file().stat().st_mode) == 0o600
    assert stat.S_IMODE(history_file().parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("place", ["rejoinder", "rejoinder/history"])
def test_what_cannot_be_written_is_kept_in_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    if place == "rejoinder":
        (tmp_path / place).write_text("a file where the folder should be")
    else:
        (tmp_path / place).mkdir(parents=True)
    assert isinstance(open_history(), InMemoryHistory)


def test_a_file_that_goes_away_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    history = open_history()
    history_file().unlink()
    history_file().mkdir()
    history.append_string("hi")
    assert history.get_strings() == ["hi"]
