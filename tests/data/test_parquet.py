"""Parquet through the library that everybody writes it with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from rejoinder.data import guess, read, to_json
from rejoinder.data.lines import read_candidates
from rejoinder.errors import DataError
from rejoinder.schema import Dialogue, Message

datasets = pytest.importorskip("datasets", reason="the extra parquet is not installed")

DIALOGUES = [
    Dialogue(
        (Message("user", "hi ¿qué?"), Message("assistant", "お茶", ("お茶", "no"))), ("i like",)
    ),
    Dialogue((Message("user", "a"), Message("assistant", "b"), Message("user", "c"))),
    Dialogue((Message("assistant", "opens"),), ("x", "y"), ("z",)),
]


def written(folder: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    file = folder / "talk.parquet"
    keys = dict.fromkeys(key for row in rows for key in row)  # a table has all columns in all rows
    table = [{key: row.get(key) for key in keys} for row in rows]
    datasets.Dataset.from_list(table).to_parquet(str(file))
    return file


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    file = written(tmp_path, [to_json(dialogue) for dialogue in DIALOGUES])
    assert guess(file) == "parquet"
    assert list(read(file)) == DIALOGUES


def test_the_name_does_not_matter(tmp_path: Path) -> None:
    file = written(tmp_path, [to_json(DIALOGUES[0])]).rename(tmp_path / "talk.data")
    assert list(read(file)) == DIALOGUES[:1]


def test_a_bad_row_is_told_with_its_number(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": role, "content": "x"}]} for role in ("user", "bot", "assistant")]
    file = written(tmp_path, rows)
    with pytest.raises(DataError, match=r"talk\.parquet:2: messages\[0\]\.role: expected"):
        list(read(file))
    bad: list[DataError] = []
    assert len(list(read(file, bad=bad))) == 2
    assert len(bad) == 1


def test_other_columns(tmp_path: Path) -> None:
    file = written(tmp_path, [{"text": "hi"}])
    with pytest.raises(DataError, match=r":1: messages: expected a list .* the keys text"):
        list(read(file))


def test_a_file_that_is_cut_off(tmp_path: Path) -> None:
    file = written(tmp_path, [to_json(dialogue) for dialogue in DIALOGUES])
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(DataError, match="not a whole parquet file"):
        list(read(file))


def test_replies_of_it_are_candidates(tmp_path: Path) -> None:
    file = written(tmp_path, [to_json(dialogue) for dialogue in DIALOGUES])
    assert list(read_candidates(file)) == ["お茶", "b", "opens"]
