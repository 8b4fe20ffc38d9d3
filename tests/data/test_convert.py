"""Any format to native JSONL."""

import json
from pathlib import Path

import pytest

from rejoinder.data import read
from rejoinder.data.convert import convert
from rejoinder.errors import DataError

TEXT = "1 your persona: a.\n2 hi\thello|hey\t\tno|hello\n3 bye\tsee you\n1 x\ty\n"
BAD = TEXT + "oops\n2 p\tq\n"


@pytest.mark.parametrize("name", ["b.jsonl", "b.jsonl.gz", "b.jsonl.xz"])
def test_nothing_is_lost(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    found = convert(tmp_path / "a.txt", tmp_path / name)
    assert (found.dialogues, found.messages, found.bad) == (2, 6, ())
    assert list(read(tmp_path / name)) == list(read(tmp_path / "a.txt"))


def test_converting_again_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    convert(tmp_path / "a.txt", tmp_path / "b")
    once = (tmp_path / "b").read_bytes()
    convert(str(tmp_path / "b"), str(tmp_path / "b"), "jsonl")  # onto itself
    assert (tmp_path / "b").read_bytes() == once


def test_a_bad_line_leaves_the_target_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(BAD)
    (tmp_path / "b").write_text("old")
    with pytest.raises(DataError, match=r"a\.txt:5: expected 'NUMBER text"):
        convert(tmp_path / "a.txt", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b"]


def test_bad_lines_may_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(BAD)
    found = convert(tmp_path / "a.txt", tmp_path / "b", skip_bad=True)
    assert (found.dialogues, found.messages) == (2, 8)
    assert "a.txt:5: " in str(found.bad[0])
    assert len((tmp_path / "b").read_text().splitlines()) == 2
    assert json.loads((tmp_path / "b").read_text().splitlines()[0])["persona"] == ["a."]


def test_a_file_with_bad_lines_only_is_not_converted(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("{}\n{}\n")
    with pytest.raises(DataError, match="a: all 2 records are bad; the first one: .*a:1: messages"):
        convert(tmp_path / "a", tmp_path / "b", skip_bad=True)
    assert not (tmp_path / "b").exists()
