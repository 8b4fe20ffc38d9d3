"""Dialogues in one JSON file."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from rejoinder.data import json_stream, read
from rejoinder.data.json_stream import json_members
from rejoinder.errors import DataError
from rejoinder.schema import Dialogue, Message


def utterance(*history: str, candidates: list[str]) -> dict[str, list[str]]:
    return {"history": list(history), "candidates": list(candidates)}


def user(text: str) -> Message:
    return Message("user", text)


def reply(text: str, *candidates: str) -> Message:
    return Message("assistant", text, candidates)


TEA = {
    "personality": ["i like tea ."],
    "utterances": [
        utterance("hi", candidates=["no", "hello"]),
        utterance("hi", "hello", "tea ?", candidates=["never", "yes"]),
    ],
}
TEA_DIALOGUE = Dialogue(
    (
        user("hi"),
        reply("hello", "no", "hello"),
        user("tea ?"),
        reply("yes", "never", "yes"),
    ),
    ("i like tea .",),
)


def parsed(tmp_path: Path, data: object, **how: Any) -> list[Dialogue]:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(data, **how))
    return list(read(path, "json"))


@pytest.mark.parametrize("how", [{}, {"indent": 2}, {"separators": (",", ":")}])
def test_utterances_become_one_dialogue(tmp_path: Path, how: dict[str, Any]) -> None:
    data = {"train": [TEA, TEA], "valid": [TEA]}
    assert parsed(tmp_path, data, **how) == [TEA_DIALOGUE] * 3


def test_histories_that_do_not_go_on_are_dialogues_of_their_own(tmp_path: Path) -> None:
    data = [
        {
            "personality": "",
            "utterances": [
                utterance("a", candidates=["x", "b"]),
                utterance("c", candidates=["x", "d"]),
                utterance("c", "d", "e", candidates=["x", "f"]),
                utterance("c", "other", "e", candidates=["x", "g"]),
                utterance("c", "other", "e", candidates=["x", "h"]),
            ],
        }
    ]
    found = parsed(tmp_path, data)
    assert [[m.content for m in dialogue.messages] for dialogue in found] == [
        ["a", "b"],
        ["c", "d", "e", "f"],
        ["c", "other", "e", "g"],
        ["c", "other", "e", "h"],
    ]
    assert all(dialogue.persona == () for dialogue in found)


def test_a_single_candidate_is_only_the_reply(tmp_path: Path) -> None:
    (found,) = parsed(tmp_path, [{"utterances": [utterance("a", candidates=["b"])]}])
    assert found.messages == (user("a"), reply("b"))


def test_an_even_history_is_opened_by_the_assistant(tmp_path: Path) -> None:
    (found,) = parsed(tmp_path, [{"utterances": [utterance("a", "b", candidates=["x", "c"])]}])
    assert [message.role for message in found.messages] == ["assistant", "user", "assistant"]


def test_silence_is_no_message(tmp_path: Path) -> None:
    data = [
        {
            "personality": ["p"],
            "utterances": [
                utterance("__ SILENCE __", candidates=["x", "a"]),
                utterance("__ SILENCE __", "a", "b", candidates=["x", "c"]),
            ],
        }
    ]
    (found,) = parsed(tmp_path, data)
    assert found.messages == (reply("a", "x", "a"), user("b"), reply("c", "x", "c"))


def test_no_utterances_leave_the_persona(tmp_path: Path) -> None:
    assert parsed(tmp_path, [{"personality": ["p"], "utterances": []}]) == [Dialogue((), ("p",))]


@pytest.mark.parametrize(
    "dialogue",
    [
        ["hi", "hello", "bye"],
        {"turns": ["hi", "hello", "bye"]},
        {"utterances": ["hi", "hello", "bye"], "persona": []},
    ],
)
def test_plain_turns_alternate(tmp_path: Path, dialogue: object) -> None:
    expected = Dialogue((user("hi"), reply("hello"), user("bye")))
    assert parsed(tmp_path, [dialogue]) == [expected]


def test_plain_turns_with_a_persona(tmp_path: Path) -> None:
    found = parsed(tmp_path, [{"persona": ["p"], "turns": ["__SILENCE__", "hello"]}])
    assert found == [Dialogue((reply("hello"),), ("p",))]


def test_native_dialogues_in_a_list(tmp_path: Path) -> None:
    assert parsed(tmp_path, [{"messages": [{"role": "user", "content": "hi"}]}]) == [
        Dialogue((user("hi"),))
    ]


WRONG = {
    '"hi"': r"train\[1\]: expected a dialogue such as .*, got \"hi\"; dialogues stand in a list",
    "3": r"train\[1\]: expected a dialogue .*, got 3",
    '["a", 1]': r"train\[1\]: turns\[1\]: expected a text",
    '{"lines": []}': r"train\[1\]: expected .*, got the keys lines",
    "{}": r"train\[1\]: expected .*, got the keys \(none\)",
    '{"utterances": [{"history": []}]}': r"utterances\[0\]: expected \{\"history\", \"cand",
    '{"utterances": [{"history": [], "candidates": []}]}': r"candidates: expected texts, .* none",
    '{"utterances": [{"history": "a", "candidates": ["b"]}]}': r"\[0\]\.history: expected a list",
    '{"turns": ["a"], "persona": 3}': "persona: expected a list of texts, got 3",
    '{"messages": 3}': "messages: expected a list",
}


@pytest.mark.parametrize("member", WRONG)
def test_a_wrong_dialogue(tmp_path: Path, member: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(f'{{"train": [["hi"],\n{member},\n["bye"]]}}')
    with pytest.raises(DataError, match=rf"a\.json:2: .*{WRONG[member]}"):
        list(read(path))
    bad: list[DataError] = []
    assert len(list(read(path, bad=bad))) == 2
    assert "a.json:2: train[1]: " in str(bad[0])


BROKEN = {
    '{"train": [["hi"], ["a"': "expected|Expecting",
    '{"train": [["hi"] ["a"]]}': "expected ',', got '\\[\"a",
    '{"train": [["hi"]] "valid": []}': "expected ',', got '\"valid",
    '{"train" [["hi"]]}': "expected ':', got",
    '{"train": [["hi"]]': "expected ',', got 'the end of the file'",
    '[["hi"],]': "Expecting value",
    '[["hi"]] [': "expected the end of the file; one record a line is the format jsonl",
    "hello": r"expected a list \[\.\.\.\] or an object of lists",
    '[["hi"], ["a\nb"]]': "Invalid control character",
    '[["hi"], ["open': "Unterminated string",
    '[["hi"], ' + "[" * 200_000: "maximum recursion depth",
}


@pytest.mark.parametrize("text", BROKEN)
def test_broken_json(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text("\n" + text)
    with pytest.raises(DataError, match=rf"a\.json:2: not the JSON .*: .*({BROKEN[text]})"):
        list(read(path, "json", bad=[]))


@pytest.mark.parametrize("block", [1, 2, 3, 7, 64])
def test_blocks_of_any_size_give_the_same_members(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr("rejoinder.data.files.BLOCK", block)
    data: dict[str, Any] = {
        "version": 12,
        "train": [[1, 23, -4.5e6], "x\u00fc\n\\", {}, [], 678, None, True],
        "about": {"a": [1]},
        "valid": [{"k": ["\U0001f600", ""]}],
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(data, indent=1))
    found = list(json_members(path))
    assert [value for _, _, value in found] == data["train"] + data["valid"]
    assert [place for _, place, _ in found][:2] == ["train[0]", "train[1]"]
    lines = path.read_text().split("\n")
    assert [lines[line - 1].strip(" ,") for line, _, _ in found][4:] == ["678", "null", "true", "{"]


def test_a_large_file_on_one_line_is_read_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    one = json.dumps(TEA)
    path.write_text('{"train": [' + ", ".join([one] * 15_000) + "]}")
    assert path.stat().st_size > 2 << 20
    tracemalloc.start()
    count = sum(1 for _ in read(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 15_000
    assert peak < 1 << 20


def test_a_member_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "LONGEST", 1 << 18)
    (tmp_path / "a.json").write_text('["' + "x" * (1 << 20))
    with pytest.raises(DataError, match="a single value of more than"):
        list(read(tmp_path / "a.json", "json"))
