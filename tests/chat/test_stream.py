"""Replies that appear while they are written."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO

from rejoinder.chat import ChatOptions, Session
from rejoinder.chat.screen import Screen
from rejoinder.schema import Dialogue, Reply


class Speaker:
    """Says three pieces."""

    def respond(self, dialogue: Dialogue) -> Reply:
        return Reply("one two three", 0.5, (), "a guess")

    def stream(self, dialogue: Dialogue, heard: Callable[[str], None]) -> Reply:
        for piece in ("one", " two", " three"):
            heard(piece)
        return self.respond(dialogue)


def test_pieces_are_heard_in_order_and_the_answer_is_kept() -> None:
    heard: list[str] = []
    session = Session(Speaker(), ChatOptions(), heard.append)
    answer = session.say("hi")
    assert heard == ["one", " two", " three"]
    assert answer is not None
    assert answer.said == session.dialogue.messages[-1].content == "one two three"


def test_nothing_is_heard_before_it_is_sure_enough() -> None:
    """Below the minimum something else is said."""
    heard: list[str] = []
    session = Session(Speaker(), ChatOptions(min_confidence=0.9), heard.append)
    answer = session.say("hi")
    assert heard == []
    assert answer is not None
    assert answer.fallback


def test_the_screen_shows_pieces_once() -> None:
    out = StringIO()
    screen = Screen(out, out, live=True)
    session = Session(Speaker(), ChatOptions(), screen.heard)
    for _ in range(2):
        answer = session.say("hi")
        assert answer is not None
        screen.show(answer)
    assert out.getvalue() == "bot: one two three\nbot: one two three\n"


def test_after_an_interruption_the_next_reply_is_whole() -> None:
    out = StringIO()
    screen = Screen(out, out, live=True)
    screen.heard("on")
    screen.note("\nDropped.")
    screen.heard("two")
    assert out.getvalue() == "bot: on\nDropped.\nbot: two"


def test_why_says_what_the_confidence_is_of() -> None:
    from rejoinder.chat.commands import handle

    out = StringIO()
    screen = Screen(out, out, live=False)
    session = Session(Speaker(), ChatOptions())
    session.say("hi")
    outcome = handle(session, "/why")
    assert outcome is not None
    screen.show(outcome)
    assert "Confidence: 0.50 (a guess)." in out.getvalue()
