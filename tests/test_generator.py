"""A generator over text: scores, replies and streams, whatever is asked at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from torch import nn
from torch.testing import assert_close

from rejoinder import evaluation, ranker
from rejoinder.batching import pad
from rejoinder.config import GeneratorConfig
from rejoinder.decoding import Decoding
from rejoinder.generator import TextGenerator
from rejoinder.layouts import Speakers
from rejoinder.models.causal import load_causal
from rejoinder.models.generator import Generator, Rows
from rejoinder.models.pretrained import find_base
from rejoinder.schema import Dialogue, Example, Message
from rejoinder.text import TextFormat

STYLE = TextFormat(max_context=40, max_reply=14)
SAMPLED = Decoding(max_length=12, temperature=2.0, top_p=1.0, seed=5)
GREEDY = Decoding(greedy=True, max_length=12)


@pytest.fixture
def generator(base: Path) -> TextGenerator:
    """On the tiny BERT that the other tests stand on, every weight away from where it began."""
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    size = tokenizer.get_vocab_size()
    torch.manual_seed(0)
    body = load_causal(find_base(str(base)))
    module = Generator(body, added=5, speakers=(size + 2, size + 3))
    for weight in (module.added, module.choice.weight, module.choice.bias):
        nn.init.normal_(weight, std=0.5)
    return TextGenerator(
        module, Speakers(tokenizer, range(size, size + 5), STYLE), GeneratorConfig(lora=0)
    )


@pytest.fixture
def lists(dialogues: list[Dialogue], replies: list[str]) -> list[list[str]]:
    return [replies[i : i + 1 + i % 4] for i in range(len(dialogues))]


@torch.inference_mode()
def test_scores_are_those_of_each_pair_read_alone(
    generator: TextGenerator, dialogues: list[Dialogue], lists: list[list[str]]
) -> None:
    found = generator.score_many(dialogues, lists)
    likely = generator.likelihoods(dialogues, lists)
    module, layout = generator.module, generator.layout
    for dialogue, texts, scores, likelihoods in zip(dialogues, lists, found, likely, strict=True):
        context = layout.context(dialogue)
        for text, score, mean in zip(texts, scores, likelihoods, strict=True):
            reply = layout.reply(text)
            states = module(Rows(*pad([context + reply])))[0]
            assert_close(score, module.follows(states[-1:])[0], rtol=1e-4, atol=1e-4)
            tokens = module.next_tokens(states[len(context) - 1 : -1]).log_softmax(-1)
            each = tokens[torch.arange(len(reply)), torch.tensor(reply)]
            assert_close(mean, each.mean(), rtol=1e-4, atol=1e-4)


def test_what_is_asked_at_once_changes_nothing(
    generator: TextGenerator,
    dialogues: list[Dialogue],
    lists: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scores = generator.score_many(dialogues, lists)
    written = {how: generator.write(dialogues, how) for how in (GREEDY, SAMPLED)}
    for i, dialogue in enumerate(dialogues):
        assert_close(generator.scores(dialogue, lists[i]), scores[i], rtol=1e-4, atol=1e-4)
        assert generator.write([dialogue], GREEDY) == [written[GREEDY][i]]
        alone = Decoding(max_length=12, temperature=2.0, top_p=1.0, seed=5 + i)
        assert generator.write([dialogue], alone) == [written[SAMPLED][i]]
    monkeypatch.setattr("rejoinder.generator.BUDGET", 50)
    assert ranker.BUDGET > 50
    for one, again in zip(scores, generator.score_many(dialogues, lists), strict=True):
        assert_close(again, one, rtol=1e-4, atol=1e-4)
    assert generator.write(dialogues, SAMPLED) == written[SAMPLED]


@pytest.mark.parametrize("how", [GREEDY, SAMPLED, Decoding(beams=3, max_length=6)])
def test_replies_have_words_and_no_marks(
    generator: TextGenerator, dialogues: list[Dialogue], how: Decoding
) -> None:
    for text in generator.write(dialogues, how):
        assert text.strip() == text
        assert text
        assert not text.startswith("##")
        assert "[" not in text
        assert "<" not in text or "<" in "".join(m.content for d in dialogues for m in d.messages)


def test_a_stream_is_the_reply_in_pieces(
    generator: TextGenerator, dialogues: list[Dialogue]
) -> None:
    for dialogue in dialogues:
        for how in (GREEDY, SAMPLED):
            pieces = [*generator.stream(dialogue, how)]
            assert all(pieces)
            assert "".join(pieces) == generator.write([dialogue], how)[0]


def test_a_stream_leaves_the_precision_of_others_alone(
    generator: TextGenerator, dialogues: list[Dialogue]
) -> None:
    generator.precision = "bf16"
    for _ in generator.stream(dialogues[0], GREEDY):
        assert not torch.is_autocast_enabled("cpu")
        assert not torch.is_inference_mode_enabled()


def test_several_replies_have_seeds_of_their_own(
    generator: TextGenerator, dialogues: list[Dialogue]
) -> None:
    found = generator.several(dialogues[0], SAMPLED, 6)
    assert len(set(found)) > 1
    assert found[0] == generator.write(dialogues[:1], SAMPLED)[0]


def test_it_is_evaluated_like_a_ranker(
    generator: TextGenerator, dialogues: list[Dialogue], replies: list[str]
) -> None:
    asked = [Example(d, (replies[i],), tuple(replies)) for i, d in enumerate(dialogues)]
    report = evaluation.evaluate(generator, asked)
    assert report.examples == len(dialogues)
    ranking = generator.rank(dialogues[0], replies)
    assert ranking.scores[ranking.order[0]] == max(ranking.scores)


def test_nothing_said_and_nothing_to_score(generator: TextGenerator) -> None:
    empty: dict[str, Any] = {"messages": (), "persona": ()}
    assert generator.write([Dialogue(**empty)], GREEDY)[0]
    assert generator.scores(Dialogue((Message("user", ""),)), []).shape == (0,)
    assert generator.write([], GREEDY) == []


def test_many_candidates_are_read_in_parts(
    generator: TextGenerator, dialogues: list[Dialogue], monkeypatch: pytest.MonkeyPatch
) -> None:
    lists = [[f"i like {thing} ." for thing in ("tea", "dogs", "a lot of films", "x", "", "rain")]]
    lists += [["yes ."], []]
    whole = [find(dialogues[:3], lists) for find in (generator.score_many, generator.likelihoods)]
    several = generator.several(dialogues[0], Decoding(max_length=4), 5)
    monkeypatch.setattr("rejoinder.generator.BUDGET", 12)
    parts = [find(dialogues[:3], lists) for find in (generator.score_many, generator.likelihoods)]
    for one, two in zip(whole, parts, strict=True):
        for a, b in zip(one, two, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert generator.several(dialogues[0], Decoding(max_length=4), 5) == several
