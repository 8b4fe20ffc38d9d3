"""The two baselines score like rankers do."""

from __future__ import annotations

from pathlib import Path

from rejoinder.baselines import BM25, untuned
from rejoinder.evaluation import evaluate
from rejoinder.schema import Dialogue, Example, Message


def test_rare_shared_words_count_more() -> None:
    lists = [["my zebra is green .", "my name is bob .", "is it ?"]]
    asked = [Dialogue((Message("user", "is a zebra your pet ?"),))]
    scores = BM25().score_many(asked, lists)[0]
    assert scores.argmax() == 0
    assert scores[2] > scores[1] > 0, "the shorter one of two with the same word is better"


def test_nothing_shared_is_zero() -> None:
    scores = BM25().score_many([Dialogue()], [["hello .", ""]])[0]
    assert scores.tolist() == [0.0, 0.0]


def test_the_persona_is_read() -> None:
    context = Dialogue((Message("user", "tell me of you ."),), ("i keep bees .",))
    example = Example(context, ("bees are my life .",), ("cars are red .", "bees are my life ."))
    assert evaluate(BM25(), [example]).hits_at_1 == 1


def test_untuned_is_the_base_as_it_comes(base: Path) -> None:
    ranker = untuned(str(base), max_context=48)
    assert ranker.tokens.style.user_mark == ""
    assert (
        ranker.score_many([Dialogue((Message("user", "hi"),))], [["hi", "i like tea ."]])[
            0
        ].argmax()
        == 0
    )
