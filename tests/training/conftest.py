"""Dialogues that whole trainings, in processes of their own, learn from."""

from __future__ import annotations

from pathlib import Path

import pytest

from rejoinder.data import write_jsonl
from rejoinder.schema import Dialogue, Message


@pytest.fixture(scope="session")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """26 examples with candidates; neither batches nor processes divide their number."""
    things = ["tea", "coffee", "dogs", "cats", "music", "trains", "books", "chess"]
    things += ["rain", "snow", "cheese", "apples", "films"]
    dialogues = [
        Dialogue(
            (
                Message("user", f"hello , do you like {thing} ?"),
                Message("assistant", f"i like {thing} .", (f"i like {other} .", "yes .")),
                Message("user", "tell me more " * (number % 4)),
                Message("assistant", f"my brother likes {thing} too .", ("no .", f"{other} ?")),
            ),
            (f"i love {thing} very much .",),
        )
        for number, (thing, other) in enumerate(zip(things, things[1:] + things[:1], strict=True))
    ]
    file = tmp_path_factory.mktemp("talk") / "talk.jsonl"
    write_jsonl(dialogues, file)
    return file
