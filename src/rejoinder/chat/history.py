"""The lines that were typed, kept for the next chat."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from prompt_toolkit.history import FileHistory, History, InMemoryHistory


def history_file() -> Path:
    """Name the file where the XDG standard wants it; RuntimeError if there is no home."""
    state = os.environ.get("XDG_STATE_HOME", "")
    folder = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    return folder / "rejoinder" / "history"


def open_history() -> History:
    """Keep lines in a file that only its owner reads, or in memory if that cannot be written."""
    try:
        file = history_file()
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600))
    except (OSError, RuntimeError):
        return InMemoryHistory()
    return _QuietHistory(file)


class _QuietHistory(FileHistory):
    """A disk that fills up later must not end the chat."""

    def store_string(self, string: str) -> None:
        with suppress(OSError):
            super().store_string(string)
