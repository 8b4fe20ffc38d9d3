"""An agent says the best candidate that was not said yet."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rejoinder.agents import RetrieveAgent
from rejoinder.confidence import Confidence
from rejoinder.errors import ConfigError
from rejoinder.index import Index
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue, Message

from .conftest import TEXTS

Make = Callable[..., TextRanker]
ASKED = Dialogue((Message("user", "what do you like ?"),), ("i love tea .",))


def test_the_best_is_said(index: Index) -> None:
    reply = RetrieveAgent(index, index.ranker, persona_weight=1.0).respond(ASKED)
    ranking = index.ranker.rank(ASKED, TEXTS)
    assert reply.text == TEXTS[ranking.order[0]]
    assert [one.text for one in reply.considered] == [TEXTS[i] for i in ranking.order]


def test_nothing_is_said_twice_until_all_is_said(index: Index) -> None:
    agent, dialogue, said = RetrieveAgent(index, index.ranker), ASKED, []
    for _ in TEXTS:
        said.append(agent.respond(dialogue).text)
        dialogue = dialogue.then("assistant", said[-1]).then("user", "and what else ?")
    assert sorted(said) == sorted(TEXTS)
    assert agent.respond(dialogue).text in TEXTS, "then the best is said again"


def test_repeating_can_be_allowed(index: Index) -> None:
    best = RetrieveAgent(index, index.ranker).respond(ASKED).text
    asked = Dialogue((Message("assistant", best), *ASKED.messages), ASKED.persona)
    agent = RetrieveAgent(index, index.ranker, repeat=True, max_history=1)
    assert agent.respond(asked).text == best


@pytest.mark.parametrize("said", ["I like TEA", "i like tea", "i  like tea !"])
def test_spelling_makes_no_new_reply(index: Index, said: str) -> None:
    asked = Dialogue((Message("assistant", said), *ASKED.messages))
    reply = RetrieveAgent(index, index.ranker).respond(asked)
    assert "i like tea ." not in [one.text for one in reply.considered]


def test_history_is_cut_for_reading_but_not_for_repeating(index: Index) -> None:
    first = RetrieveAgent(index, index.ranker, max_history=1).respond(ASKED).text
    longer = Dialogue((Message("assistant", first), *ASKED.messages), ASKED.persona)
    second = RetrieveAgent(index, index.ranker, max_history=1).respond(longer)
    assert second.text != first
    whole = RetrieveAgent(index, index.ranker).respond(ASKED)
    assert second.considered[0].score == pytest.approx(whole.considered[1].score, rel=1e-5)


def test_a_reranker_orders_the_best_again(index: Index, make: Make) -> None:
    cross = make(kind="cross", seed=3)
    reply = RetrieveAgent(index, index.ranker, reranker=cross, keep=3, persona_weight=1).respond(
        ASKED
    )
    kept = [TEXTS[i] for i in index.search(ASKED, 3).numbers]
    order = cross.rank(ASKED, kept).order
    assert [one.text for one in reply.considered] == [kept[i] for i in order]


def test_confidence_is_the_retriever_s(index: Index, make: Make) -> None:
    assert RetrieveAgent(index, index.ranker).respond(ASKED).confidence is None
    ranker = make(kind="poly")
    ranker.confidence = Confidence(0.1, (0.01, 0.02, 0.03))
    index = Index.build(ranker, TEXTS)
    sure = RetrieveAgent(index, ranker, persona_weight=1.0).respond(ASKED).confidence
    assert sure == pytest.approx(ranker.rank(ASKED, TEXTS).confidence, abs=1e-5)


def test_confidence_is_in_the_reply_that_is_said(make: Make) -> None:
    """The best was said already, so the second best is as sure as it would be without it."""
    ranker = make(kind="poly")
    ranker.confidence = Confidence(0.1, (0.2, 0.2, 0.0))
    agent = RetrieveAgent(Index.build(ranker, TEXTS), ranker, persona_weight=1.0)
    first = agent.respond(ASKED)
    later = Dialogue((Message("assistant", first.text), *ASKED.messages), ASKED.persona)
    second = RetrieveAgent(agent.index, ranker, max_history=1, persona_weight=1.0).respond(later)
    left = [text for text in TEXTS if text != first.text]
    assert second.confidence == pytest.approx(ranker.rank(ASKED, left).confidence, abs=1e-5)
    assert second.confidence != first.confidence


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_a_persona_weighs_as_much_as_it_shall(index: Index, make: Make, weight: float) -> None:
    plain = Dialogue(ASKED.messages)
    cross = make(kind="cross", seed=3)
    for ranker, reranker in ((index.ranker, None), (cross, cross)):
        agent = RetrieveAgent(index, index.ranker, reranker=reranker, persona_weight=weight)
        found = {one.text: one.score for one in agent.respond(ASKED).considered}
        both = ranker.scores(ASKED, TEXTS), ranker.scores(plain, TEXTS)
        wanted = (weight * both[0] + (1 - weight) * both[1]).tolist()
        assert [found[text] for text in TEXTS] == pytest.approx(wanted, rel=1e-5, abs=1e-5)
        assert list(found.values()) == sorted(found.values(), reverse=True)


def test_a_wrong_weight_is_told_before_anything_is_asked(index: Index) -> None:
    with pytest.raises(ConfigError, match=r"persona_weight is 1\.5; expected 0 .* to 1 "):
        RetrieveAgent(index, index.ranker, persona_weight=1.5)
