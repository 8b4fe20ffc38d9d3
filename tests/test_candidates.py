"""Where candidates come from, what is left out, and what their key in the cache depends on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rejoinder import candidates
from rejoinder.errors import DataError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    target = tmp_path / "replies.txt"
    target.write_text("hello .\nbad word here\nhello .\nbadly put\nI am Ana .\n")
    return target


def test_each_text_once_in_order(file: Path) -> None:
    found = candidates.collect([file, file])
    assert found.texts == ["hello .", "bad word here", "badly put", "I am Ana ."]
    assert found.repeated == 6


def test_blocked_words_are_whole_and_any_case(file: Path, tmp_path: Path) -> None:
    block = tmp_path / "block.txt"
    block.write_text("# names and words\nBAD\n/\\bana\\b/\n")
    found = candidates.collect([file], block)
    assert found.texts == ["hello .", "badly put"]
    assert found.blocked == 2


def test_a_bad_expression_is_named_with_its_line(tmp_path: Path) -> None:
    block = tmp_path / "block.txt"
    block.write_text("fine\n/(unclosed/\n")
    with pytest.raises(DataError, match=r"block\.txt:2: .*no regular expression"):
        candidates.read_block(block)


def test_everything_blocked(file: Path, tmp_path: Path) -> None:
    block = tmp_path / "block.txt"
    block.write_text("/./\n")
    with pytest.raises(DataError, match="none is left"):
        candidates.collect([file], block)


def test_the_sample_is_large() -> None:
    assert len(candidates.collect(["sample"]).texts) >= 4000


def test_the_key_changes_with_the_file(file: Path) -> None:
    before = candidates.source_key([file])
    assert candidates.source_key([file]) == before
    os.utime(file, (1, 1))
    assert candidates.source_key([file]) != before


def test_convai2_is_found_where_it_was_put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REJOINDER_HOME", str(tmp_path))
    with pytest.raises(DataError, match="rejoinder data get convai2"):
        candidates.candidates_of("convai2")
    place = tmp_path / "convai2" / "train_self_original.txt"
    place.parent.mkdir()
    place.write_text("1 hi there\thello you\n2 and ?\tfine .\n")
    assert list(candidates.candidates_of("convai2")) == ["hello you", "fine ."]


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing.txt"):
        candidates.source_key([tmp_path / "nothing.txt"])


def test_two_forms_of_one_text_are_one_candidate_as_it_first_came(tmp_path: Path) -> None:
    file = tmp_path / "replies.txt"
    file.write_text("cafe\u0301\ncaf\u00e9\nお前は馬鹿だ\nmañana\n", encoding="utf-8")
    found = candidates.collect([file])
    assert found.texts == ["cafe\u0301", "お前は馬鹿だ", "mañana"]
    assert found.repeated == 1
    block = tmp_path / "block.txt"
    block.write_text("馬鹿\n/man\u0303an/\n", encoding="utf-8")
    assert candidates.collect([file], block).texts == ["cafe\u0301"]
