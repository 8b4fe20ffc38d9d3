"""What a typed line does to the session, and what comes of it."""

from pathlib import Path

import pytest

from rejoinder.chat import Answer, ChatOptions, Session
from rejoinder.chat.commands import COMMANDS, Note, Over, Why, handle
from rejoinder.data import read
from rejoinder.errors import DataError
from rejoinder.schema import Dialogue

from .overlap import Overlap


@pytest.fixture
def talk() -> Session:
    return Session(Overlap(), ChatOptions(persona=("I like tea.",)))


def note(talk: Session, line: str) -> str:
    outcome = handle(talk, line)
    assert isinstance(outcome, Note)
    return outcome.text


def test_a_message_is_answered(talk: Session) -> None:
    outcome = handle(talk, "green tea\n")
    assert isinstance(outcome, Answer)
    assert outcome.said == "I love green tea."
    assert talk.dialogue.messages[0].content == "green tea"


@pytest.mark.parametrize("line", ["", "  ", "\n"])
def test_a_blank_line_is_nothing(talk: Session, line: str) -> None:
    assert handle(talk, line) is None
    assert talk.dialogue.messages == ()


def test_why(talk: Session) -> None:
    assert "No reply yet" in note(talk, "/why")
    first = handle(talk, "green tea")
    second = handle(talk, "cats")
    assert isinstance(first, Answer)
    assert isinstance(second, Answer)
    assert handle(talk, "/why") == Why(second, 0.0)
    handle(talk, "/undo")
    assert handle(talk, "/WHY ") == Why(first, 0.0)


def test_persona(talk: Session) -> None:
    handle(talk, "hi")
    before = talk.dialogue.messages
    assert note(talk, "/persona") == "I am: I like tea."
    assert note(talk, "/persona I am old. I like cats.") == "I am: I am old.\nI am: I like cats."
    assert note(talk, "/persona a\nb") == "I am: a\nI am: b"
    assert talk.dialogue == Dialogue(before, ("a", "b"))
    assert "No persona" in note(talk, "/persona -")
    assert talk.dialogue == Dialogue(before)


def test_a_persona_alone_asks_for_a_message(talk: Session) -> None:
    text = note(talk, "your persona: I am old.\\nyour persona: I like cats.")
    assert text.startswith("The persona is set.\nI am: I am old.\nI am: I like cats.")
    assert text.endswith("say something.")
    assert talk.dialogue == Dialogue(persona=("I am old.", "I like cats."))


def test_undo(talk: Session) -> None:
    assert note(talk, "/undo") == "Nothing to take back."
    handle(talk, "green tea")
    assert note(talk, "/undo") == "Taken back: green tea"
    assert talk.dialogue == Dialogue(persona=("I like tea.",))


@pytest.mark.parametrize("line", ["/reset", "[DONE]", " [DONE]\n"])
def test_reset(talk: Session, line: str) -> None:
    handle(talk, "hi")
    assert note(talk, line) == "A new conversation.\nI am: I like tea."
    assert talk.dialogue == Dialogue(persona=("I like tea.",))


@pytest.mark.parametrize("line", ["/exit", "[EXIT]"])
def test_exit(talk: Session, line: str) -> None:
    assert handle(talk, line) == Over()


def test_save(talk: Session, tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    assert "nothing was saved" in note(talk, f"/save {path}")
    handle(talk, "green tea")
    assert note(talk, f"/save {path}") == f"Saved to {path}"
    assert list(read(path)) == [talk.dialogue]
    with pytest.raises(DataError, match="is there already"):
        handle(talk, f"/save {path}")


def test_help_names_all_in_80_columns(talk: Session) -> None:
    text = note(talk, "/help")
    assert all(f"/{name}" in text for name in COMMANDS)
    assert max(map(len, text.split("\n"))) <= 80


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("/wyh", "did you mean /why?"),
        ("/pers", "did you mean /persona?"),
        ("/h", "did you mean /help?"),
        ("/quit", "did you mean /exit?"),
        ("/xyzzy", "No command /xyzzy; /help lists all"),
        ("/", "/help lists all"),
    ],
)
def test_an_unknown_command_names_the_nearest(talk: Session, line: str, hint: str) -> None:
    assert hint in note(talk, line)
    assert talk.dialogue.messages == ()


def test_a_command_that_takes_nothing_is_not_fed(talk: Session) -> None:
    assert "takes nothing after it, got 'not?'" in note(talk, "/why not?")


def test_a_space_makes_a_message_of_a_slash(talk: Session) -> None:
    handle(talk, " /why not?")
    assert talk.dialogue.messages[0].content == "/why not?"
