"""What is shown can be read at 80 columns and without colour."""

import io
import unicodedata

import pytest

from rejoinder.chat.commands import Note, Outcome, Why
from rejoinder.chat.screen import Screen
from rejoinder.chat.session import Answer, ChatOptions
from rejoinder.errors import RejoinderError
from rejoinder.schema import Reply, Scored


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def shown(outcome: Outcome, live: bool = True) -> str:
    out = io.StringIO()
    Screen(out, out, live).show(outcome)
    return out.getvalue()


def why(reply: Reply, fallback: bool = False, least: float = 0.0) -> Why:
    return Why(Answer(reply.text, reply, fallback, 0.25), least)


def test_why_is_a_table_of_the_best() -> None:
    scored = tuple(Scored(f"reply number {place}", 20 - place) for place in range(12))
    lines = shown(why(Reply("reply number 0", 0.75, scored))).splitlines()
    assert [line.split() for line in lines[:3]] == [
        ["#", "score", "candidate"],
        ["1", "20.000", "reply", "number", "0"],
        ["2", "19.000", "reply", "number", "1"],
    ]
    assert lines[10].split()[0] == "10"
    assert lines[11:] == [
        "Confidence: 0.75.",
        "Candidates considered: 12, shown: 10. Time: 0.25 s.",
    ]


def test_a_long_candidate_is_folded_not_cut() -> None:
    text = "word " * 60 + "x" * 200
    table = shown(why(Reply(text, None, (Scored(text, -1.5), Scored("短い " * 50, -2.0)))))
    assert max(map(len, table.splitlines())) <= 80
    assert table.count("word") == 60
    assert table.count("x") == 200
    assert table.count("短い") == 50
    assert "\x1b" not in table
    assert "not calibrated" in table


def test_why_tells_what_the_fallback_stood_for() -> None:
    text = shown(why(Reply("I love tea.", 0.25), fallback=True, least=0.5))
    assert "It would have said: I love tea." in text
    assert "Confidence: 0.25, below the minimum of 0.50." in text
    assert "0.75, not below the minimum of 0.50" in shown(why(Reply("yes", 0.75), least=0.5))


def test_a_person_sees_who_speaks_and_a_pipe_gets_the_text() -> None:
    answer = Answer("a\t[b] " + "long " * 40, Reply("x"), True, 0.0)
    assert shown(answer, live=False) == answer.said + "\n"
    live = shown(answer)
    assert live.startswith("bot: a")
    assert "[b]" in live
    assert "(not sure enough; /why tells more)" in live
    assert max(map(len, live.splitlines())) <= 80


@pytest.mark.parametrize("live", [True, False])
def test_a_reply_cannot_steer_the_terminal(live: bool) -> None:
    text = shown(Answer("\x1b[2Jhi\x07", Reply("x"), False, 0.0), live)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "hi" in text


def test_an_old_encoding_gets_question_marks() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    screen = Screen(out, out, live=True)
    screen.opening(ChatOptions(title="modèle", persona=("日本",)))
    screen.show(why(Reply("é", 0.5, (Scored("é", 1.0),))))
    text = raw.getvalue().decode("ascii")
    assert "mod?le" in text
    assert "I am: ??" in text
    assert "1.000  ?" in text


def test_a_long_path_stays_whole_in_a_pipe() -> None:
    assert shown(Note("Saved to /" + "folder/" * 30), live=False).count("\n") == 1


def test_a_full_disk_is_an_error_for_the_user() -> None:
    with open("/dev/full", "w") as full, pytest.raises(RejoinderError, match="cannot be written"):
        Screen(full, full, live=False).note("hello")


def columns(line: str) -> int:
    """How many columns a terminal takes for a line: marks none, wide characters two."""
    zero = ("Mn", "Me", "Cf")
    return sum(
        0
        if unicodedata.category(sign) in zero
        else 1 + (unicodedata.east_asian_width(sign) in "WF")
        for sign in line
    )


@pytest.mark.parametrize(
    "text",
    [
        "日本語の長い文章です。" * 20,
        "ภาษาไทยไม่มีช่องว่าง" * 15,
        "هذا نص طويل جدًا " * 20,
        "가나다" * 60,
    ],
)
def test_wide_and_joined_letters_stay_whole_within_80_columns(text: str) -> None:
    answer = why(Reply(text, None, (Scored(text, 1.5),)))
    for out in (shown(answer), shown(answer.answer), shown(Note(text))):
        lines = out.splitlines()
        assert max(map(columns, lines)) <= 80
        assert not any(unicodedata.combining(line[:1] or " ") for line in lines)
        letters = "".join(text.split())
        assert letters in "".join(out.split())


def test_piped_replies_are_not_touched() -> None:
    text = "\u200fمرحبًا\u200e 👩\u200d🚀 cafe\u0301 が"
    answer = Answer(text, Reply(text), False, 0.0)
    assert shown(answer, live=False) == text + "\n"
