"""Writing: against the library's own `generate`, against search by brute force, row by row."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from rejoinder.decoding import Decoding
from rejoinder.errors import ConfigError
from rejoinder.models.decoding import Meaning, beam, filtered, repeated, write
from rejoinder.models.generator import Generator, log_likelihood

from .test_causal import KINDS, SIZE, written
from .test_generator import made, rows

STOP, NEVER = 51, {50, 54}
MEANING = Meaning(frozenset({STOP, 52, 53}), frozenset(NEVER))
CONTEXTS = [[50, 7, 8, 9, 53, 4, 6, 52], [50, 3, 52], [50, 53, 9, 9, 2, 52]]
GREEDY = Decoding(greedy=True, max_length=9)


def texts(
    generator: Generator,
    contexts: list[list[int]],
    how: Decoding,
    meaning: Meaning = MEANING,
    seeds: list[int] | None = None,
) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in contexts]
    for step in write(generator, rows(contexts), meaning, how, seeds or [*range(len(contexts))]):
        for row, token in step.items():
            found[row].append(token)
    return found


@pytest.mark.parametrize("kind", ["gpt", "gpt2", "llama", "llama-untied", "qwen", "bert"])
@torch.no_grad()
def test_every_token_is_the_likeliest_after_what_is_written(kind: str, tmp_path: Path) -> None:
    """Read anew for each token, with nothing kept."""
    generator = made(tmp_path, kind)
    found = texts(generator, CONTEXTS, GREEDY)
    assert any(found)
    for context, text in zip(CONTEXTS, found, strict=True):
        for i in range(len(text) + (len(text) < GREEDY.max_length)):
            scores = generator.next_tokens(generator(rows([context + text[:i]]))[0, -1])
            scores[MEANING.banned(i, 1)] = -torch.inf
            chosen = int(scores.argmax())
            assert chosen == text[i] if i < len(text) else chosen in MEANING.stop


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@torch.no_grad()
def test_greedy_equals_the_library_s(kind: str, tmp_path: Path) -> None:
    model = written(kind, tmp_path)
    generator = made(tmp_path, kind, speakers=False)
    plain = [[5, 7, 8], [9, 9, 2]]
    wanted = model.generate(
        torch.tensor(plain), max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    none = Meaning(frozenset(), frozenset(range(SIZE, SIZE + 5)))
    found = texts(generator, plain, Decoding(greedy=True, max_length=12), none)
    assert found == wanted[:, 3:].tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", [GREEDY, Decoding(max_length=9, temperature=3.0, top_p=1.0)])
def test_a_row_is_written_as_if_it_were_alone(kind: str, how: Decoding, tmp_path: Path) -> None:
    generator = made(tmp_path, kind)
    seeds = [3, 4, 5]
    together = texts(generator, CONTEXTS, how, seeds=seeds)
    alone = [texts(generator, [c], how, seeds=[s])[0] for c, s in zip(CONTEXTS, seeds, strict=True)]
    assert together == alone
    turned = texts(generator, CONTEXTS[::-1], how, seeds=seeds[::-1])
    assert turned[::-1] == together


def test_a_seed_gives_the_same_and_another_something_else(tmp_path: Path) -> None:
    generator = made(tmp_path)
    how = Decoding(max_length=9, temperature=2.0, top_p=1.0)
    drawn = [texts(generator, CONTEXTS, how, seeds=[s] * 3) for s in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("least", [1, 4, 9])
def test_lengths_and_tokens_that_are_no_text(least: int, tmp_path: Path) -> None:
    generator = made(tmp_path)
    generator.added.data[:] = 3 * generator.body.words.mean(0)  # all five are likely everywhere
    how = Decoding(max_length=9, min_length=least, temperature=5.0, top_p=1.0)
    never_first = Meaning(MEANING.stop, MEANING.never, frozenset(range(25)))
    for seed in range(20):
        for text in texts(generator, CONTEXTS, how, never_first, [seed] * 3):
            assert least <= len(text) <= 9
            assert max(text) < SIZE
            assert text[0] >= 25


def test_no_sequence_twice(tmp_path: Path) -> None:
    assert repeated([1, 2, 3, 1, 2], 3) == [3]
    assert repeated([1, 2, 1, 3, 1], 2) == [2, 3]
    assert repeated([4, 5], 1) == [4, 5]
    assert repeated([4, 5], 0) == repeated([4], 2) == []
    generator = made(tmp_path)
    none = Meaning(frozenset(), frozenset(range(SIZE, SIZE + 5)))
    free = texts(generator, CONTEXTS, Decoding(greedy=True, max_length=40), none)
    assert any(len(set(itertools.pairwise(text))) < 39 for text in free)
    for text in texts(generator, CONTEXTS, Decoding(greedy=True, max_length=40, no_repeat=2), none):
        assert len(set(itertools.pairwise(text))) == 39


@pytest.mark.parametrize("top_k", [0, 1, 7, 99])
@pytest.mark.parametrize("top_p", [0.01, 0.4, 0.9, 1.0])
def test_what_is_left_to_sample_is_what_the_library_leaves(top_k: int, top_p: float) -> None:
    from transformers import TopKLogitsWarper, TopPLogitsWarper

    scores = torch.randn(6, 60, generator=torch.Generator().manual_seed(1)) * 3
    wanted = TopKLogitsWarper(top_k)(None, scores) if top_k else scores
    wanted = TopPLogitsWarper(top_p)(None, wanted) if top_p < 1 else wanted
    assert filtered(scores, top_k, top_p).equal(wanted)


def test_tokens_come_as_often_as_they_are_likely(tmp_path: Path) -> None:
    generator = made(tmp_path)
    how = Decoding(max_length=1, temperature=1.5, top_p=0.9)
    with torch.no_grad():
        scores = generator.next_tokens(generator(rows(CONTEXTS[1:2]))[0, -1:])
    scores[:, MEANING.banned(0, 1)] = -torch.inf
    shares = filtered(scores / 1.5, top_p=0.9).softmax(-1)[0]
    drawn = texts(generator, CONTEXTS[1:2] * 3000, how, seeds=[*range(3000)])
    counts = torch.bincount(torch.tensor(drawn)[:, 0], minlength=len(shares)) / 3000
    assert_close(counts, shares, rtol=0, atol=0.03)


@pytest.mark.parametrize("length", [1, 2, 3])
@torch.no_grad()
def test_enough_beams_find_the_likeliest_reply(length: int, tmp_path: Path) -> None:
    """Against every reply of up to three tokens out of four and an end."""
    generator = made(tmp_path)
    allowed = [5, 6, 7, 8]
    rest = frozenset(range(SIZE + 5)) - {*allowed, STOP}
    meaning = Meaning(frozenset({STOP}), rest)
    context = CONTEXTS[0]
    values = {}
    for size in range(1, length + 1):
        for text in itertools.product(allowed, repeat=size):
            ended = [*text, STOP] if size < length else [*text]
            row = rows([context + ended])
            states = generator(row)
            scores = generator.next_tokens(states[0, len(context) - 1 : -1]).float()
            scores[:, sorted(rest)] = -torch.inf
            scores[0, STOP] = -torch.inf  # no reply is empty
            likely = scores.log_softmax(-1)
            values[text] = sum(likely[i, t].item() for i, t in enumerate(ended)) / len(ended)
    best = max(values, key=lambda text: values[text])
    how = Decoding(max_length=length, beams=64)
    found, value = beam(generator, rows([context]), meaning, how)
    assert tuple(found) == best
    assert value == pytest.approx(values[best], abs=1e-4)


@torch.no_grad()
def test_beams_are_at_least_as_likely_as_greedy(tmp_path: Path) -> None:
    generator = made(tmp_path)
    for context in CONTEXTS:
        text = texts(generator, [context], GREEDY)[0]
        ended = [*text, *([STOP] if len(text) < GREEDY.max_length else [])]
        likely = 0.0
        for i, token in enumerate(ended):
            scores = generator.next_tokens(generator(rows([context + ended[:i]]))[0, -1])
            scores[MEANING.banned(i, 1)] = -torch.inf
            likely += scores.log_softmax(-1)[token].item() / len(ended)
        for beams in (1, 3):
            how = Decoding(beams=beams, max_length=9)
            assert beam(generator, rows([context]), MEANING, how)[1] >= likely - 1e-4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_length": 0}, "max_length is 0; expected at least 1"),
        ({"min_length": 9, "max_length": 8}, "min_length is 9, more than max_length, 8"),
        ({"top_p": 0.0}, "top_p is 0.0; expected more than 0, at most 1"),
        ({"temperature": 0.0}, r"temperature is 0.0; expected a number above 0 \(or take greedy\)"),
        ({"top_k": -1}, "top_k is -1; expected 0 or more"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Decoding(**settings)  # type: ignore[arg-type]


def test_likelihood_of_what_was_written(tmp_path: Path) -> None:
    """The value of a beam is that of scoring its reply, where nothing is banned."""
    generator = made(tmp_path)
    none = Meaning(frozenset({STOP}), frozenset())
    context = CONTEXTS[0]
    found, value = beam(generator, rows([context]), none, Decoding(beams=4, max_length=5))
    ended = [context[-1], *found, *([STOP] if len(found) < 5 else [])]
    replies = rows([ended])
    with torch.no_grad():
        states = generator.behind(rows([context[:-1]]), replies, torch.tensor([0]))
        likely = log_likelihood(generator, states, replies)
    first = none.banned(0, 1)
    with torch.no_grad():
        scores = generator.next_tokens(states[0, 0])
    free = scores.log_softmax(-1)
    scores[first] = -torch.inf
    shift = (scores.log_softmax(-1) - free)[found[0]]  # an end was banned at the first token
    assert value == pytest.approx((likely.sum() + shift).item() / (len(ended) - 1), abs=1e-4)
