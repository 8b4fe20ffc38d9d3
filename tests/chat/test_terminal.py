"""The whole chat over streams: what goes in, what comes out, and how it ends."""

import io
import os
from pathlib import Path
from typing import Any, TextIO

import pytest

from rejoinder.chat import ChatOptions, run_chat
from rejoinder.data import read
from rejoinder.errors import RejoinderError
from rejoinder.schema import Dialogue, Message, Reply

from .overlap import Overlap

TEA = "I love green tea.\n"
CATS = "My two cats sleep all day.\n"


def chat(text: str | bytes, **options: Any) -> tuple[str, str]:
    """Replies and notes of a chat over a pipe with these bytes or text."""
    stdin: TextIO
    if isinstance(text, str):
        stdin = io.StringIO(text)
    else:
        stdin = io.TextIOWrapper(io.BytesIO(text), encoding="utf-8")
    out, notes = io.StringIO(), io.StringIO()
    run_chat(Overlap(), ChatOptions(**options), stdin=stdin, stdout=out, stderr=notes)
    return out.getvalue(), notes.getvalue()


def test_a_reply_a_line_and_nothing_else() -> None:
    out, notes = chat("green tea\n\ncats\n", title="overlap, 4 candidates", persona=("I am old.",))
    assert out == TEA + CATS
    assert notes.splitlines() == [
        "overlap, 4 candidates",
        "I am: I am old.",
        "Type a message; /help lists what else there is.",
    ]


def test_no_input() -> None:
    assert chat("")[0] == ""
    assert chat("", persona=())[1].startswith("No persona.")


def test_the_last_line_needs_no_end() -> None:
    assert chat("green tea")[0] == TEA
    assert chat(b"\xef\xbb\xbfgreen tea\r\n")[0] == TEA


def test_bytes_that_are_no_text_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    out, _ = chat(b"green \xff\xfe tea \xc3\n\0\n/save %s\n" % str(path).encode())
    assert out.startswith(TEA)
    (talk,) = read(path)
    assert [message.content for message in talk.messages[::2]] == [
        "green \ufffd\ufffd tea \ufffd",
        "\ufffd",
    ]


def test_a_very_long_line() -> None:
    assert chat("tea " * 100_000 + "\n")[0] == TEA


def test_marks_of_the_old_system() -> None:
    out, notes = chat("green tea\n[DONE]\n/undo\ncats\n[EXIT]\ngreen tea\n")
    assert out == TEA + CATS
    assert "A new conversation." in notes
    assert "Nothing to take back." in notes


def test_a_persona_over_several_lines_of_a_pipe(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    chat(f"your persona: a.\nyour persona: b.\ngreen tea\n/save {path}\n")
    assert list(read(path)) == [
        Dialogue(
            (Message("user", "green tea"), Message("assistant", "I love green tea.")), ("a.", "b.")
        )
    ]
    assert "I am: a.\nI am: b." in chat("your persona: a.\nyour persona: b.")[1]


def test_a_persona_and_a_message_on_one_line_of_a_pipe_are_answered_at_once() -> None:
    lines = io.StringIO("your persona: a.\\ngreen tea\nyour persona: b.\\ncats\n")
    out = io.StringIO()
    read_when_answered = []

    class Watched(Overlap):
        def respond(self, dialogue: Dialogue) -> Reply:
            read_when_answered.append((dialogue.persona, lines.tell()))
            return super().respond(dialogue)

    run_chat(Watched(), ChatOptions(), stdin=lines, stdout=out, stderr=io.StringIO())
    first, second = lines.getvalue().splitlines(keepends=True)
    assert read_when_answered == [(("a.",), len(first)), (("b.",), len(first + second))]
    assert out.getvalue() == TEA + CATS


def test_why_goes_where_the_replies_go() -> None:
    out, notes = chat("what about green things\n/why\n", min_confidence=0.5, fallback="Pardon?")
    assert out.startswith("Pardon?\nIt would have said: I love green tea.\n")
    assert "1.000  I love green tea." in out
    assert "Confidence: 0.25, below the minimum of 0.50." in out
    assert "Pardon" not in notes


def test_an_error_ends_a_piped_chat() -> None:
    with pytest.raises(RejoinderError, match="stale"):
        chat("hi\nfail\nhi\n")


def test_a_closed_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    out = io.StringIO()
    run_chat(Overlap(), ChatOptions(), stdout=out, stderr=io.StringIO())
    assert out.getvalue() == ""


def test_a_reader_that_leaves_ends_the_chat() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    lines = io.StringIO("hi\n" * 100)
    with open(writer, "w") as out:
        run_chat(Overlap(), ChatOptions(), stdin=lines, stdout=out, stderr=io.StringIO())
        out.write("what is left is not missed")
    assert lines.tell() == len("hi\n")


def test_ctrl_c_ends_a_piped_chat() -> None:
    class Interrupted(Overlap):
        def respond(self, dialogue: Dialogue) -> Reply:
            raise KeyboardInterrupt

    lines, out = io.StringIO("hi\nhi\n"), io.StringIO()
    run_chat(Interrupted(), ChatOptions(), stdin=lines, stdout=out, stderr=io.StringIO())
    assert out.getvalue() == ""
    assert lines.tell() == len("hi\n")
