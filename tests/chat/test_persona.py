"""Personas: both ways to type one, and messages that only look like it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rejoinder.chat.persona import sentences, shown, take_persona

PLAIN = st.text(st.characters(codec="ascii", exclude_characters="\\\n\r:"), min_size=1).map(
    str.strip
)
FILLED = PLAIN.filter(bool)


@given(st.lists(FILLED, min_size=1, max_size=4), PLAIN, st.sampled_from(["\n", "\\n", "\r\n"]))
@settings(deadline=None)
def test_persona_lines_and_message_come_apart(
    about: list[str], message: str, line_break: str
) -> None:
    lines = [f"Your PERSONA: {sentence}" for sentence in about]
    assert take_persona(line_break.join([*lines, message])) == (tuple(about), message)


@pytest.mark.parametrize("text", ["hi", r"look in C:\new\nothing", "is your persona: a guide?"])
def test_a_message_without_persona_lines_stays_as_it_is(text: str) -> None:
    assert take_persona(text) == (None, text)


def test_the_rest_may_stand_anywhere_and_have_several_lines() -> None:
    assert take_persona("hi\nyour persona: a.\nhow are you?\n") == (("a.",), "hi\nhow are you?")


def test_an_empty_persona_line_clears() -> None:
    assert take_persona("your persona:\\nhi") == ((), "hi")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("i like tea. i am old! am i? yes", ("i like tea.", "i am old!", "am i?", "yes")),
        ("i like tea . i am old .", ("i like tea .", "i am old .")),
        ("i met mr. smith. | i am old", ("i met mr. smith.", "i am old")),
        ("i am old\ni like tea\\nme too", ("i am old", "i like tea", "me too")),
        ("i weigh 70.5 kilos", ("i weigh 70.5 kilos",)),
        (" |  | ", ()),
        ("¿Y tú? ¡Yo sí! Fin.", ("¿Y tú?", "¡Yo sí!", "Fin.")),
        (
            "猫が好きです。「はい。」と言う！犬は？",
            ("猫が好きです。", "「はい。」と言う！", "犬は？"),
        ),
        ("أحب الشاي. هل تحبه؟ نعم", ("أحب الشاي.", "هل تحبه؟", "نعم")),
        ("मुझे चाय पसंद है। मैं गाइड हूँ।", ("मुझे चाय पसंद है।", "मैं गाइड हूँ।")),
    ],
)
def test_sentences(text: str, expected: tuple[str, ...]) -> None:
    assert sentences(text) == expected


@given(st.lists(FILLED.filter(lambda text: "|" not in text), min_size=2, max_size=4))
@settings(deadline=None)
def test_joined_sentences_come_apart(parts: list[str]) -> None:
    assert sentences(" | ".join(parts)) == tuple(parts)


def test_shown() -> None:
    assert shown(("i am old.", "i like tea.")) == "I am: i am old.\nI am: i like tea."
    assert "/persona" in shown(())
