"""Replies are counted, put together as the slow rule says, and proposed as the most typical."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest

from rejoinder import suggestion
from rejoinder.schema import Dialogue, Message
from rejoinder.suggestion import Said, Vectors, cluster, listen, suggest, unit, warning


def talk(*turns: str) -> Dialogue:
    """A dialogue that the user opens."""
    roles = ("user", "assistant")
    return Dialogue(tuple(Message(roles[i % 2], text) for i, text in enumerate(turns)))  # type: ignore[arg-type]


def slowly(vectors: Vectors, likeness: float) -> list[int]:
    """The rule as it is told: one reply after the other, one leader after the other."""
    leaders: list[int] = []
    owner = []
    for number, vector in enumerate(vectors):
        near = [float(vector @ vectors[leader]) for leader in leaders]
        best = max(near, default=-2.0)
        owner.append(leaders[near.index(best)] if best >= likeness else number)
        if best < likeness:
            leaders.append(number)
    return owner


def vectors_of(seed: int, count: int = 60, width: int = 3) -> Vectors:
    return unit(np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32))


@pytest.mark.parametrize(("block", "part"), [(1, 1), (4, 3), (7, 100), (512, 16384)])
@pytest.mark.parametrize("likeness", [0.2, 0.7, 0.9, 0.99])
def test_clusters_are_those_of_the_slow_rule(
    block: int, part: int, likeness: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suggestion, "BLOCK", block)
    monkeypatch.setattr(suggestion, "PART", part)
    for seed in range(5):
        vectors = vectors_of(seed)
        assert cluster(vectors, likeness).tolist() == slowly(vectors, likeness)


@pytest.mark.parametrize(("block", "part"), [(1, 2), (5, 2), (512, 16384)])
@pytest.mark.parametrize("likeness", [-0.5, 0.0, 0.5, 1.0])
def test_ties_go_to_the_earlier_leader(
    block: int, part: int, likeness: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Products of these vectors are exact, so many are equal to each other and to the threshold."""
    monkeypatch.setattr(suggestion, "BLOCK", block)
    monkeypatch.setattr(suggestion, "PART", part)
    corners = np.array(list(product((0.5, -0.5), repeat=4)) * 2, dtype=np.float32)
    vectors = np.random.default_rng(0).permutation(corners)
    found = cluster(vectors, likeness).tolist()
    assert found == slowly(vectors, likeness)
    assert 1 < len(set(found)) <= 16


def test_no_matrix_of_all_replies_is_ever_made() -> None:
    vectors = vectors_of(0, 6000, 16)
    tracemalloc.start()
    found = cluster(vectors, 0.9999)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(set(found.tolist())) > 5000
    assert most < 6000 * 6000 * 4 / 3


def test_no_replies_are_no_clusters() -> None:
    assert cluster(np.empty((0, 3), dtype=np.float32), 0.9).tolist() == []
    assert suggest([], lambda texts: np.empty((0, 3), dtype=np.float32), 0.9) == []


def test_a_row_of_zeros_is_like_nothing() -> None:
    vectors = unit(np.array([[0, 0], [3, 4], [0, 0], [6, 8]], dtype=np.float32))
    np.testing.assert_allclose(vectors[1], [0.6, 0.8])
    assert cluster(vectors, 0.9).tolist() == [0, 1, 2, 1]


def test_replies_are_counted_with_the_last_user_message() -> None:
    opened = Dialogue(
        (
            Message("assistant", "welcome"),
            Message("user", "hi\n there"),
            Message("system", "later"),
            Message("assistant", " hello "),
            Message("assistant", "hello", alternatives=("hey",)),
            Message("assistant", " "),
        )
    )
    log = listen([opened, talk("who?", "hello"), talk("bye")])
    assert (log.replies, log.blocked) == (4, 0)
    assert log.said == [
        Said("hello", "", Counter({"hi there": 2, "who?": 1})),
        Said("welcome", "", Counter({"": 1})),
    ]


def test_blocked_replies_are_counted_and_left_out() -> None:
    dialogues = [talk("a", "no way", "b", "yes"), talk("c", "no way")]
    log = listen(dialogues, lambda text: "no" in text)
    assert [said.text for said in log.said] == ["yes"]
    assert (log.replies, log.blocked) == (3, 2)


def test_line_ends_and_zero_bytes_are_made_plain() -> None:
    log = listen([talk("a", "one\r\ntwo\rthree\0"), talk("b", "one\ntwo\nthree")])
    assert [(said.text, said.count) for said in log.said] == [("one\ntwo\nthree", 2)]


def test_what_needs_a_look_comes_last_however_often_it_was_said() -> None:
    log = listen([talk("a", "call 555-0123")] * 3 + [talk("b", "hi")] + [talk("c", "bye")] * 2)
    assert [said.text for said in log.said] == ["bye", "hi", "call 555-0123"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("write to jo@example.org, please", "an e-mail address: jo...rg"),
        ("it is 555-0123, or 555-0123", "a phone number: 55...23"),
        ("4111 1111 1111 1111", "a card number: 41...11"),
        ("Dear [customer name], hello", "a name left open"),
        ("jo@example.org for {name}", "an e-mail address: jo...rg; a name left open"),
        ("we open at 9", ""),
    ],
)
def test_warnings(text: str, told: str) -> None:
    assert warning(text) == told


PLANE = {"east": (1.0, 0.0), "near east": (1.0, 0.1), "nearer": (1.0, 0.05), "north": (0.0, 1.0)}


def on_plane(texts: Sequence[str]) -> Vectors:
    return np.array([PLANE[text.removesuffix(" 555-0123")] for text in texts], dtype=np.float32)


def heard(**counts: int) -> list[Said]:
    """What `listen` makes of so many sayings of each text; _ stands for a blank."""
    return listen(
        talk("why?", text.replace("_", " ")) for text, n in counts.items() for _ in range(n)
    ).said


def test_the_most_said_reply_speaks_for_its_cluster() -> None:
    first, second = suggest(heard(east=2, near_east=3, nearer=1, north=4), on_plane, 0.9)
    assert (first.text, first.count, first.wordings) == ("near east", 6, 3)
    assert first.others == ("east", "nearer"), "the most unlike first"
    assert (second.text, second.count, second.wordings, second.others) == ("north", 4, 1, ())


def test_of_replies_said_equally_often_the_nearest_to_the_centre_speaks() -> None:
    (found,) = suggest(heard(east=2, near_east=2, nearer=2), on_plane, 0.9)
    assert found.text == "nearer"
    (found,) = suggest(heard(east=2, near_east=2), on_plane, 0.9)
    assert found.text in {"east", "near east"}


def test_what_looks_private_speaks_only_where_there_is_nothing_else() -> None:
    said = listen([talk("a", "east 555-0123")] * 5 + [talk("a", "near east")]).said
    (found,) = suggest(said, on_plane, 0.9)
    assert (found.text, found.warning, found.count) == ("near east", "", 6)
    assert found.others == ("east 55...23",), "never shown whole"
    one, alone = suggest(said, on_plane, 0.9999)
    assert (one.text, one.warning) == ("east 555-0123", "a phone number: 55...23")
    assert alone.warning == ""


def test_examples_are_the_commonest_contexts_and_show_nothing_private() -> None:
    asked = ["c", "a", "b", "c", "d", "my mail is jo@example.org", "my mail is jo@example.org"]
    said = listen(
        [talk(text, "east") for text in asked] + [Dialogue((Message("assistant", "east"),))]
    )
    (found,) = suggest(said.said, on_plane, 0.9)
    assert found.examples == ("c", "my mail is jo...rg", "a")
    assert found.count == 8
    (long,) = suggest(listen([talk("word " * 100, "east")]).said, on_plane, 0.9)
    assert len(long.examples[0]) == 203
    (opener,) = suggest(listen([Dialogue((Message("assistant", "east"),))]).said, on_plane, 0.9)
    assert opener.examples == ()


def test_the_order_of_the_dialogues_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    dialogues = [talk(f"{i % 5}?", text) for i, text in enumerate(list(PLANE) * 6)]
    dialogues += [talk("x", f"{text} 555-0123") for text in PLANE]
    whole = suggest(listen(dialogues).said, on_plane, 0.99)
    for _ in range(5):
        mixed = [dialogues[i] for i in rng.permutation(len(dialogues))]
        assert suggest(listen(mixed).said, on_plane, 0.99) == whole
