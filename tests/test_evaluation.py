"""Evaluation: blind to the order of candidates, and strict with ties, duplicates and gaps."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rejoinder.errors import DataError
from rejoinder.evaluation import (
    Progress,
    Report,
    dialogue_numbers,
    evaluate,
    judge,
    rank_among,
    redraw,
    summarise,
    without_persona,
)
from rejoinder.metrics import word_f1
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue, Example, Message, Role, examples

Make = Callable[..., TextRanker]


class ByTable:
    """Scores texts by a table, so that every number can be worked out by hand."""

    def __init__(self, scores: dict[str, float], default: float = 0.0) -> None:
        self.scores = scores
        self.default = default

    def score_many(
        self,
        dialogues: Sequence[Dialogue],
        lists: Sequence[Sequence[str]],
        progress: Progress | None = None,
    ) -> list[Tensor]:
        return [torch.tensor([self.scores.get(t, self.default) for t in texts]) for texts in lists]


TABLE = ByTable({"best tea": 3, "good tea": 2, "tea": 2, "bad": 1})


def example(replies: str | Sequence[str], candidates: Sequence[str]) -> Example:
    replies = (replies,) if isinstance(replies, str) else tuple(replies)
    return Example(Dialogue(), replies, tuple(candidates))


def numbers(report: Report) -> dict[str, float]:
    return {name: value for name, value in asdict(report).items() if name != "seconds"}


def test_numbers_by_hand() -> None:
    found = evaluate(
        TABLE,
        [
            example("best tea", ["bad", "best tea", "good tea"]),  # rank 1, f1 1
            example("bad", ["bad", "best tea", "good tea"]),  # rank 3, f1 0
            example("tea", ["tea", "good tea", "bad", "awful"]),  # a tie: rank 2, "good tea" said
            example("awful", ["awful", "bad", "tea", "good tea", "best tea", "x"]),  # rank 6
        ],
    )
    assert found.hits_at_1 == 0.25
    assert found.hits_at_5 == 0.75
    assert found.hits_at_10 == 1.0
    assert found.mrr == pytest.approx((1 + 1 / 3 + 1 / 2 + 1 / 6) / 4)
    assert found.mean_rank == 3.0
    assert found.f1 == pytest.approx((1 + 0 + 2 / 3 + 0) / 4)
    assert (found.examples, found.candidates) == (4, 4.0)
    assert found.low < 0.25 < found.high


words = st.sampled_from(["a", "b", "c", "d", "a b", "b c", "!", "?", "the"])
some_examples = st.lists(
    st.builds(
        example,
        st.lists(words, min_size=1, max_size=3),
        st.lists(words, min_size=1, max_size=6),
    ),
    min_size=1,
    max_size=4,
)
tables = st.dictionaries(words, st.sampled_from([0.0, 1.0, 2.0])).map(ByTable)


@given(some_examples, tables, st.randoms(use_true_random=False))
def test_the_order_of_candidates_changes_no_number(
    examples: list[Example], table: ByTable, chance: random.Random
) -> None:
    mixed = [
        Example(one.context, one.replies, tuple(chance.sample(one.candidates, len(one.candidates))))
        for one in examples
    ]
    assert numbers(evaluate(table, mixed)) == numbers(evaluate(table, examples))


@given(some_examples, tables)
def test_ranks_equal_the_slow_ones(examples: list[Example], table: ByTable) -> None:
    for one, judged in zip(examples, judge(table, examples), strict=True):
        pool = set(one.candidates)
        if not pool & set(one.replies):
            pool.add(one.reply)
        scores = {text: table.scores.get(text, 0.0) for text in pool}
        ordered = sorted(pool, key=lambda t: (-scores[t], t in one.replies))
        firsts = [i for i, text in enumerate(ordered) if text in one.replies]
        wrong_before = firsts[0]  # all before the first right one are wrong
        assert judged.rank == 1 + wrong_before
        assert scores[judged.top] == max(scores.values())
        assert (judged.top in one.replies) == (judged.rank == 1)


def test_a_model_that_scores_all_alike_is_never_right() -> None:
    found = evaluate(ByTable({}), [example("a", ["a", "b"]), example("b", ["a", "b"])])
    assert found.hits_at_1 == 0
    assert found.f1 == 0


def test_a_model_that_gives_no_number_is_never_right() -> None:
    found = evaluate(
        ByTable({}, float("nan")), [example("a", ["a", "b"]), example("b", ["a", "b"])]
    )
    assert (found.hits_at_1, found.mean_rank, found.f1) == (0, 2, 0)


def test_a_candidate_named_twice_counts_once() -> None:
    (judged,) = judge(TABLE, [example("bad", ["bad", "best tea", "bad", "best tea", "tea"])])
    assert judged.candidates == 3
    assert judged.rank == 3


def test_a_right_reply_that_is_missing_is_added() -> None:
    (judged,) = judge(TABLE, [example(["bad", "worse"], ["tea", "best tea"])])
    assert judged.candidates == 3
    assert judged.rank == 3


def test_any_of_several_right_replies_will_do() -> None:
    replies = ["bad", "best tea"]
    (judged,) = judge(TABLE, [example(replies, ["bad", "best tea", "good tea"])])
    assert (judged.rank, judged.top) == (1, "best tea")
    (judged,) = judge(TABLE, [example(replies, ["best tea", "good tea"])])
    assert judged.candidates == 2


def test_f1_is_of_the_reply_that_was_said_with_the_best_right_one() -> None:
    judged = judge(TABLE, [example(["bad", "some tea"], ["best tea", "bad"])])
    assert judged[0].top == "best tea"
    assert summarise(judged, 1.0).f1 == word_f1("best tea", ["some tea"])


def test_nothing_to_evaluate() -> None:
    with pytest.raises(DataError, match="no assistant message"):
        evaluate(TABLE, [])
    with pytest.raises(DataError, match=r"example 2 \('bad'\) has no candidates; .*re-drawn:20"):
        evaluate(TABLE, [example("tea", ["tea", "bad"]), example("bad", [])])


def test_a_report_as_json_uses_the_names_of_papers() -> None:
    found = evaluate(TABLE, [example("tea", ["tea", "bad"])]).as_json()
    assert found["hits@1"] == found["mrr"] == found["mean_rank"] == 1.0
    assert found["hits@1_interval"] == pytest.approx([0.2065, 1.0], abs=1e-4)
    assert found["examples_per_second"] == pytest.approx(1 / found["seconds"])


def test_a_rank_among_all_candidates_by_their_numbers() -> None:
    scores = torch.tensor([1.0, 3.0, 2.0, 2.0])
    assert [rank_among(scores, right) for right in ([1], [2], [0], [0, 3])] == [1, 3, 4, 3]


def test_a_real_ranker_is_judged_on_its_own_scores(
    make: Make, dialogues: list[Dialogue], replies: list[str]
) -> None:
    ranker = make(kind="poly")
    asked = [Example(one, (replies[i],), tuple(replies)) for i, one in enumerate(dialogues)]
    for one, judged in zip(asked, judge(ranker, asked), strict=True):
        order = [replies[i] for i in ranker.rank(one.context, replies).order]
        assert judged.rank == 1 + order.index(one.reply)
        assert judged.top == order[0]


MANY = [example(f"reply {i % 40}", []) for i in range(400)]


@pytest.mark.parametrize("count", [2, 20, 40])
def test_redrawn_candidates_hold_the_reply_and_others_once(count: int) -> None:
    for old, new in zip(MANY, redraw(MANY, count), strict=True):
        assert (new.context, new.replies) == (old.context, old.replies)
        assert len(new.candidates) == len(set(new.candidates)) == count
        assert old.reply in new.candidates


def test_redrawing_is_decided_by_its_seed() -> None:
    assert redraw(MANY, 20, seed=1) == redraw(MANY, 20, seed=1)
    assert redraw(MANY, 20, seed=1) != redraw(MANY, 20, seed=2)
    assert redraw(MANY, 20)[:7] == redraw(MANY, 20)[:7]


def test_the_right_reply_stands_at_every_place() -> None:
    places = Counter(one.candidates.index(one.reply) for one in redraw(MANY, 4))
    assert set(places) == {0, 1, 2, 3}
    assert min(places.values()) > 70  # of 400, 100 expected


def test_every_other_reply_is_drawn_about_as_often() -> None:
    drawn = Counter(t for one in redraw(MANY, 20) for t in one.candidates if t != one.reply)
    assert len(drawn) == 40
    assert max(drawn.values()) < 1.6 * min(drawn.values())


def test_redrawn_wrong_candidates_are_wrong() -> None:
    """Other right replies of an example are replies in the data too, and never drawn for it."""
    texts = [f"reply {i}" for i in range(30)]
    examples = [example((texts + texts)[i : i + 26], []) for i in range(30)]  # 26 right, 4 wrong
    for one in redraw(examples, 5):
        assert len(one.candidates) == 5
        assert set(one.candidates) & set(one.replies) == {one.reply}


@pytest.mark.parametrize(
    ("examples", "count", "message"),
    [
        (MANY, 41, "41 candidates are wanted of 40 distinct replies in the data; expected 2 to 40"),
        (MANY, 1, "1 candidates are wanted of 40"),
        (
            [example(["a", "b"], []), example("b", [])],
            2,
            "example 1 has 2 right replies, .*expected 1",
        ),
    ],
)
def test_too_few_replies_to_redraw(examples: list[Example], count: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        redraw(examples, count)


def test_without_persona_only_the_persona_is_gone(dialogues: list[Dialogue]) -> None:
    examples = [Example(one, ("a", "b"), ("a", "c")) for one in dialogues]
    for old, new in zip(examples, without_persona(examples), strict=True):
        assert (new.replies, new.candidates) == (old.replies, old.candidates)
        assert new.context == Dialogue(old.context.messages)


def test_examples_of_one_dialogue_have_one_number() -> None:
    def talk(persona: str, *said: str) -> Dialogue:
        roles: list[Role] = ["user", "assistant"] * 3
        messages = tuple(Message(role, text) for role, text in zip(roles, said, strict=False))
        return Dialogue(messages, (persona,))

    first = talk("i am a .", "hi", "hello", "bye", "see you")
    dialogues = [first, talk("i am b .", "hi", "hello", "bye", "see you"), first, first]
    assert dialogue_numbers(list(examples(dialogues))) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert dialogue_numbers([]) == []


def test_a_right_reply_is_right_in_any_form_of_its_letters() -> None:
    one, other = "s\u00ed", "si\u0301"
    example = Example(Dialogue(), (one,), ("no", other, one))
    (judged,) = judge(ByTable({other: 1.0}), [example])
    assert (judged.rank, judged.candidates, judged.top) == (1, 2, other)
