"""Tables of candidates: every text comes back, and only what was approved."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.data import guess, read
from rejoinder.data.approval import (
    COLUMNS,
    Proposal,
    guarded,
    is_table,
    read_rows,
    read_table,
    unguarded,
    write_table,
)
from rejoinder.data.lines import read_candidates
from rejoinder.errors import DataError

FORMULAS = ["=1+1", "+49 is it", "-", "@SUM(A1)", "'=1", "''+2", "'", "'tis", "\uff1dA1", "\n=1"]
texts = st.text(
    st.one_of(
        st.sampled_from("='+-@\t\n\r,;\"a "),
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
    )
)


@pytest.mark.parametrize("text", FORMULAS)
def test_no_text_is_a_formula_and_each_comes_back(text: str) -> None:
    assert guarded(text)[0] not in "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"
    assert unguarded(guarded(text)) == text


@given(texts)
def test_guarding_can_be_undone(text: str) -> None:
    assert unguarded(guarded(text)) == text


@given(found=st.lists(texts.map(lambda text: text.replace("\r", "").strip()).filter(bool)))
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, found: list[str]
) -> None:
    file = tmp_path_factory.mktemp("table") / "a.csv"
    write_table([Proposal(text, 1, (text,), "", 1, (text,)) for text in found], file)
    rows = list(read_rows(file))
    assert [row.text for row in rows] == found
    assert not any(row.approved or row.touched for row in rows)


def written(tmp_path: Path) -> list[list[str]]:
    """The rows of a table of four, one of them with a warning, as another program reads them."""
    found = [Proposal(text, 2, ("hi", "=you")) for text in ("yes, I do", 'say "hi"', "=1+1")]
    found.append(Proposal("call 555-0123", 1, (), "a phone number: 55...23"))
    write_table(found, tmp_path / "a.csv")
    with open(tmp_path / "a.csv", encoding="utf-8-sig", newline="") as file:
        return list(csv.reader(file))


def save(path: Path, rows: list[list[str]], delimiter: str = ",", newline: str = "\r\n") -> Path:
    with open(path, "w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=delimiter, lineterminator=newline).writerows(rows)
    return path


def test_nothing_is_approved_until_somebody_says_so(tmp_path: Path) -> None:
    header, *rows = written(tmp_path)
    place = header.index("approved")
    assert header == list(COLUMNS)
    assert [row[place] for row in rows] == ["", "", "", "no"]
    with pytest.raises(DataError, match=r"a\.csv: none of its 4 candidates is approved; .* yes"):
        list(read_candidates(tmp_path / "a.csv"))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a"])
def test_what_a_spreadsheet_saves_is_read(
    tmp_path: Path, name: str, delimiter: str, newline: str
) -> None:
    rows = written(tmp_path)
    for row, answer in zip(rows[1:], ["YES", " x ", "TRUE", "no"], strict=True):
        row[3] = answer
    moved = [[*reversed(row), "my own"] for row in rows]
    file = save(tmp_path / name, moved, delimiter, newline)
    assert list(read_candidates(file)) == ["yes, I do", 'say "hi"', "=1+1"]


def test_a_warning_can_be_overruled(tmp_path: Path) -> None:
    rows = written(tmp_path)
    rows[4][3] = "yes"
    assert list(read_table(save(tmp_path / "a.csv", rows))) == ["call 555-0123"]


def test_without_the_column_all_rows_are_taken_but_for_warnings(tmp_path: Path) -> None:
    rows = [[*row[:3], *row[4:]] for row in written(tmp_path)]
    file = save(tmp_path / "a.csv", rows)
    with pytest.raises(DataError, match=r"a\.csv:8: has a warning \(a phone number: 55\.\.\.23\)"):
        list(read_table(file))
    assert list(read_table(save(file, rows[:4]))) == ["yes, I do", 'say "hi"', "=1+1"]


WRONG = {
    "hello,1,perhaps": r"3: approved is 'perhaps'; expected yes, or no or nothing",
    "hello,1": r"3: 2 columns, expected 3 as in the first row",
    ",1,yes": r"3: no candidate in \['', '1', 'yes'\]; expected a text",
    '"hello"x,1,yes': r"3: ',' expected after '\"'; expected rows of a table",
}


@pytest.mark.parametrize("row", WRONG)
def test_a_wrong_row(tmp_path: Path, row: str) -> None:
    file = tmp_path / "a.csv"
    file.write_text(f"candidate,count,approved\nfine,1,yes\n{row}\ngood,1,y\n")
    with pytest.raises(DataError, match=rf"a\.csv:{WRONG[row]}"):
        list(read_candidates(file))
    bad: list[DataError] = []
    assert list(read_candidates(file, bad=bad)) == ["fine", "good"]
    assert len(bad) == 1


def test_rows_are_counted_in_lines_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text('candidate,approved\n"a\nb",yes\n\nc,why\n')
    with pytest.raises(DataError, match=r"a\.csv:5: approved is 'why'"):
        list(read_table(file))


def test_a_table_that_has_no_candidates(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("context,reply\nhi,hello\n")
    with pytest.raises(DataError, match=r"a\.csv:1: the first row .* candidate among them"):
        list(read_candidates(file, "candidates"))
    file.write_text("candidate,approved\n")
    with pytest.raises(DataError, match=r"a\.csv: no candidate in it"):
        list(read_candidates(file))


def test_other_files_are_what_they_were(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("context,reply,candidate,approved\nhi,hello,x,no\n")
    assert not is_table(file)
    assert list(read_candidates(file)) == ["hello"]
    lines = tmp_path / "a.txt"
    lines.write_text("candidate\nhello, count\n")
    assert list(read_candidates(lines)) == ["candidate", "hello, count"]


def test_it_is_no_file_of_dialogues(tmp_path: Path) -> None:
    written(tmp_path)
    file = tmp_path / "a.csv"
    assert guess(file) == "csv"
    with pytest.raises(
        DataError, match=r"a\.csv:1: a table of candidates, .*rejoinder index build"
    ):
        list(read(file))
