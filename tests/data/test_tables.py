"""CSV and TSV."""

import csv
from pathlib import Path

import pytest

from rejoinder.data import read
from rejoinder.errors import DataError
from rejoinder.schema import Dialogue, Message


def parsed(
    tmp_path: Path, text: str, name: str = "a.csv", bad: list[DataError] | None = None
) -> list[Dialogue]:
    path = tmp_path / name
    path.write_text(text, newline="")
    return list(read(path, name.split(".")[1], bad=bad))


def pair(context: str, reply: str) -> Dialogue:
    return Dialogue((Message("user", context), Message("assistant", reply)))


def test_a_header_names_the_columns_in_any_order(tmp_path: Path) -> None:
    text = "id,Reply, CONTEXT ,persona\n1,hello,hi,i like tea.\\ni am old.\n2,bye,so long,\n"
    first, second = parsed(tmp_path, text)
    assert first == Dialogue(pair("hi", "hello").messages, ("i like tea.", "i am old."))
    assert second == pair("so long", "bye")


def test_without_a_header_the_first_two_columns_count(tmp_path: Path) -> None:
    found = parsed(tmp_path, "hi,hello,x\nbye,see you,y\n")
    assert found == [pair("hi", "hello"), pair("bye", "see you")]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.tsv", "\t")])
def test_what_a_spreadsheet_writes_is_read(
    tmp_path: Path, name: str, delimiter: str, newline: str
) -> None:
    rows = [["context", "reply"], ['say "hi", please', "hi,\tor hello"], ["", "good day"]]
    with open(tmp_path / name, "w", newline="") as file:
        csv.writer(file, delimiter=delimiter, lineterminator=newline).writerows(rows)
    found = list(read(tmp_path / name))
    opener = Dialogue((Message("assistant", "good day"),))
    assert found == [pair('say "hi", please', "hi,\tor hello"), opener]


@pytest.mark.parametrize("context", ["a\\nb\\nc", '"a\nb\n\nc"', '" a\r\nb \nc\n"'])
def test_turns_of_a_context_alternate_back_from_the_user(tmp_path: Path, context: str) -> None:
    (found,) = parsed(tmp_path, f"context,reply\n{context},d\n")
    assert [(m.role, m.content) for m in found.messages] == [
        ("user", "a"),
        ("assistant", "b"),
        ("user", "c"),
        ("assistant", "d"),
    ]


def test_silence_is_no_message(tmp_path: Path) -> None:
    (found,) = parsed(tmp_path, "context,reply\n__SILENCE__\\nhi\\nyes,good\n")
    assert [m.role for m in found.messages] == ["assistant", "user", "assistant"]


def test_a_column_of_replies_only(tmp_path: Path) -> None:
    found = parsed(tmp_path, "reply\nhello\n\n" + '"well, bye"\n')
    assert [m.content for d in found for m in d.messages] == ["hello", "well, bye"]
    assert {m.role for d in found for m in d.messages} == {"assistant"}


WRONG = {
    "hi, there,hello": r"3: 3 columns, expected 2 .*; put a text that has the separator",
    "hi": "3: 1 columns, expected 2",
    "hi,": r"3: no reply in \['hi', ''\]; expected a text, so fill it or delete the row",
    '"hi"x,hello': "3: ',' expected after '\"'; expected rows .* write a quote as",
}


@pytest.mark.parametrize("row", WRONG)
def test_a_wrong_row(tmp_path: Path, row: str) -> None:
    with pytest.raises(DataError, match=rf"a\.csv:{WRONG[row]}"):
        parsed(tmp_path, f"context,reply\na,b\n{row}\nc,d\n")
    bad: list[DataError] = []
    assert len(parsed(tmp_path, f"context,reply\na,b\n{row}\nc,d\n", bad=bad)) == 2
    assert len(bad) == 1


def test_rows_are_counted_in_lines_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.csv:6: no reply"):
        parsed(tmp_path, 'context,reply\n"a\nb\nc",d\n\ne,\n')


def test_a_quote_that_is_never_closed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.csv:2: unexpected end of data"):
        parsed(tmp_path, 'context,reply\n"a,b\nc,d\n')


def test_a_turn_of_100_000_words(tmp_path: Path) -> None:
    (dialogue,) = parsed(tmp_path, f"context,reply\n{'word ' * 100_000},b\n")
    assert len(dialogue.messages[0].content.split()) == 100_000


def test_one_column_without_a_header(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.csv:1: 1 column, 'hello'; expected context and reply"):
        parsed(tmp_path, "hello\nbye\n")


def test_a_header_alone_is_no_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.csv: no dialogue in it; expected at least one in the"):
        parsed(tmp_path, "context,reply\n")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_semicolons_separate_where_the_header_has_them(tmp_path: Path, end: str) -> None:
    rows = ["\ufeffcontext;reply", "¿1,5 o 2?;1,5, creo", '"a;b";c', ""]
    expected = [pair("¿1,5 o 2?", "1,5, creo"), pair("a;b", "c")]
    assert parsed(tmp_path, end.join(rows)) == expected
    assert list(read(tmp_path / "a.csv")) == expected
    assert parsed(tmp_path, "context,reply\na;b,c;reply\n") == [pair("a;b", "c;reply")]


def test_separators_of_other_scripts_are_text(tmp_path: Path) -> None:
    text = "context,reply\nنعم، أو لا؟,「はい」、いいえ\u2028。\n"
    assert parsed(tmp_path, text) == [pair("نعم، أو لا؟", "「はい」、いいえ\u2028。")]
