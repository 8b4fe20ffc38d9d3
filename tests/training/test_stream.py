"""Data larger than memory: the same examples as in memory, in an order that resumes exactly."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rejoinder.config import TrainConfig
from rejoinder.data import read, write_jsonl
from rejoinder.errors import DataError
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue, Example, Message, examples
from rejoinder.tokens import Rows
from rejoinder.training.source import batches_per_epoch
from rejoinder.training.stream import POOL, Stream, buffered, stream


@pytest.fixture(scope="module")
def tokens(make: Callable[..., TextRanker]) -> Rows:
    return make().tokens


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three files of 11, 11 and 11 dialogues of two examples each."""
    folder = tmp_path_factory.mktemp("shards")
    files = []
    for shard in range(3):
        dialogues = [
            Dialogue(
                (
                    Message("user", f"hello {shard} {number}"),
                    Message("assistant", f"first {shard} {number}"),
                    Message("user", "and"),
                    Message("assistant", f"second {shard} {number}"),
                )
            )
            for number in range(11)
        ]
        files.append(folder / f"{shard}.jsonl.gz")
        write_jsonl(dialogues, files[-1])
    return files


def reading(path: Path) -> Iterator[Example]:
    return examples(read(path))


def of(tokens: Rows, shards: list[Path], **settings: Any) -> Stream:
    config = TrainConfig(**{"batch_size": 8, "stream": True, "buffer": 10, **settings})
    return stream(shards, reading, tokens, config)


def test_an_epoch_has_every_example_once(tokens: Rows, shards: list[Path]) -> None:
    data = of(tokens, shards)
    assert data.count == 66
    assert batches_per_epoch(data) == 9
    for epoch in range(2):
        found = [example for i in range(9) for example in data.batch(9 * epoch + i)]
        assert Counter(found) == Counter(e for file in shards for e in reading(file))
    first, second = ([data.batch(9 * epoch + i) for i in range(9)] for epoch in (0, 1))
    assert first != second
    assert [len(batch) for batch in first] == [8] * 8 + [2]


def test_any_batch_is_the_same_whatever_was_read_before(tokens: Rows, shards: list[Path]) -> None:
    """What a resumed run asks for."""
    data = of(tokens, shards)
    every = [data.batch(number) for number in range(20)]
    for number in (0, 5, 9, 12, 19):
        resumed = of(tokens, shards)
        assert resumed.batch(number) == every[number]
        assert resumed.batch(number + 1) == data.batch(number + 1)
    assert of(tokens, shards, seed=1).batch(0) != every[0]


def test_as_in_the_files(tokens: Rows, shards: list[Path]) -> None:
    data = of(tokens, shards, shuffle=False)
    found = [example for number in range(9) for example in data.batch(number)]
    assert found == [example for file in shards for example in reading(file)]


def test_replies_to_draw_from(tokens: Rows, shards: list[Path]) -> None:
    pool = of(tokens, shards).pool
    assert sorted(pool) == sorted({e.reply for file in shards for e in reading(file)})


def test_a_sample_of_very_many_replies(tokens: Rows) -> None:
    def many(_: Path) -> Iterator[Example]:
        return (Example(Dialogue(), (str(i),)) for i in range(3 * POOL))

    data = stream([Path("x")], many, tokens, TrainConfig(stream=True))
    assert data.count == 3 * POOL
    assert len(data.pool) == POOL
    mean = sum(map(int, data.pool)) / POOL
    assert mean == pytest.approx(1.5 * POOL, rel=0.01)  # from everywhere alike


@pytest.mark.parametrize("size", [1, 3, 50, 1000])
def test_a_buffer_holds_no_more_than_it_may(size: int) -> None:
    taken = 0

    def numbered() -> Iterator[Example]:
        nonlocal taken
        for taken in range(1, 301):
            yield Example(Dialogue(), (str(taken),))

    given = []
    for example in buffered(numbered(), size, random.Random(0)):
        given.append(int(example.reply))
        assert taken - len(given) <= size
    assert sorted(given) == list(range(1, 301))
    assert (given == sorted(given)) == (size == 1)


def test_files_that_changed_meanwhile(tokens: Rows, shards: list[Path], tmp_path: Path) -> None:
    file = tmp_path / "talk.jsonl"
    write_jsonl(read(shards[0]), file)
    data = of(tokens, [file])
    write_jsonl(list(read(shards[0]))[:3], file)
    with pytest.raises(DataError, match="fewer examples than the 22 that were counted"):
        [data.batch(number) for number in range(3)]
