"""A context as a string becomes the ids that the ranker makes of the dialogue."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rejoinder.errors import ConfigError
from rejoinder.exports.joined import Joined, joined
from rejoinder.exports.texts import BREAK, Line, candidate_line, context_line, context_text, joint
from rejoinder.parlai_text import ParlaiTokens
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue, Message
from rejoinder.text import TextFormat
from rejoinder.tokens import Rows, Tokens

from .made import WORDS, imported, learned, said

PLAIN = st.sampled_from([*WORDS, "the cat sat", "", " ", "# > < |", "</s> <unk>", "__start__"])
SIGNS = st.characters(exclude_characters=BREAK, exclude_categories=["Cs"])
TEXTS = st.one_of(PLAIN, st.lists(PLAIN, max_size=30).map(" ".join), st.text(SIGNS, max_size=30))
DIALOGUES = st.builds(
    Dialogue,
    st.lists(
        st.builds(Message, st.sampled_from(["user", "assistant", "system"]), TEXTS), max_size=6
    ).map(tuple),
    st.lists(TEXTS, max_size=4).map(tuple),
)
KINDS = ["words", "newest", "history", "bytes", "bytes with a blank", "parlai", "persons", "ours"]


@pytest.fixture(scope="module")
def tokens(base_tokens: Tokens) -> Callable[[str], tuple[Rows, Joined]]:
    @cache
    def made(kind: str) -> tuple[Rows, Joined]:
        rows = _rows(kind, base_tokens)
        return rows, joined(rows)

    return made


@pytest.fixture(scope="module")
def base_tokens(make: Callable[..., TextRanker]) -> Tokens:
    rows = make().tokens
    assert isinstance(rows, Tokens)
    return rows


def _rows(kind: str, base: Tokens) -> Rows:
    styles = {
        "words": TextFormat(max_context=40, max_reply=12),
        "newest": TextFormat(max_context=24, max_reply=12, keep="newest"),
        "history": TextFormat(max_context=48, max_reply=12, max_history=2, user_mark="you:"),
    }
    if kind in styles:
        return Tokens(base.tokenizer, styles[kind], base.pad)
    if kind.startswith("bytes"):
        return learned(prefix_space=kind != "bytes").tokens
    found = imported(person_tokens=kind == "persons").tokens
    assert isinstance(found, ParlaiTokens)
    if kind == "ours":  # trained on with us, which keeps the persona
        return ParlaiTokens(found.dictionary, TextFormat(max_context=30, max_reply=12))
    return found


@pytest.mark.parametrize("kind", KINDS)
@given(dialogue=DIALOGUES)
def test_a_context_as_a_string_is_the_rows_ids(
    tokens: Callable[[str], tuple[Rows, Joined]], kind: str, dialogue: Dialogue
) -> None:
    rows, text = tokens(kind)
    assume(dialogue.messages or dialogue.persona)
    line, (row,) = context_line(rows, dialogue), rows.contexts([dialogue])
    found = text.ids(line.text)
    assert found == row if line.exact else len(found) <= len(row)


@pytest.mark.parametrize("kind", KINDS)
@given(reply=TEXTS)
def test_a_candidate_as_a_string_is_the_rows_ids(
    tokens: Callable[[str], tuple[Rows, Joined]], kind: str, reply: str
) -> None:
    rows, text = tokens(kind)
    line, (row,) = candidate_line(rows, reply), rows.candidates([reply])
    found = text.ids(line.text)
    assert found == row if line.exact else found[:-1] == row[: len(found) - 1]
    assert len(found) <= rows.style.max_reply


def test_what_is_whole_is_exact(tokens: Callable[[str], tuple[Rows, Joined]]) -> None:
    for kind in KINDS:
        rows, _ = tokens(kind)
        assert context_line(rows, said("hi !", "tea ?", persona=("a guide .",))).exact
        assert candidate_line(rows, "i like tea .").exact
        assert not candidate_line(rows, "tea " * 40).exact


def test_a_string_looks_as_the_layout_says(tokens: Callable[[str], tuple[Rows, Joined]]) -> None:
    dialogue = said("hi .", "hello !", "tea ?", persona=("i like tea .",))
    lines = {kind: context_line(tokens(kind)[0], dialogue) for kind in KINDS}
    assert lines["words"] == Line("# i like tea . > hi . < hello ! > tea ?")
    assert lines["bytes"] == Line("# i like tea .\x1e> hi .\x1e< hello !\x1e> tea ?")
    assert lines["parlai"] == Line("your persona: i like tea .\nhi .\nhello !\ntea ?")
    assert lines["persons"].text.endswith("\n__p2__ hello !\n__p1__ tea ?")


def test_a_long_message_is_cut_at_a_word(tokens: Callable[[str], tuple[Rows, Joined]]) -> None:
    rows, text = tokens("words")
    line = context_line(rows, said("qq " * 30, persona=("a guide .",)))
    assert line.text.split() == ["#", "a", "guide", ".", *["qq"] * (len(line.text.split()) - 4)]
    assert not context_line(rows, said("q" * 90)).exact
    assert len(text.ids(line.text)) in (39, 40)


def test_half_a_character_is_read_as_the_ranker_reads_it(
    tokens: Callable[[str], tuple[Rows, Joined]],
) -> None:
    dialogue = said("tea \ud83d")
    for kind in ("words", "bytes", "parlai"):
        rows, text = tokens(kind)
        assert text.ids(context_line(rows, dialogue).text) == rows.contexts([dialogue])[0]
        assert text.ids(candidate_line(rows, "\udc00 ?").text) == rows.candidates(["\udc00 ?"])[0]


def test_words_of_the_base_are_joined_by_blanks_and_bytes_are_not(
    tokens: Callable[[str], tuple[Rows, Joined]],
) -> None:
    rows = {kind: tokens(kind)[0] for kind in ("words", "bytes")}
    assert joint(rows["words"].tokenizer) == " "  # type: ignore[attr-defined]
    assert joint(rows["bytes"].tokenizer) == BREAK  # type: ignore[attr-defined]


def test_an_empty_dialogue_is_no_string_for_a_ranker_from_parlai(
    make: Callable[..., TextRanker],
) -> None:
    assert context_text(make(), Dialogue()) == ""
    with pytest.raises(ConfigError, match="give it a message"):
        context_text(imported(), Dialogue())
