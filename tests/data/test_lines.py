"""Candidates from any file."""

from pathlib import Path

import pytest

from rejoinder.data.lines import read_candidates
from rejoinder.errors import DataError


def found(
    tmp_path: Path,
    text: str,
    name: str = "a.txt",
    format: str | None = None,
    bad: list[DataError] | None = None,
) -> list[str]:
    (tmp_path / name).write_text(text)
    return list(read_candidates(tmp_path / name, format, bad=bad))


def test_plain_lines_in_order_without_blank_ones(tmp_path: Path) -> None:
    text = "hello there\n\n  1 more thing , see ?  \nhello there\n \n{what}\n"
    assert found(tmp_path, text) == ["hello there", "1 more thing , see ?", "hello there", "{what}"]


def test_the_replies_of_dialogues(tmp_path: Path) -> None:
    text = "1 your persona: a.\n2 hi\thello|hey\t\tx|hello\n3 bye\tsee you\n"
    assert found(tmp_path, text) == ["hello", "hey", "see you"]


def test_a_table_of_approved_replies(tmp_path: Path) -> None:
    assert found(tmp_path, 'id,reply\n1,"well, hello"\n2,bye\n') == ["well, hello", "bye"]
    assert found(tmp_path, "reply\nhello\nbye\n", "a.csv") == ["hello", "bye"]


def test_lines_may_be_asked_for(tmp_path: Path) -> None:
    assert found(tmp_path, "1 hi\tyo\n", format="lines") == ["1 hi\tyo"]


def test_bad_lines_stop_or_are_collected(tmp_path: Path) -> None:
    text = "1 hi\thello\nbroken\n2 bye\tsee you\n"
    with pytest.raises(DataError, match=r"a\.txt:2: expected 'NUMBER text"):
        found(tmp_path, text)
    bad: list[DataError] = []
    assert found(tmp_path, text, bad=bad) == ["hello", "see you"]
    assert len(bad) == 1


def test_a_missing_file_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_candidates(tmp_path / "no")


def test_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the file is empty"):
        found(tmp_path, "")


def test_a_file_of_blank_lines_has_no_candidate(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.txt: no candidate in it; expected one a line"):
        found(tmp_path, "\n  \n")
