"""What a step sees: which columns count, what is drawn, and that seed and step alone decide it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from rejoinder.config import TrainConfig
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue, Example, Message
from rejoinder.tokens import Rows
from rejoinder.training import batches
from rejoinder.training.batches import Batch
from rejoinder.training.source import Listed, listed

Make = Callable[..., TextRanker]


@pytest.fixture(scope="module")
def tokens(make: Make) -> Rows:
    return make().tokens


def asked(
    number: int, replies: str | Sequence[str], candidates: Sequence[str] = (), about: str = ""
) -> Example:
    replies = (replies,) if isinstance(replies, str) else tuple(replies)
    persona = tuple(f"i like {word} ." for word in about.split())
    context = Dialogue((Message("user", "hello " * number + "there !"),), persona)
    return Example(context, replies, tuple(candidates))


def of(tokens: Rows, examples: Sequence[Example], **settings: Any) -> Listed:
    return listed(examples, tokens, TrainConfig(**{"batch_size": 4, **settings}))


def shared_batch(data: Listed, numbers: Sequence[int], step: int) -> Batch:
    return batches.shared_batch(data, [data.examples[i] for i in numbers], step)


def listed_batch(data: Listed, numbers: Sequence[int], step: int) -> Batch:
    return batches.listed_batch(data, [data.examples[i] for i in numbers], step)


def texts_of(data: Listed, batch: Batch, known: Sequence[str]) -> list[str]:
    """The candidates' texts, found again by their token ids."""
    by_ids = {
        tuple(row): text for row, text in zip(data.tokens.candidates(known), known, strict=True)
    }
    ids, mask = batch.candidates
    return [by_ids[tuple(row[real].tolist())] for row, real in zip(ids, mask, strict=True)]


def contexts_of(batch: Batch) -> list[list[int]]:
    ids, mask = batch.context
    return [row[real].tolist() for row, real in zip(ids, mask, strict=True)]


TWENTY = [
    asked(i, text) for i, text in enumerate(["tea", "coffee", "dogs", "cats", "rain", "snow"] * 4)
]


@pytest.mark.parametrize("make_batch", [shared_batch, listed_batch])
def test_a_batch_is_decided_by_seed_and_step(
    tokens: Rows, make_batch: Callable[[Listed, Sequence[int], int], Batch]
) -> None:
    def flat(seed: int, step: int) -> list[list[int]]:
        examples = [asked(i, f"tea {i}", about="tea rain snow dogs") for i in range(12)]
        data = of(tokens, examples, seed=seed, negatives=2, drop_persona=0.5)
        batch = make_batch(data, [0, 1, 2], step)
        return [x.flatten().tolist() for x in (*batch.context, *batch.candidates, batch.gold)]

    assert flat(0, 7) == flat(0, 7)
    assert flat(0, 7) != flat(0, 8)
    assert flat(0, 7) != flat(1, 7)


def test_every_reply_is_a_candidate_for_every_row(tokens: Rows) -> None:
    data = of(tokens, TWENTY)
    batch = shared_batch(data, [3, 0, 2], 0)
    assert texts_of(data, batch, data.pool) == ["cats", "tea", "dogs"]
    assert batch.gold.tolist() == [0, 1, 2]
    assert batch.real.all()
    assert contexts_of(batch) == tokens.contexts([TWENTY[i].context for i in (3, 0, 2)])


def test_identical_replies_are_one_column(tokens: Rows) -> None:
    data = of(tokens, TWENTY)
    batch = shared_batch(data, [0, 1, 6, 12], 0)  # tea, coffee, tea, tea
    assert texts_of(data, batch, data.pool) == ["tea", "coffee"]
    assert batch.gold.tolist() == [0, 1, 0, 0]
    assert batch.real.all()


def test_other_right_replies_are_hidden_from_their_row_only(tokens: Rows) -> None:
    examples = [asked(0, ["tea", "coffee"]), asked(1, "coffee"), asked(2, "rain")]
    batch = shared_batch(of(tokens, examples), [0, 1, 2], 0)
    assert batch.real.tolist() == [[True, False, True], [True, True, True], [True, True, True]]


def test_a_reply_in_other_case_or_spacing_is_the_same_reply(tokens: Rows) -> None:
    examples = [asked(0, "tea"), asked(1, "Tea "), asked(2, "rain")]
    batch = shared_batch(of(tokens, examples), [0, 1, 2], 0)
    assert batch.real.tolist() == [[True, False, True], [False, True, True], [True, True, True]]
    assert batch.gold.tolist() == [0, 1, 2]


def test_drawn_candidates_come_on_top_of_the_batchs_own(tokens: Rows) -> None:
    data = of(tokens, TWENTY, negatives=3)
    drawn = Counter[str]()
    for step in range(40):
        batch = shared_batch(data, [0, 1], step)
        texts = texts_of(data, batch, data.pool)
        assert texts[:2] == ["tea", "coffee"]
        assert len(set(texts)) == len(texts) <= 5
        assert batch.real.all()
        drawn.update(texts[2:])
    assert set(drawn) == {"dogs", "cats", "rain", "snow"}


def test_drawn_candidates_that_are_right_are_hidden(tokens: Rows) -> None:
    examples = [asked(0, ["tea", "rain"]), asked(1, "rain"), asked(2, "snow")]
    data = of(tokens, examples, negatives=3)
    batch = shared_batch(data, [0], 0)
    texts = texts_of(data, batch, data.pool)
    assert sorted(texts) == ["rain", "snow", "tea"]
    assert batch.real.tolist() == [[text != "rain" for text in texts]]


def test_inline_rows_count_their_own_candidates_only(tokens: Rows) -> None:
    examples = [
        asked(0, "tea", ["rain", "tea", "snow"]),
        asked(1, "dogs", ["cats"]),  # the right reply is not among them
        asked(2, "books"),  # none: all of the batch count
        asked(3, ["chess", "snow"], ["snow", "rain"]),
    ]
    batch = shared_batch(of(tokens, examples, candidates="inline"), [0, 1, 2, 3], 0)
    known = ["tea", "dogs", "books", "chess", "rain", "snow", "cats"]
    assert texts_of(of(tokens, examples), batch, known) == known
    counted = [[t for t, real in zip(known, row, strict=True) if real] for row in batch.real]
    assert counted == [["tea", "rain", "snow"], ["dogs", "cats"], known, ["chess", "rain"]]
    assert batch.gold.tolist() == [0, 1, 2, 3]


def rows_of(data: Listed, batch: Batch, known: Sequence[str]) -> list[list[str]]:
    """Each row's own texts, those that count."""
    texts, width = texts_of(data, batch, known), batch.real.shape[1]
    return [
        [texts[row * width + column] for column in range(width) if batch.real[row, column]]
        for row in range(len(batch.real))
    ]


@pytest.mark.parametrize("negatives", [0, 1, 3])
def test_listed_rows_begin_with_the_right_reply_then_drawn_ones(
    tokens: Rows, negatives: int
) -> None:
    data = of(tokens, TWENTY, negatives=negatives)
    for step in range(20):
        batch = listed_batch(data, [0, 1, 6], step)
        assert batch.gold.tolist() == [0, 0, 0]
        for row, reply in zip(
            rows_of(data, batch, data.pool), ["tea", "coffee", "tea"], strict=True
        ):
            assert row[0] == reply
            assert len(row) == len(set(row)) == 1 + (negatives or 3)


def test_drawn_negatives_never_equal_a_right_reply(tokens: Rows) -> None:
    examples = [asked(0, ["tea", "rain"]), asked(1, "Rain "), asked(2, "TEA"), asked(3, "snow")]
    data = of(tokens, examples, negatives=3)
    for step in range(20):
        (row,) = rows_of(data, listed_batch(data, [0], step), data.pool[1:])
        assert row == ["TEA", "snow"] or row == ["tea", "snow"]


def test_shorter_lists_are_filled_up_with_what_does_not_count(tokens: Rows) -> None:
    examples = [asked(0, "tea", ["rain", "tea", "snow", "Tea"]), asked(1, "dogs", ["cats"])]
    data = of(tokens, examples, candidates="inline")
    batch = listed_batch(data, [0, 1], 0)
    assert batch.real.tolist() == [[True, True, True], [True, True, False]]
    known = ["tea", "rain", "snow", "dogs", "cats"]
    assert rows_of(data, batch, known) == [["tea", "rain", "snow"], ["dogs", "cats"]]


def test_negatives_limit_the_inline_list(tokens: Rows) -> None:
    wrong = ["rain", "snow", "dogs", "cats"]
    data = of(tokens, [asked(0, "tea", wrong)], candidates="inline", negatives=2)
    drawn = Counter[str]()
    for step in range(30):
        (row,) = rows_of(data, listed_batch(data, [0], step), ["tea", *wrong])
        assert row[0] == "tea"
        assert len(row) == 3
        drawn.update(row[1:])
    assert set(drawn) == set(wrong)


def test_the_only_reply_there_is_stands_alone(tokens: Rows) -> None:
    batch = listed_batch(of(tokens, [asked(0, "tea")]), [0], 0)
    assert batch.real.tolist() == [[True]]


WITH_PERSONA = [asked(i, "tea", about="tea rain snow dogs") for i in range(4)]
WITHOUT = [asked(i, "tea") for i in range(4)]


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (1.0, 160, 160), (0.5, 60, 100)])
def test_drop_persona_is_the_share_read_without(
    tokens: Rows, share: float, least: int, most: int
) -> None:
    data = of(tokens, WITH_PERSONA, drop_persona=share)
    bare = tokens.contexts([one.context for one in WITHOUT])
    dropped = 0
    for step in range(40):
        rows = contexts_of(shared_batch(data, [0, 1, 2, 3], step))
        dropped += sum(row == other for row, other in zip(rows, bare, strict=True))
    assert least <= dropped <= most


def test_shuffle_persona_moves_sentences_and_nothing_else(tokens: Rows) -> None:
    plain = tokens.contexts([WITH_PERSONA[0].context])[0]
    fixed = of(tokens, WITH_PERSONA, drop_persona=0, shuffle_persona=False)
    assert contexts_of(shared_batch(fixed, [0], 0)) == [plain]
    mixed = of(tokens, WITH_PERSONA, drop_persona=0)
    seen = {tuple(contexts_of(shared_batch(mixed, [0], step))[0]) for step in range(40)}
    assert len(seen) > 10  # of 24 orders
    said = len(tokens.contexts([WITHOUT[0].context])[0]) - 1
    for row in seen:
        assert sorted(row) == sorted(plain)
        assert list(row[-said:]) == plain[-said:]


def test_batches_are_padded_with_the_tokenizers_own_padding(make: Make) -> None:
    tokens = make(seed=3).tokens
    tokens.pad = 7
    ids, mask = shared_batch(
        of(tokens, [asked(0, "i like tea"), asked(1, "yes")]), [0, 1], 0
    ).candidates
    assert not mask.all()
    assert set(ids[~mask].tolist()) == {7}
    assert (ids.dtype, mask.dtype) == (torch.int64, torch.bool)


KNOWN = ["tea", "dogs", "books", "rain", "snow", "cats", "chess", "music", "bikes"]


def counted(data: Listed, batch: Batch) -> list[list[str]]:
    """The texts that count for each row."""
    texts = texts_of(data, batch, KNOWN)
    return [[t for t, real in zip(texts, row, strict=True) if real] for row in batch.real]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("batch", [["tea", "dogs", "books"]] * 3),
        ("batch-all", [["tea", "dogs", "books", "rain", "cats", "snow"]] * 3),
        (
            "batch-hard",
            [["tea", "dogs", "books", "rain", "cats"], ["tea", "dogs", "books", "snow"]]
            + [["tea", "dogs", "books"]],
        ),
    ],
)
def test_lists_beside_the_replies(tokens: Rows, mode: str, expected: list[list[str]]) -> None:
    examples = [asked(0, "tea", ["rain", "cats"]), asked(1, "dogs", ["snow"]), asked(2, "books")]
    data = of(tokens, examples, candidates=mode)
    batch = shared_batch(data, [0, 1, 2], 0)
    assert counted(data, batch) == expected
    assert batch.gold.tolist() == [0, 1, 2]


@pytest.mark.parametrize("negatives", [0, 2])
def test_a_fixed_set_and_the_right_reply(tokens: Rows, negatives: int) -> None:
    examples = [asked(0, "tea"), asked(1, "rain"), asked(2, ["books", "snow"])]
    config = TrainConfig(candidates="fixed", fixed_candidates="x", negatives=negatives)
    fixed = ["rain", "snow", "chess", "music", "bikes"]
    data = listed(examples, tokens, config, fixed)
    batch = shared_batch(data, [0, 1, 2], 0)
    drawn = [text for text in texts_of(data, batch, KNOWN) if text in fixed]
    rows = counted(data, batch)
    if not negatives:
        assert [set(row) for row in rows] == [
            {"tea", *fixed},
            set(fixed),
            {"books", *fixed} - {"snow"},
        ]
    else:
        assert "rain" in drawn  # a reply of the batch is a column
        assert all(len(row) <= 1 + negatives for row in rows)
        for row, right in zip(rows, ("tea", "rain", "books"), strict=True):
            assert right in row


@pytest.mark.parametrize("mode", ["batch", "inline", "batch-all", "batch-hard"])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_shares_of_processes_make_the_batch(tokens: Rows, mode: str, count: int) -> None:
    examples = [
        asked(i, text, ["rain", f"no {text}"], about="tea rain")
        for i, text in enumerate(["tea", "dogs", "books", "cats"])
    ]
    config = {"candidates": mode, "negatives": 2, "drop_persona": 0.5}
    data = of(tokens, examples, **config)
    whole = shared_batch(data, [0, 1, 2, 3], 7)
    texts = [row[mask].tolist() for row, mask in zip(*whole.candidates, strict=True)]
    contexts = contexts_of(whole)
    for number in range(count):
        own = slice(number, None, count)
        part = batches.shared_batch(data, examples, 7, own)
        assert contexts_of(part) == contexts[own]
        assert [row[m].tolist() for row, m in zip(*part.candidates, strict=True)] == texts[own]
        assert part.gold.equal(whole.gold[own])
        assert part.real.equal(whole.real[own])


def test_shares_of_a_cross_encoders_batch(tokens: Rows) -> None:
    data = of(tokens, TWENTY, negatives=2)
    chosen = TWENTY[:5]
    whole = batches.listed_batch(data, chosen, 3)
    width = whole.real.shape[1]
    rows = [row[mask].tolist() for row, mask in zip(*whole.candidates, strict=True)]
    for number in range(2):
        own = slice(number, None, 2)
        part = batches.listed_batch(data, chosen, 3, own)
        expected = [row for i in range(5)[own] for row in rows[i * width : (i + 1) * width]]
        assert [row[m].tolist() for row, m in zip(*part.candidates, strict=True)] == expected
        assert part.real.equal(whole.real[own])
