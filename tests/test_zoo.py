"""The models that come with the package are whole, small, documented, and know a persona."""

from __future__ import annotations

from pathlib import Path

import pytest

from rejoinder import saved, zoo
from rejoinder.decoding import Decoding
from rejoinder.errors import CheckpointError
from rejoinder.schema import Dialogue, Message

SHIPPED = ["persona-bi", "persona-cross", "persona-poly"]
WRITER = "persona-generator"
CASES = [
    ("what do you do for a living ?", "i am a nurse .", "i work at a hospital , i am a nurse ."),
    ("do you have any pets ?", "i have two cats .", "yes , my cats are called tom and kit ."),
    ("what is your favorite drink ?", "i love tea .", "a nice cup of tea , and yours ?"),
]
WRONG = ["i have never been to france .", "the game starts at nine .", "my car broke down ."]


def test_all_are_there_and_small() -> None:
    assert zoo.names() == sorted([*SHIPPED, WRITER])
    assert sum(row.megabytes for row in zoo.listing()) <= 24


@pytest.mark.parametrize("name", [*SHIPPED, WRITER])
def test_a_card_says_how_it_was_made(name: str) -> None:
    card = saved.card_of(zoo.find(name))
    for part in ("| command | `", "CC BY 4.0", "Apache-2.0", "## Measured", "hits@1"):
        assert part in card, part


@pytest.mark.parametrize("name", SHIPPED)
def test_a_model_knows_its_persona(name: str) -> None:
    ranker = zoo.load_ranker(name)
    right = 0
    for asked, persona, reply in CASES:
        ranking = ranker.rank(Dialogue((Message("user", asked),), (persona,)), [*WRONG, reply])
        right += ranking.order[0] == len(WRONG)
        assert ranking.confidence is not None
    assert right == len(CASES)


def test_the_one_that_writes_knows_its_persona_too() -> None:
    writer = zoo.load_generator(WRITER)
    right = 0
    for asked, persona, reply in CASES:
        ranking = writer.rank(Dialogue((Message("user", asked),), (persona,)), [*WRONG, reply])
        right += ranking.order[0] == len(WRONG)
    assert right == len(CASES)


def test_it_writes_something_else_each_time() -> None:
    writer = zoo.load_generator(WRITER)
    asked = Dialogue((Message("user", CASES[0][0]),), (CASES[0][1],))
    replies = writer.several(asked, Decoding(temperature=1.0, max_length=20), 8)
    assert len(set(replies)) > 4
    assert all(reply and not reply.startswith("##") for reply in replies)
    assert not any(mark in reply for reply in replies for mark in ("<", "["))


def test_a_name_that_is_not_there_gets_the_nearest() -> None:
    with pytest.raises(CheckpointError, match="persona-poly"):
        zoo.find("persona-ploy")


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(CheckpointError, match="is a file"):
        zoo.find(tmp_path / "x")
