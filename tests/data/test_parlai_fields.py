"""ParlAI text with named fields."""

from pathlib import Path

import pytest

from rejoinder.data import guess, read
from rejoinder.errors import DataError
from rejoinder.schema import Dialogue, Message


def parsed(tmp_path: Path, *lines: str, bad: list[DataError] | None = None) -> list[Dialogue]:
    path = tmp_path / "a.txt"
    path.write_text("\n".join(lines) + "\n")
    assert guess(path) == "parlai-fields"
    return list(read(path, bad=bad))


def test_two_dialogues_with_all_fields(tmp_path: Path) -> None:
    assert parsed(
        tmp_path,
        r"id:x	text:your persona: i like tea.\npartner's persona: b.\nhi: you	labels:hello|hey"
        "\tlabel_candidates:no|hello\treward:1",
        r"text:a\tb__PIPE__c	eval_labels:yes\nno",
        "",
        "text:__SILENCE__\tlabels:good day\tepisode_done:True",
        "text:again\tlabels:yes",
    ) == [
        Dialogue(
            (
                Message("user", "hi: you"),
                Message("assistant", "hello", ("no", "hello"), ("hey",)),
                Message("user", "a\tb|c"),
                Message("assistant", "yes\nno"),
                Message("assistant", "good day"),
            ),
            ("i like tea.",),
            ("b.",),
        ),
        Dialogue((Message("user", "again"), Message("assistant", "yes"))),
    ]


@pytest.mark.parametrize(("value", "dialogues"), [("True", 2), ("False", 2), ("1", 2), ("", 1)])
def test_any_value_ends_a_dialogue_as_in_parlai(tmp_path: Path, value: str, dialogues: int) -> None:
    found = parsed(tmp_path, f"text:a\tlabels:b\tepisode_done:{value}", "text:c\tlabels:d")
    assert len(found) == dialogues


WRONG = {
    "text:a\tb\tlabels:c": "expected fields like .*, got 'b' without a colon; write a tab inside",
    "labels:c": "text is missing or empty; .* got the fields labels",
    "text:a": "labels is missing or empty; .* got the fields text",
    "text:a\tlabels:": "labels is missing or empty",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_line(tmp_path: Path, line: str) -> None:
    good = "text:a\tlabels:b"
    with pytest.raises(DataError, match=rf"a\.txt:3: .*{WRONG[line]}"):
        parsed(tmp_path, good, good, line)
    bad: list[DataError] = []
    (found,) = parsed(tmp_path, good, good, line, good, bad=bad)
    assert len(found.messages) == 6
    assert len(bad) == 1


def test_a_bad_last_line_still_ends_its_dialogue(tmp_path: Path) -> None:
    bad: list[DataError] = []
    good = "text:a\tlabels:b"
    found = parsed(tmp_path, good, "text:a\tepisode_done:True", good, good, bad=bad)
    assert [len(dialogue.messages) for dialogue in found] == [2, 4]
