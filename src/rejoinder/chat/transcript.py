"""Keep a dialogue as a file that `rejoinder.data.read` gives back."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from rejoinder.data import write_jsonl
from rejoinder.errors import DataError
from rejoinder.schema import Dialogue


def save(dialogue: Dialogue, name: str = "") -> Path:
    """Write a dialogue as native JSONL, whole or not at all, and say where.

    Without a name it becomes `rejoinder-chat-<time>.jsonl` in the current folder. A file that is
    already there is never touched.
    """
    try:
        path = Path(name).expanduser() if name else _free_name(datetime.now())
        if path.exists() or path.is_symlink():
            raise DataError(f"{path}: is there already, nothing was written; choose another name")
        write_jsonl([dialogue], path)
    except (OSError, RuntimeError, UnicodeError) as error:  # RuntimeError: ~somebody without home
        raise DataError(
            f"{name}: cannot be written ({error}); expected the name of a new file"
        ) from error
    return path.absolute()


def _free_name(now: datetime) -> Path:
    """Give the default name, numbered if two chats are saved within one second."""
    stem = f"rejoinder-chat-{now:%Y%m%d-%H%M%S}"
    path, number = Path(f"{stem}.jsonl"), 1
    while path.exists():
        number += 1
        path = Path(f"{stem}-{number}.jsonl")
    return path
