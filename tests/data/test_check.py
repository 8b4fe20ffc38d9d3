"""A look over a file."""

import json
from pathlib import Path

import pytest

from rejoinder.data import write_jsonl
from rejoinder.data.check import check, estimated_tokens
from rejoinder.errors import DataError
from rejoinder.schema import Dialogue, Message


def user(text: str) -> Message:
    return Message("user", text)


def reply(text: str, *candidates: str) -> Message:
    return Message("assistant", text, candidates)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    dialogues = [
        Dialogue((user("hi there"), reply("hello", "no", "hello"), user("a b c"), reply("d e"))),
        Dialogue((reply("hello"), user("x")), ("i like tea.",), ("i am old.",)),
        Dialogue((reply("hello"), user("x")), ("i like tea.",), ("i am old.",)),
        Dialogue((user("nobody there"),)),
        Dialogue((user("hi"), reply(" "), user("hi"), reply("yes", "no", "maybe"))),
    ]
    write_jsonl(dialogues, tmp_path / "a.jsonl")
    return tmp_path / "a.jsonl"


def test_counts(path: Path) -> None:
    found = check(path)
    assert (found.format, found.dialogues, found.messages, found.examples) == ("jsonl", 5, 13, 6)
    assert (found.with_persona, found.with_partner_persona, found.assistant_openers) == (2, 2, 2)
    assert (found.with_candidates, found.reply_among_candidates) == (2, 1)
    assert (found.duplicate_dialogues, found.duplicate_replies) == (1, 2)
    assert found.bad == ()
    assert len(found.samples) == 3


def test_lengths_in_words(path: Path) -> None:
    # contexts: 2, 2+1+3, 6, 6, 1, 2 words; replies: 1, 2, 1, 1, 0, 1
    assert check(path).context_words == {"50%": 2, "90%": 6, "99%": 6, "all": 6}
    assert check(path).reply_words == {"50%": 1, "90%": 2, "99%": 2, "all": 2}


@pytest.mark.parametrize(("limit", "cut"), [(0, 6), (1, 5), (2, 3), (5, 1), (6, 0)])
def test_contexts_that_would_be_cut(path: Path, limit: int, cut: int) -> None:
    found = check(path, measure=lambda text: len(text.split()), max_context=limit)
    assert (found.too_long, found.max_context) == (cut, limit)


@pytest.mark.parametrize(("limit", "cut"), [(0, 5), (1, 1), (2, 0)])
def test_replies_that_would_be_cut(path: Path, limit: int, cut: int) -> None:
    found = check(path, measure=lambda text: len(text.split()), max_reply=limit)
    assert (found.replies_too_long, found.max_reply) == (cut, limit)
    assert f"{cut} replies over {limit}" in found.as_text()


def test_tokens_are_estimated_from_words() -> None:
    assert [estimated_tokens("a " * words) for words in (0, 1, 10)] == [0, 2, 13]


def test_oddities_are_counted_with_their_first_place(path: Path) -> None:
    assert check(path).warnings == (
        f"1 dialogues without an assistant message, first {path}:4 (dialogue 4)",
        f"1 blank replies, first {path}:5 (dialogue 5)",
        f"1 replies that are not among their candidates, first {path}:5 (dialogue 5)",
    )


def test_open_names_are_noted(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1 hi , i am [user 1's name]\thello {name}\n2 [sic] {\tbye\n")
    warnings = check(tmp_path / "a").warnings
    assert warnings == (
        f"2 texts with a name left open, as in [name], first {tmp_path}/a:1 (dialogue 1)",
    )


def test_personal_things_are_named_once_and_never_shown(tmp_path: Path) -> None:
    phone, mail = "202-555-0123", "jo@example.org"
    path = tmp_path / "2025550199.txt"
    path.write_text(
        f"1 your persona: mail me at {mail}.\n"
        f"2 hi\tcall {phone}\t\tno|call {phone}|4111111111111111\n"
        f"1 {mail} ?\tyes\nbad line {phone}\n"
    )
    found = check(path)
    for text in (found.as_text(), found.as_json()):
        assert phone not in text
        assert mail not in text
        assert "4111111111111111" not in text
        assert str(path) in text
    assert [warning.partition(";")[0] for warning in found.warnings] == [
        f"{path}:1 (dialogue 1): looks like an e-mail address: jo...rg",
        f"{path}:1 (dialogue 1): looks like a phone number: 20...23",
        f"{path}:1 (dialogue 1): looks like a card number: 41...11",
    ]
    assert "'bad line 20...23'" in found.bad[0]


def test_every_bad_line_is_kept_and_the_first_are_listed(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1 hi\tyo\n" + "1 a\tb\tc\n" * 60)
    found = check(tmp_path / "a", "parlai")
    assert found.dialogues == 1
    assert len(found.bad) == 60
    text = found.as_text()
    assert "bad lines: 60" in text
    assert f"{tmp_path}/a:51: column 3" in text
    assert f"{tmp_path}/a:52: column 3" not in text
    assert "and 10 more, all of them in the JSON form" in text
    assert len(json.loads(found.as_json())["bad"]) == 60


def test_the_samples_show_the_end_of_the_first_dialogues(tmp_path: Path) -> None:
    lines = ["1 your persona: i like tea.", "2 partner's persona: b."]
    lines += [f"{n} question {n}\tanswer {n}\t\tx|y" for n in range(3, 7)]
    (tmp_path / "a").write_text(
        "\n".join(lines).replace("6\t\tx", "6 \x1b[31m" + "w" * 300 + "\t\tx")
    )
    (sample,) = check(tmp_path / "a").samples
    *context, last, candidates = sample.split("\n")
    assert context == [
        "persona: i like tea.",
        "persona of the user: b.",
        "(3 messages)",
        "assistant: answer 4",
        "user: question 5",
        "assistant: answer 5",
        "user: question 6",
    ]
    assert last.startswith("reply: answer 6 \ufffd[31mwww")  # no colours on the terminal
    assert last.endswith("w...")
    assert candidates == "(2 candidates)"


def test_the_text_says_it_all(path: Path) -> None:
    text = check(path).as_text()
    assert text.startswith(f"{path} (jsonl)\n  5 dialogues, 13 messages, 6 examples")
    assert "words of a reply: 50% have at most 1, 90% have at most 2" in text
    assert "  | user: hi there\n" in text
    assert "warnings: 3\n  - 1 dialogues without" in text


def test_a_file_with_bad_lines_only(tmp_path: Path) -> None:
    (tmp_path / "a").write_text('{"personas": []}\n')
    found = check(tmp_path / "a")
    assert (found.dialogues, len(found.bad), found.context_words) == (0, 1, {})
    assert "words of a context: none" in found.as_text()


def test_json_on_one_line_goes_by_the_number_of_the_dialogue(tmp_path: Path) -> None:
    (tmp_path / "a").write_text('[["hi", "yo"], ["hi"]]')
    assert check(tmp_path / "a").warnings[0].endswith("a:1 (dialogue 2)")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        check(tmp_path / "no")


def test_words_without_spaces_are_counted_by_character(tmp_path: Path) -> None:
    said = Dialogue((user("猫が好き？"), reply("はい、iPhoneも")))
    write_jsonl([said], tmp_path / "a.jsonl")
    found = check(tmp_path / "a.jsonl")
    assert found.context_words["all"] == 5
    assert found.reply_words["all"] == 4  # は い 、iPhone も
    assert estimated_tokens("猫が好き") == 6


def test_equal_texts_in_two_forms_are_repeated(tmp_path: Path) -> None:
    forms = ("caf\u00e9", "cafe\u0301")
    write_jsonl([Dialogue((user("hi"), reply(form))) for form in forms], tmp_path / "a.jsonl")
    found = check(tmp_path / "a.jsonl")
    assert (found.duplicate_replies, found.duplicate_dialogues) == (1, 1)


def test_samples_show_joined_letters_as_they_are(tmp_path: Path) -> None:
    text = "می\u200cخواهم 👩\u200d🚀 \x9b\u202e"
    write_jsonl([Dialogue((user("hi"), reply(text)))], tmp_path / "a.jsonl")
    (sample,) = check(tmp_path / "a.jsonl").samples
    assert sample.endswith("reply: می\u200cخواهم 👩\u200d🚀 \ufffd\ufffd")


@pytest.mark.parametrize("name", ["{nombre}", "{名前}", "{नाम}", "{اسم_العميل}"])
def test_open_names_in_other_scripts(tmp_path: Path, name: str) -> None:
    write_jsonl([Dialogue((user("hi"), reply(f"a {name} b")))], tmp_path / "a.jsonl")
    assert "a name left open" in check(tmp_path / "a.jsonl").warnings[0]
