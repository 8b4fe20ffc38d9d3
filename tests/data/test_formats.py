"""Telling formats apart, and the table of readers."""

import gzip
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import rejoinder.data
from rejoinder.data import READERS, guess, read, read_numbered
from rejoinder.errors import DataError
from rejoinder.schema import Dialogue, Message

MESSAGES = (
    '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]}'
)
SAMPLES = {
    "jsonl": [
        MESSAGES,
        '{"persona": ["a"], ' + MESSAGES[1:],
        "{broken\n" * 0 + '{"messages": broken\n' + MESSAGES,
        '{"messages": [{"role": "user", "content": "' + "x" * 100_000 + '"}]}\n',
        "{'messages': []}",
    ],
    "json": [
        '{"train": [["hi", "yo"]]}',
        '\n { "valid" : [\n["hi", "yo"]]}',
        '{\n  "train": []\n}',
        '[["hi", "yo"]]',
        '[\n{"turns": ["hi"]}]',
        '{"train": [{"personality": ["' + "x" * 100_000 + '"]}]}',
    ],
    "parlai": [
        "1 hi\tyo",
        "1 your persona: a.\n2 hi\tyo\n1 b\tc",
        "1 hi\tyo\noops\n2 a\tb",
        "1 hi\tyo\t\t" + "|".join(["candidate"] * 20_000),
    ],
    "parlai-fields": ["text:hi\tlabels:yo", "id:1\ttext:hi\tlabels:yo\tepisode_done:True\noops"],
    "csv": ["context,reply\nhi,yo", "reply,persona\nyo,a", '"Context","Reply","x"\n"hi","yo",3'],
    "tsv": ["context\treply\nhi\tyo", "hi\tyo\nbye\tsee you"],
}


@pytest.mark.parametrize(
    ("format", "text"), [(name, text) for name, texts in SAMPLES.items() for text in texts]
)
@pytest.mark.parametrize("name", ["a", "a.json", "a.txt.gz"])
def test_the_content_tells_the_format(tmp_path: Path, format: str, text: str, name: str) -> None:
    raw = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    assert guess(tmp_path / name) == format


@pytest.mark.parametrize("format", ["csv", "tsv"])
@pytest.mark.parametrize("packing", ["", ".gz"])
def test_a_table_without_a_header_goes_by_its_name(
    tmp_path: Path, format: str, packing: str
) -> None:
    (tmp_path / f"a.{format}{packing}").write_text("hi,hello\n")
    assert guess(str(tmp_path / f"a.{format}{packing}")) == format


PLAIN = [
    "hello\nhow are you?\n",
    "1 more thing\nhello, you\nbye\n",
    "[laughs] hello\n",
    "{name}, hello\n",
    "text: this is\nno field\n",
    "1 hi\n2 there\n",
    "well, i reply\n",
    "a \r b, c\n",
]


@pytest.mark.parametrize("text", PLAIN)
def test_plain_lines_are_no_dialogues(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(
        DataError, match=r"a\.txt: does not begin like any known format; .* csv, js"
    ):
        read(tmp_path / "a.txt")


def test_a_pipe_is_read_only_if_its_format_is_named(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(DataError, match="is a pipe or device, .* name the format"):
        guess(pipe)
    feeder = threading.Thread(target=pipe.write_text, args=("1 hi\tyo\n",))
    feeder.start()
    assert len(list(read(pipe, "parlai"))) == 1
    feeder.join()


def test_an_unknown_format_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"unknown format 'xml'; expected one of csv, json, jsonl, "
    ):
        read(tmp_path / "a", "xml")


Use = Callable[[Path], object]


@pytest.mark.parametrize("use", [guess, read])
def test_a_missing_file_is_named_at_once(tmp_path: Path, use: Use) -> None:
    with pytest.raises(DataError, match="no such file"):
        use(tmp_path / "no")


@pytest.mark.parametrize("format", sorted(set(READERS) - {"parquet"}))
def test_a_file_of_blank_lines_is_no_data(tmp_path: Path, format: str) -> None:
    (tmp_path / "a").write_text("\n \n\n")
    with pytest.raises(DataError, match=r"a: no dialogue in it|a:4: .*got 'the end"):
        list(read(tmp_path / "a", format))


def test_every_reader_gives_the_same_dialogue_for_the_same_talk(tmp_path: Path) -> None:
    texts = {
        "csv": "context,reply\nhi,yo\n",
        "json": '[["hi", "yo"]]',
        "jsonl": MESSAGES,
        "parlai": "1 hi\tyo",
        "parlai-fields": "text:hi\tlabels:yo",
        "tsv": "hi\tyo",
    }
    assert texts.keys() == READERS.keys() - {"parquet"}  # test_parquet.py
    for format, text in texts.items():
        (tmp_path / "a").write_text(text)
        found = list(read(tmp_path / "a"))
        assert found == [Dialogue((Message("user", "hi"), Message("assistant", "yo")))], format


def test_bad_may_be_a_list_or_a_function(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(f"{MESSAGES}\nbroken\n{MESSAGES}\n")
    with pytest.raises(DataError, match="a:2: not JSON"):
        list(read(tmp_path / "a"))
    listed: list[DataError] = []
    called: list[str] = []
    assert [line for line, _ in read_numbered(tmp_path / "a", bad=listed)] == [1, 3]
    assert len(list(read(tmp_path / "a", bad=lambda error: called.append(str(error))))) == 2
    assert [str(error) for error in listed] == called


def test_a_file_with_only_bad_lines_gives_its_errors(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("{broken\n")
    bad: list[DataError] = []
    assert list(read(tmp_path / "a", "jsonl", bad=bad)) == []
    assert len(bad) == 1


def test_public_names_are_sorted_and_there() -> None:
    assert rejoinder.data.__all__ == sorted(rejoinder.data.__all__)
    assert all(hasattr(rejoinder.data, name) for name in rejoinder.data.__all__)
    assert list(READERS) == sorted(READERS)
    assert json.loads(MESSAGES)["messages"]
