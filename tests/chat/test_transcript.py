"""What is saved is read back, and no file is ever lost."""

from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rejoinder.chat import transcript
from rejoinder.data import read
from rejoinder.errors import DataError
from rejoinder.schema import Dialogue, Message

TALK = Dialogue((Message("user", "hi"), Message("assistant", "yo")), ("I like tea.",))
TEXTS = st.text(max_size=20)
DIALOGUES = st.builds(
    Dialogue,
    st.lists(st.builds(Message, st.sampled_from(["user", "assistant"]), TEXTS)).map(tuple),
    st.lists(TEXTS).map(tuple),
)


@given(DIALOGUES)
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_saved_and_read_is_the_same(tmp_path: Path, dialogue: Dialogue) -> None:
    name = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
    assert transcript.save(dialogue, str(name)) == name
    assert list(read(name)) == [dialogue]


def test_without_a_name_each_gets_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = {transcript.save(TALK) for _ in range(3)}
    assert len(paths) == 3
    for path in paths:
        assert path.parent == tmp_path
        assert path.name.startswith(f"rejoinder-chat-{datetime.now():%Y}")
        assert list(read(path)) == [TALK]


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("precious")
    with pytest.raises(DataError, match=r"mine\.txt: is there already.*another name"):
        transcript.save(TALK, str(path))
    assert path.read_text() == "precious"


def test_a_link_that_leads_nowhere_is_there_too(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match="is there already"):
        transcript.save(TALK, str(tmp_path / "link"))


def test_the_home_folder_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert transcript.save(TALK, "~/a b.jsonl.gz") == tmp_path / "a b.jsonl.gz"
    assert list(read(tmp_path / "a b.jsonl.gz")) == [TALK]


@pytest.mark.parametrize("name", ["no/such/folder/a.jsonl", "~nobody-at-all/a.jsonl", "x" * 300])
def test_what_cannot_be_written_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="cannot be written"):
        transcript.save(TALK, name)
    assert list(tmp_path.iterdir()) == []


def test_half_a_character_leaves_no_half_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be written"):
        transcript.save(TALK.then("assistant", "\ud83d"), str(tmp_path / "a.jsonl"))
    assert list(tmp_path.iterdir()) == []
