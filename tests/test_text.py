"""The text format, and what stays when a context is too long."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.errors import ConfigError
from rejoinder.schema import Dialogue, Message
from rejoinder.text import TextFormat, candidate_piece, fit, persona_pieces, render, turn_pieces

CHAT = Dialogue(
    (Message("system", "be kind"), Message("user", "hi"), Message("assistant", "hey")),
    ("i love tea.", "i am a guide."),
    ("never seen",),
)

Pieces = list[list[int]]


def numbered(lengths: list[int], start: int) -> Pieces:
    """Pieces of the lengths given, no token id twice."""
    ends = list(accumulate(lengths, initial=start))
    return [list(range(a, b)) for a, b in zip(ends, ends[1:], strict=False)]


personas = st.lists(st.integers(0, 12), max_size=4).map(lambda lengths: numbered(lengths, 0))
talks = st.lists(st.integers(0, 20), max_size=5).map(lambda lengths: numbered(lengths, 1000))
rooms = st.integers(1, 40)


def flat(pieces: Pieces) -> list[int]:
    return [token for piece in pieces for token in piece]


def test_every_piece_opens_with_the_mark_of_who_speaks() -> None:
    assert render(CHAT, TextFormat()) == "# i love tea.  # i am a guide.  | be kind  > hi  < hey"


def test_a_candidate_is_one_more_assistant_message() -> None:
    style = TextFormat(assistant_mark="bot:")
    assert candidate_piece("hey", style) == turn_pieces(CHAT, style)[-1] == "bot: hey"


def test_marks_can_be_chosen() -> None:
    style = TextFormat(persona_mark="P", user_mark="U", assistant_mark="A", system_mark="S")
    assert persona_pieces(CHAT, style) == ["P i love tea.", "P i am a guide."]
    assert turn_pieces(CHAT, style) == ["S be kind", "U hi", "A hey"]


@pytest.mark.parametrize(("history", "seen"), [(0, 3), (1, 1), (2, 2), (3, 3), (9, 3)])
def test_max_history_reads_the_newest_messages(history: int, seen: int) -> None:
    everything = turn_pieces(CHAT, TextFormat())
    assert turn_pieces(CHAT, TextFormat(max_history=history)) == everything[-seen:]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_context": 7}, "max_context is 7; expected at least 8"),
        ({"max_reply": 0}, "max_reply is 0; expected at least 8"),
        ({"max_history": -1}, "max_history is -1; expected 0"),
        ({"keep": "oldest"}, "keep is 'oldest'; expected 'persona' or 'newest'"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TextFormat(**settings)


@given(personas, talks, rooms)
def test_a_context_never_needs_more_than_the_room(
    persona: Pieces, turns: Pieces, room: int
) -> None:
    assert len(fit(persona, turns, room, "persona")) <= room
    assert len(fit(persona, turns, room, "newest")) <= room


@given(personas, talks)
def test_what_fits_stays_as_it_is(persona: Pieces, turns: Pieces) -> None:
    whole = flat(persona) + flat(turns)
    for room in (len(whole), len(whole) + 1):
        assert fit(persona, turns, room) == fit(persona, turns, room, "newest") == whole


@given(personas, talks, rooms)
def test_the_end_of_the_newest_message_is_always_read(
    persona: Pieces, turns: Pieces, room: int
) -> None:
    found = fit(persona, turns, room)
    newest = turns[-1] if turns else []
    surely = min(len(newest), room // 2)
    assert found[len(found) - surely :] == newest[len(newest) - surely :]


@given(personas, talks, rooms)
def test_the_persona_is_kept_where_half_the_room_holds_it(
    persona: Pieces, turns: Pieces, room: int
) -> None:
    if len(flat(persona)) <= room - room // 2:
        assert fit(persona, turns, room)[: len(flat(persona))] == flat(persona)


@given(personas, talks, rooms)
def test_sentences_and_older_messages_are_whole_or_gone(
    persona: Pieces, turns: Pieces, room: int
) -> None:
    found = set(fit(persona, turns, room))
    kept = [found >= set(piece) for piece in persona + turns[:-1] if piece]
    gone = [not found & set(piece) for piece in persona + turns[:-1] if piece]
    assert [not whole for whole in kept] == gone


@given(personas, talks, rooms)
def test_the_newest_message_is_only_cut_where_the_room_is_full(
    persona: Pieces, turns: Pieces, room: int
) -> None:
    found = fit(persona, turns, room)
    if turns and not set(turns[-1]) <= set(found):
        assert len(found) == room
        assert not set(flat(turns[:-1])) & set(found), "older messages go first"


@given(personas, talks, rooms)
def test_nothing_that_would_fit_is_left_out(persona: Pieces, turns: Pieces, room: int) -> None:
    """Try every way of keeping: first sentences, then newest, then older messages; most first."""
    newest = turns[-1] if turns else []
    for sentences in range(len(persona), -1, -1):
        about = flat(persona[:sentences])
        if len(about) + min(len(newest), room // 2) <= room:
            break
    end = newest[max(0, len(newest) - (room - len(about))) :]
    for oldest in range(len(turns)):
        older = flat(turns[oldest:-1])
        if len(about) + len(older) + len(end) <= room:
            break
    else:
        older = []
    assert fit(persona, turns, room) == about + older + end


@given(personas, talks, rooms)
def test_keep_newest_is_one_row_cut_at_the_left(persona: Pieces, turns: Pieces, room: int) -> None:
    assert fit(persona, turns, room, "newest") == (flat(persona) + flat(turns))[-room:]


def test_pieces_are_not_changed() -> None:
    persona, turns = numbered([5, 5], 0), numbered([9, 9], 100)
    fit(persona, turns, 12)
    assert persona == numbered([5, 5], 0)
    assert turns == numbered([9, 9], 100)
