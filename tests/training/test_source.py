"""Which examples each batch has: every one once an epoch, in an order that the seed decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rejoinder.config import TrainConfig
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue, Example, Message
from rejoinder.tokens import Rows
from rejoinder.training.source import Listed, batches_per_epoch, listed, mixed, steps_in

WORDS = ["tea", "coffee", "dogs", "cats", "rain", "snow"] * 4
TWENTY_FOUR = [
    Example(Dialogue((Message("user", f"hello {i}"),)), (word,)) for i, word in enumerate(WORDS)
]


@pytest.fixture(scope="module")
def tokens(make: Callable[..., TextRanker]) -> Rows:
    return make().tokens


def of(tokens: Rows, count: int = 24, **settings: Any) -> Listed:
    return listed(TWENTY_FOUR[:count], tokens, TrainConfig(**{"batch_size": 5, **settings}))


def epoch(data: Listed, number: int) -> list[list[Example]]:
    each = batches_per_epoch(data)
    return [data.batch(number * each + i) for i in range(each)]


def test_distinct_replies_are_the_pool_where_none_is_given(tokens: Rows) -> None:
    assert of(tokens).pool == ["tea", "coffee", "dogs", "cats", "rain", "snow"]
    assert listed(TWENTY_FOUR, tokens, TrainConfig(), ["a", "b"]).pool == ["a", "b"]


def test_steps_of_epochs_and_parts_of_them(tokens: Rows) -> None:
    data = of(tokens)
    assert batches_per_epoch(data) == 5
    assert [steps_in(data, epochs) for epochs in (0.01, 0.5, 1.0, 1.5)] == [1, 2, 5, 8]
    assert steps_in(of(tokens, update_every=2), 2.0) == 5


def test_an_epoch_has_every_example_once_and_its_own_order(tokens: Rows) -> None:
    data = of(tokens)
    epochs = [epoch(data, number) for number in (0, 1, 0)]
    for batches in epochs:
        flat = [example for batch in batches for example in batch]
        assert sorted(map(id, flat)) == sorted(map(id, TWENTY_FOUR))
        assert [len(batch) for batch in batches] == [5, 5, 5, 5, 4]
    assert epochs[0] == epochs[2] != epochs[1]
    assert epoch(of(tokens, seed=1), 0) != epochs[0]


def test_an_epoch_as_in_the_files(tokens: Rows) -> None:
    data = of(tokens, 7, batch_size=3, shuffle=False)
    expected = [TWENTY_FOUR[:3], TWENTY_FOUR[3:6], TWENTY_FOUR[6:7]]
    assert epoch(data, 0) == epoch(data, 5) == expected


def test_numbers_are_mixed_the_same_everywhere() -> None:
    assert mixed(1, 2, "order") == mixed(1, 2, "order")
    many = {mixed(seed, n, use) for seed in range(9) for n in range(9) for use in ("a", "b")}
    assert len(many) == 9 * 9 * 2
