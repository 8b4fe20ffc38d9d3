"""The sample dialogues: complete, well formed, and varied enough to learn and choose from."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

import pytest

from rejoinder.data import read
from rejoinder.data.personal import personal
from rejoinder.schema import Dialogue

SAMPLE = Path(str(files("rejoinder") / "sample"))
LONGEST = 200  # characters in a message or a reply
ALIKE = 0.7  # two texts are near-duplicates if their sets of words overlap so much (Jaccard)


@pytest.fixture(scope="module")
def train() -> list[Dialogue]:
    return list(read(SAMPLE / "train.jsonl"))


@pytest.fixture(scope="module")
def dev() -> list[Dialogue]:
    return list(read(SAMPLE / "dev.jsonl"))


@pytest.fixture(scope="module")
def replies() -> list[str]:
    return (SAMPLE / "replies.txt").read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def texts(train: list[Dialogue], dev: list[Dialogue], replies: list[str]) -> list[str]:
    """Every distinct message of either side, and every reply."""
    return sorted(said(train + dev) | set(replies))


def said(dialogues: Sequence[Dialogue]) -> set[str]:
    return {message.content for dialogue in dialogues for message in dialogue.messages}


def personas(dialogue: Dialogue) -> tuple[str, ...]:
    return (*dialogue.persona, *dialogue.partner_persona)


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def near_duplicates(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of places whose word sets have a Jaccard index of at least ALIKE.

    Two such sets of sizes s <= t share at least ALIKE * t words. So if each set leaves out its
    ceil(ALIKE * size) - 1 most frequent words, the rest still have one in common: only texts that
    meet under one of those rare words are compared.
    """
    sets = [frozenset(words(text)) for text in texts]
    often = Counter(word for found in sets for word in found)
    under: dict[str, list[int]] = defaultdict(list)
    pairs = []
    for i, found in enumerate(sets):
        rare = sorted(found, key=lambda word: (often[word], word))
        rare = rare[: len(found) - math.ceil(ALIKE * len(found)) + 1]
        for j in {j for word in rare for j in under[word]}:
            if len(found & sets[j]) >= ALIKE * len(found | sets[j]):
                pairs.append((j, i))
        for word in rare:
            under[word].append(i)
    return pairs


def test_there_are_150_dialogues(train: list[Dialogue], dev: list[Dialogue]) -> None:
    assert (len(train), len(dev)) == (135, 15)


def test_dialogues_are_complete(train: list[Dialogue], dev: list[Dialogue]) -> None:
    for dialogue in train + dev:
        roles = [message.role for message in dialogue.messages]
        assert 10 <= len(roles) <= 16
        assert set(roles) == {"user", "assistant"}
        assert all(one != other for one, other in zip(roles, roles[1:], strict=False))
        assert len(dialogue.persona) >= 4
        assert len(dialogue.partner_persona) >= 4


def test_train_and_dev_share_nothing(train: list[Dialogue], dev: list[Dialogue]) -> None:
    assert said(train).isdisjoint(said(dev))
    assert {personas(one) for one in train}.isdisjoint(personas(one) for one in dev)


def test_there_is_much_to_choose_from(
    train: list[Dialogue],
    dev: list[Dialogue],
    replies: list[str],
    texts: list[str],
    record_property: Callable[[str, object], None],
) -> None:
    record_property("candidates", len(texts))
    assert len(texts) >= 4000
    assert len(replies) == len(set(replies))
    assert said(train + dev).isdisjoint(replies)


def test_readme_counts_what_is_there(
    train: list[Dialogue], dev: list[Dialogue], replies: list[str], texts: list[str]
) -> None:
    readme = (SAMPLE / "README.md").read_text(encoding="utf-8")
    for dialogues in (train, dev):
        count = sum(len(dialogue.messages) for dialogue in dialogues)
        assert f"{len(dialogues)} dialogues, {count:,} messages" in readme
    assert f"{len(replies):,} further replies" in readme
    assert f"{len(texts):,} distinct" in readme


def test_sentences_begin_differently(texts: list[str]) -> None:
    sentences = [words(part) for text in texts for part in re.split(r"(?<=[.!?])\s+", text)]
    openings = Counter(" ".join(found[:5]) for found in sentences if len(found) >= 5)
    opening, count = openings.most_common(1)[0]
    assert count <= 0.005 * openings.total(), opening


def test_few_texts_are_alike(texts: list[str]) -> None:
    alike = {place for pair in near_duplicates(texts) for place in pair}
    assert len(alike) < 0.02 * len(texts)


def test_near_duplicates_are_found_like_pair_by_pair(texts: list[str]) -> None:
    some = [*texts[::17], "Glad to hear it!", "I'm glad to hear it.", "Glad to hear it, truly."]
    sets = [set(words(text)) for text in some]
    slow = {
        (i, j)
        for j in range(len(some))
        for i in range(j)
        if len(sets[i] & sets[j]) >= ALIKE * len(sets[i] | sets[j])
    }
    assert len(slow) >= 2
    assert set(near_duplicates(some)) == slow


def test_texts_are_plain(train: list[Dialogue], dev: list[Dialogue], texts: list[str]) -> None:
    lines = [*texts, *(line for dialogue in train + dev for line in personas(dialogue))]
    for line in lines:
        assert line.isascii(), line
        assert line == " ".join(line.split()), line
        assert 0 < len(line) <= LONGEST, line
        assert not personal(line), line
        assert not re.search(r"@|https?:|www\.|\d[\d -]{6,}\d", line), line
