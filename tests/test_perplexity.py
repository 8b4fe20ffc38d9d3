"""Perplexities by hand, and ParlAI's against a slow one that asks word by word."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from rejoinder import generators, perplexity
from rejoinder.config import GeneratorConfig
from rejoinder.errors import DataError
from rejoinder.generator import TextGenerator
from rejoinder.models.generator import Rows
from rejoinder.schema import Dialogue, Example, Message
from rejoinder.text import TextFormat

ASKED = Dialogue((Message("user", "what do you like ?"),), ("i love tea .",))
REPLIES = ["i like tea .", "tea ... and museums , you know", "no !"]
EXAMPLES = [Example(ASKED, (reply,), ("tea", reply)) for reply in REPLIES]


@pytest.fixture(scope="module")
def generator(base: Path) -> TextGenerator:
    style = TextFormat(max_context=44, max_reply=20)
    made = generators.fresh(GeneratorConfig(base=str(base)), style)
    torch.manual_seed(3)
    torch.nn.init.normal_(made.module.added, std=0.4)
    return made


def shares(generator: TextGenerator, before: Sequence[int]) -> torch.Tensor:
    """Probability of each token after some, in one plain reading."""
    ids = torch.tensor([list(before)])
    with torch.no_grad():
        states = generator.module(Rows(ids, torch.ones_like(ids, dtype=torch.bool)))
        found: torch.Tensor = generator.module.next_tokens(states[0, -1]).softmax(-1)
    return found


def test_per_token_and_per_word(generator: TextGenerator) -> None:
    total = 0.0
    tokens = 0
    context = generator.layout.context(ASKED)
    for reply in REPLIES:
        row = generator.layout.reply(reply)
        for place, token in enumerate(row):
            total -= math.log(float(shares(generator, [*context, *row[:place]])[token]))
        tokens += len(row)
    each, word = perplexity.per_token_and_word(generator, EXAMPLES)
    assert each == pytest.approx(math.exp(total / tokens), rel=1e-4)
    assert word == pytest.approx(math.exp(total / (4 + 7 + 2)), rel=1e-4)


def test_of_a_dictionary_word_by_word(generator: TextGenerator) -> None:
    """For each word: all words' probabilities from the one token that each begins with."""
    counts = Counter({"i": 9, "like": 4, "tea": 3, "teas": 1, "museums": 2, "you": 8, ".": 20})
    counts |= Counter({"...": 2, "!": 3, "a": 7, "trains": 1, "museum": 5})
    layout, total = generator.layout, 0.0
    scored = 0

    def first(word: str) -> int:
        return layout.pieces.ids([word])[0][0]

    for reply in REPLIES:
        words = perplexity.split(reply)
        for place, word in enumerate(words):
            if word not in counts:
                continue
            before = layout.pieces.ids([" ".join(words[:place])])[0] if place else []
            chance = shares(generator, [*layout.context(ASKED), *before])
            mass = Counter[int]()
            for known, count in counts.items():
                mass[first(known)] += count + 5
            of = {k: float(chance[first(k)]) * (n + 5) / mass[first(k)] for k, n in counts.items()}
            total -= math.log(of[word] / sum(of.values()))
            scored += 1
    found = perplexity.of_dictionary(generator, EXAMPLES, counts)
    assert scored == 9
    assert found == pytest.approx(math.exp(total / scored), rel=1e-4)


def test_a_word_is_no_likelier_than_its_dictionary_allows(generator: TextGenerator) -> None:
    assert perplexity.of_dictionary(generator, EXAMPLES, {"tea": 3}) == pytest.approx(1.0)


def test_replies_without_a_known_word_are_refused(generator: TextGenerator) -> None:
    with pytest.raises(DataError, match="no word of the replies"):
        perplexity.of_dictionary(generator, EXAMPLES, {"zebra": 3})


def test_words_are_split_as_parlai_does() -> None:
    assert perplexity.split("Well...I'm fine,thanks ! . . . ok") == [
        *("well", "...", "i'm", "fine", ",", "thanks", "!", "...", "ok"),
    ]
    assert perplexity.counted(["Tea, tea", "no"]) == {"tea": 2, ",": 1, "no": 1}


def test_a_dictionary_file(tmp_path: Path) -> None:
    file = tmp_path / "words.dict"
    file.write_text("__null__\t1000000002\n__end__\t1000000000\n.\t30\ni\t12\n")
    assert perplexity.read_dictionary(file) == {".": 30, "i": 12}
    file.write_text("i\t12\ntea twelve\n")
    with pytest.raises(DataError, match=r"words\.dict:2: got 'tea twelve'; expected a word, a tab"):
        perplexity.read_dictionary(file)


def test_words_that_are_not_read_do_not_count(generator: TextGenerator) -> None:
    """A reply that is cut pays for the words that are left of it."""
    long = [Example(ASKED, ("i like tea . " * 30,))]
    row = generator.layout.reply(long[0].reply)
    assert len(row) == 20
    (total, tokens), *_ = generator.surprise([ASKED], [long[0].reply])
    _, word = perplexity.per_token_and_word(generator, long)
    assert tokens == 20
    assert word == pytest.approx(math.exp(total / 19), rel=1e-4)


def test_an_empty_dictionary_is_none(tmp_path: Path) -> None:
    (tmp_path / "no.dict").write_text("__null__\t3\n")
    with pytest.raises(DataError, match="no word in it"):
        perplexity.read_dictionary(tmp_path / "no.dict")
