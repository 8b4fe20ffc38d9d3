"""Laws of a conversation: undo is the way back, a failure leaves no trace, reset begins anew."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rejoinder.chat import Answer, ChatOptions, Session
from rejoinder.errors import ConfigError, RejoinderError
from rejoinder.schema import Dialogue, Message

from .overlap import Overlap

ABOUT = ("I like tea.",)
MESSAGES = st.sampled_from(["hi", "green tea", "your persona: a.\\nhello", "cats\nand dogs"])


def session(**options: Any) -> Session:
    return Session(Overlap(), ChatOptions(persona=ABOUT, **options))


def answered(talk: Session, text: str) -> Answer:
    answer = talk.say(text)
    assert answer is not None
    return answer


@given(st.lists(MESSAGES, max_size=4), MESSAGES)
@settings(max_examples=30, deadline=None)
def test_undo_after_say_is_before(earlier: list[str], message: str) -> None:
    talk = session()
    for text in earlier:
        talk.say(text)
    before, last = talk.dialogue, talk.last
    assert talk.say(message) is not None
    assert talk.dialogue != before
    talk.undo()
    assert (talk.dialogue, talk.last) == (before, last)


@given(st.lists(MESSAGES, max_size=4))
@settings(max_examples=30, deadline=None)
def test_undoing_all_is_the_beginning(texts: list[str]) -> None:
    talk = session()
    for text in texts:
        talk.say(text)
    for _ in texts:
        assert talk.undo() is not None
    assert talk.undo() is None
    assert talk.dialogue == Dialogue(persona=ABOUT)


def test_the_dialogue_holds_what_was_said() -> None:
    talk = session()
    answer = answered(talk, "  do you like green tea? ")
    assert answer == talk.last
    assert answer.said == answer.reply.text == "I love green tea."
    assert talk.dialogue == Dialogue(
        (Message("user", "do you like green tea?"), Message("assistant", "I love green tea.")),
        ABOUT,
    )


def test_a_message_brings_a_persona_and_resets_nothing_else() -> None:
    talk = session()
    talk.say("hi")
    talk.say("your persona: I have cats.\nhello")
    assert talk.dialogue.persona == ("I have cats.",)
    assert [message.content for message in talk.dialogue.messages[::2]] == ["hi", "hello"]


def test_a_persona_alone_is_no_message() -> None:
    talk = session()
    talk.say("hi")
    before = talk.dialogue.messages
    assert talk.say("YOUR persona: I have cats.") is None
    assert talk.dialogue == Dialogue(before, ("I have cats.",))


def test_undo_keeps_a_persona_that_was_set_after_the_message() -> None:
    talk = session()
    talk.say("your persona: a.\\nhi")
    talk.set_persona(("b.",))
    talk.undo()
    assert talk.dialogue == Dialogue(persona=("b.",))


def test_reset_keeps_a_persona_that_was_set_and_drops_one_that_a_message_brought() -> None:
    talk = session()
    talk.say("your persona: a.\\nhi")
    talk.reset()
    assert talk.dialogue == Dialogue(persona=ABOUT)
    assert talk.last is None
    assert talk.undo() is None
    talk.set_persona(("b.",))
    talk.say("hi")
    talk.reset()
    assert talk.dialogue == Dialogue(persona=("b.",))


def test_a_failing_agent_leaves_no_trace() -> None:
    talk = session()
    talk.say("hi")
    before, last = talk.dialogue, talk.last
    with pytest.raises(RejoinderError, match="stale"):
        talk.say("your persona: a.\\nfail")
    assert (talk.dialogue, talk.last) == (before, last)


def test_below_the_least_confidence_the_fallback_is_said() -> None:
    talk = session(min_confidence=0.5, fallback="Pardon?")
    answer = answered(talk, "what is the weather like in green towns")
    assert (answer.said, answer.fallback) == ("Pardon?", True)
    assert answer.reply.text == "I love green tea."
    assert talk.dialogue.messages[-1] == Message("assistant", "Pardon?")
    assert not answered(talk, "green tea").fallback
    exactly = answered(Session(Overlap(), ChatOptions(min_confidence=0.5)), "green towns")
    assert (exactly.reply.confidence, exactly.fallback) == (0.5, False)


def test_without_a_confidence_no_fallback() -> None:
    talk = Session(Overlap(calibrated=False), ChatOptions(min_confidence=1.0))
    assert not answered(talk, "nonsense").fallback


def test_half_characters_and_controls_never_reach_the_agent() -> None:
    talk = Session(Overlap(), ChatOptions(persona=("a\udcff",)))
    talk.say("h\x1b[2Ji\udcff \0there")
    assert talk.dialogue.persona == ("a\ufffd",)
    assert talk.dialogue.messages[0].content == "h\ufffd[2Ji\ufffd \ufffdthere"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"min_confidence": 1.5}, "min_confidence is 1.5; expected a probability"),
        ({"min_confidence": float("nan")}, "min_confidence is nan"),
        ({"fallback": " "}, "fallback is empty"),
    ],
)
def test_wrong_options(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ChatOptions(**wrong)
