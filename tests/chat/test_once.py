"""One message, one reply, as text or JSON."""

import json

import pytest

from rejoinder.chat import ChatOptions, once
from rejoinder.errors import ConfigError
from rejoinder.schema import Dialogue, Reply, Scored

from .overlap import REPLIES, Overlap


def test_text() -> None:
    assert once(Overlap(), ChatOptions(), "do you have cats?") == "My two cats sleep all day."


def test_json() -> None:
    options = ChatOptions(persona=("I am shy.",), min_confidence=0.9, fallback="Hm.")
    text = once(Overlap(), options, "your persona: I like tea.\\ngreen towns", as_json=True)
    found = json.loads(text)
    assert "\n" not in text
    assert 0 <= found.pop("seconds") < 1
    candidates = found.pop("candidates")
    assert candidates[0] == {"text": "I love green tea.", "score": 1.2}
    assert {candidate["text"] for candidate in candidates} == set(REPLIES)
    assert found == {
        "reply": "Hm.",
        "confidence": 0.5,
        "persona": ["I like tea."],
        "fallback": True,
    }


def test_what_json_cannot_say_is_null() -> None:
    class Endless:
        def respond(self, dialogue: Dialogue) -> Reply:
            return Reply("é", None, (Scored("é", float("-inf")),))

    found = json.loads(once(Endless(), ChatOptions(), "hi", as_json=True))
    assert found["confidence"] is None
    assert found["candidates"] == [{"text": "é", "score": None}]


@pytest.mark.parametrize("text", ["", " \n", "your persona: I like tea."])
def test_no_message(text: str) -> None:
    with pytest.raises(ConfigError, match="no message in .*expected one"):
        once(Overlap(), ChatOptions(), text)


def test_commands_are_only_for_the_chat() -> None:
    assert once(Overlap(), ChatOptions(), "/undo the tea") == "I love green tea."
