"""Native JSONL: what is written is what is read, and each wrong line says what is wrong."""

import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rejoinder.data import parse_dialogue, read, to_json, write_jsonl
from rejoinder.errors import DataError
from rejoinder.schema import ROLES, Dialogue, Message

TEXTS = st.lists(st.text(max_size=12), max_size=3).map(tuple)
MESSAGES = st.builds(Message, st.sampled_from(ROLES), st.text(max_size=12), TEXTS, TEXTS)
DIALOGUES = st.builds(Dialogue, st.lists(MESSAGES, max_size=4).map(tuple), TEXTS, TEXTS)


@given(st.lists(DIALOGUES, min_size=1, max_size=4), st.sampled_from(["", ".gz", ".xz"]))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_written_and_read_is_the_same(
    tmp_path: Path, dialogues: list[Dialogue], packing: str
) -> None:
    path = tmp_path / f"a.jsonl{packing}"
    assert write_jsonl(dialogues, path) == len(dialogues)
    assert list(read(path)) == dialogues


@given(DIALOGUES)
def test_json_and_back_is_the_same(dialogue: Dialogue) -> None:
    assert parse_dialogue(to_json(dialogue)) == dialogue
    assert parse_dialogue(json.loads(json.dumps(to_json(dialogue)))) == dialogue


def test_a_large_file_is_read_in_bounded_memory(tmp_path: Path) -> None:
    dialogue = Dialogue((Message("user", "hello " * 20), Message("assistant", "there " * 20)))
    path = tmp_path / "big.jsonl"
    line = json.dumps(to_json(dialogue)) + "\n"
    path.write_text(line * 12_000)
    assert path.stat().st_size > 3 << 20
    tracemalloc.start()
    count = sum(1 for _ in read(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 12_000
    assert peak < 1 << 20


def test_every_key(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"topic": "tea", "persona": ["i like tea."], "partner_persona": null, "messages": ['
        '{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi", "id": 7},'
        '{"role": "assistant", "content": "yo", "candidates": ["no", "yo"], "alternatives":'
        ' ["hey"]}'
        "]}\n\n"
    )
    assert list(read(path)) == [
        Dialogue(
            (
                Message("system", "be kind"),
                Message("user", "hi"),
                Message("assistant", "yo", ("no", "yo"), ("hey",)),
            ),
            ("i like tea.",),
        )
    ]


def test_writing_is_readable_and_leaves_out_what_is_empty(tmp_path: Path) -> None:
    write_jsonl([Dialogue((Message("user", "grüße"),))], tmp_path / "a.jsonl")
    expected = '{"messages": [{"role": "user", "content": "grüße"}]}\n'
    assert (tmp_path / "a.jsonl").read_text(encoding="utf-8") == expected


USER = '{"role": "user", "content": "hi"}'
WRONG = {
    '{"messages": [': r"not JSON \(Expecting value.*'\{\"messages\": \['; expected one object",
    "{'messages': []}": r"not JSON \(Expecting property name",
    '["hi"]': r"expected an object \{.*, got \[\"hi\"\]",
    '{"personas": ["a"]}': "messages: expected a list as in .*, got the keys personas",
    "{}": "got the keys nothing",
    '{"messages": "hi"}': r"messages: expected a list as in .*, got \"hi\"",
    '{"messages": ["hi"]}': r"messages\[0\]: expected \{\"role\", \"content\"\}, got \"hi\"",
    f'{{"messages": [{USER}, {{"content": "x"}}]}}': r"messages\[1\]: no role; .*, got content",
    '{"messages": [{"role": "user", "text": "x"}]}': r"messages\[0\]: no content; .* role, text",
    '{"messages": [{"role": "human", "content": "x"}]}': r"role: expected user or.*, got \"human\"",
    '{"messages": [{"role": ["user"], "content": "x"}]}': r"role: expected user or .*, got \[\"us",
    '{"messages": [{"role": "user", "content": 3}]}': r"\[0\]\.content: expected a text .*, got 3",
    '{"messages": [{"role": "user", "content": null}]}': r"\[0\]\.content: .* quotes, got null",
    '{"messages": [{"role": "user", "content": "\\ud83d"}]}': r"content: half a character \(.ud83d",
    '{"messages": [{"role": "assistant", "content": "x", "candidates": "y"}]}': (
        r"messages\[0\]\.candidates: expected a list of texts, got \"y\""
    ),
    '{"messages": [{"role": "assistant", "content": "x", "alternatives": [1]}]}': (
        r"messages\[0\]\.alternatives\[0\]: expected a text in quotes, got 1"
    ),
    '{"messages": [], "persona": "i like tea"}': "persona: expected a list of texts, got",
    '{"messages": [], "partner_persona": [["a"]]}': r"partner_persona\[0\]: expected a text",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.jsonl"
    good = f'{{"messages": [{USER}]}}'
    path.write_text(f"{good}\n{line}\n{good}\n")
    with pytest.raises(DataError, match=rf"a\.jsonl:2: .*{WRONG[line]}"):
        list(read(path, "jsonl"))
    bad: list[DataError] = []
    assert len(list(read(path, "jsonl", bad=bad))) == 2
    assert len(bad) == 1


def test_json_that_is_nested_too_deep(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"messages": ' + "[" * 100_000 + "\n")
    with pytest.raises(DataError, match=r"a\.jsonl:1: not JSON \(maximum recursion"):
        list(read(tmp_path / "a.jsonl"))


def test_a_wrong_dialogue_in_a_request_has_no_file() -> None:
    with pytest.raises(DataError, match="^messages: expected a list"):
        parse_dialogue({"messages": 3})


def test_what_came_is_shown_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"messages": [{"role": "猫\\u009b", "content": "はい"}]}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r'got "猫\\u009b"'):
        list(read(path))
