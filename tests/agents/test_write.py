"""Agents that write: what they say, that they do not say it twice, and how sure they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from rejoinder.agents import ChooseAgent, GenerateAgent, HintedAgent, RetrieveAgent
from rejoinder.decoding import Decoding
from rejoinder.errors import ConfigError
from rejoinder.generator import TextGenerator
from rejoinder.hints import HINT, hinted
from rejoinder.index import Index
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue, Message
from rejoinder.words import folded

ASKED = Dialogue((Message("user", "what do you like ?"),), ("i love tea .",))
HOW = Decoding(max_length=6, seed=5)
GREEDY = replace(HOW, greedy=True)


def plain(text: str) -> str:
    """Without the marks of parts of words, spaces, and what the tiny tokenizer does not know."""
    return text.replace("##", "").replace(" ", "").replace(":", "")


@pytest.mark.parametrize("how", [HOW, GREEDY, replace(HOW, beams=2)])
def test_it_says_what_the_generator_writes(generator: TextGenerator, how: Decoding) -> None:
    reply = GenerateAgent(generator, how).respond(ASKED)
    seeded = replace(how, seed=how.seed + 1000)
    assert [reply.text] == generator.write([ASKED], seeded)
    mean = generator.likelihoods([ASKED], [[reply.text]])[0]
    assert reply.confidence == pytest.approx(math.exp(float(mean)))
    assert "tokens" in reply.meaning


def test_the_best_of_several_is_said(generator: TextGenerator) -> None:
    reply = GenerateAgent(generator, HOW, best_of=6).respond(ASKED)
    texts = [one.text for one in reply.considered]
    assert len(set(texts)) == len(texts) > 2
    scores = generator.scores(ASKED, texts).tolist()
    assert scores == sorted(scores, reverse=True)
    assert reply.text == texts[0]


def test_a_ranker_can_choose_among_them(
    generator: TextGenerator, make: Callable[..., TextRanker]
) -> None:
    ranker = make(kind="cross")
    reply = GenerateAgent(generator, HOW, best_of=6, chooser=ranker).respond(ASKED)
    texts = [one.text for one in reply.considered]
    scores = ranker.scores(ASKED, texts).tolist()
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("how", [GREEDY, replace(HOW, temperature=0.01), replace(HOW, beams=2)])
def test_nothing_is_said_twice(generator: TextGenerator, how: Decoding) -> None:
    agent, dialogue = GenerateAgent(generator, how), ASKED
    first = agent.respond(dialogue).text
    dialogue = replace(dialogue, messages=(Message("assistant", first), *dialogue.messages))
    second = agent.respond(dialogue).text
    assert folded(second) != folded(first)


def test_unless_it_may(generator: TextGenerator) -> None:
    agent = GenerateAgent(generator, GREEDY, repeat=True, max_history=1)
    first = agent.respond(ASKED).text
    longer = replace(ASKED, messages=(Message("assistant", first), *ASKED.messages))
    assert agent.respond(longer).text == first


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("best_of", [1, 3])
def test_what_is_heard_piece_by_piece_is_what_is_said(
    generator: TextGenerator, seed: int, best_of: int
) -> None:
    agent = GenerateAgent(generator, replace(HOW, seed=seed), best_of=best_of)
    heard: list[str] = []
    reply = agent.stream(ASKED, heard.append)
    assert "".join(heard) == reply.text == agent.respond(ASKED).text
    assert len(heard) > 1 or best_of > 1 or len(reply.text.split()) == 1


def test_what_was_said_already_is_not_heard_again(generator: TextGenerator) -> None:
    agent = GenerateAgent(generator, GREEDY, max_history=1)
    first = agent.respond(ASKED).text
    longer = replace(ASKED, messages=(Message("assistant", first), *ASKED.messages))
    heard: list[str] = []
    reply = agent.stream(longer, heard.append)
    assert "".join(heard) == reply.text == agent.respond(longer).text
    assert folded(reply.text) != folded(first)


def test_hints_are_in_view_and_listed(generator: TextGenerator, index: Index) -> None:
    retriever = RetrieveAgent(index, index.ranker)
    agent = HintedAgent(GenerateAgent(generator, GREEDY), retriever, hints=2)
    reply = agent.respond(ASKED)
    found = [one.text for one in retriever.respond(ASKED).considered[:2]]
    assert [one.text for one in reply.considered if one.origin == "hint"] == found
    assert [reply.text] == generator.write([hinted(ASKED, found)], GREEDY)
    row = generator.layout.context(hinted(ASKED, found))
    words = plain(generator.layout.text(row))
    assert plain(found[0]) in words  # the second one may not fit


def test_hints_outlive_a_short_history(generator: TextGenerator) -> None:
    layout = generator.layout
    whole, layout.style = layout.style, replace(layout.style, max_history=1)
    seen = hinted(ASKED.then("assistant", "tea !").then("user", "why ?"), ["see you ."])
    text = plain(layout.text(layout.context(seen)))
    layout.style = whole
    assert plain(HINT.format("see you .")) in text
    assert plain("tea !") not in text


def test_a_ranker_chooses_among_written_and_retrieved(
    generator: TextGenerator, index: Index
) -> None:
    retriever = RetrieveAgent(index, index.ranker)
    writer = GenerateAgent(generator, HOW, best_of=3)
    agent = ChooseAgent(writer, retriever, keep=4, persona_weight=1.0)
    reply = agent.respond(ASKED)
    origins = [one.origin for one in reply.considered]
    assert origins.count("retrieved") == 4
    assert origins.count("written") == 3
    texts = [one.text for one in reply.considered]
    scores = index.ranker.scores(ASKED, texts)
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)
    assert reply.confidence == pytest.approx(float(scores.softmax(0)[0]))
    assert "softmax" in reply.meaning


def test_none_to_choose_from_is_refused(generator: TextGenerator) -> None:
    with pytest.raises(ConfigError, match="best_of is 0"):
        GenerateAgent(generator, best_of=0)


@pytest.mark.parametrize("how", [GREEDY, replace(HOW, beams=2)])
def test_one_and_the_same_reply_is_no_choice(generator: TextGenerator, how: Decoding) -> None:
    with pytest.raises(ConfigError, match="one and the same reply"):
        GenerateAgent(generator, how, best_of=3)


def test_only_what_is_new_is_chosen_among(
    generator: TextGenerator, make: Callable[..., TextRanker]
) -> None:
    """A retriever that has nothing new says the old; here the writer has something."""
    index = Index.build(make(kind="poly"), ["i like tea ."])
    agent = ChooseAgent(GenerateAgent(generator, HOW), RetrieveAgent(index, index.ranker))
    asked = replace(ASKED, messages=(Message("assistant", "I like tea."), *ASKED.messages))
    reply = agent.respond(asked)
    assert [one.origin for one in reply.considered] == ["written"]


def test_a_head_that_has_learned_nothing_has_no_say(generator: TextGenerator) -> None:
    whole = generator.config
    generator.config = replace(whole, mc_coef=0.0)
    reply = GenerateAgent(generator, HOW, best_of=6).respond(ASKED)
    generator.config = whole
    texts = [one.text for one in reply.considered]
    likely = generator.likelihoods([ASKED], [texts])[0].tolist()
    assert likely == sorted(likely, reverse=True)
