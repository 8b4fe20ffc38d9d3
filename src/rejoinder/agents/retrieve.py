"""Say the best candidate of an index."""

from __future__ import annotations

from rejoinder.agents.protocol import SHOWN, newest, said_in
from rejoinder.confidence import Crowd
from rejoinder.index import CandidateIndex
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue, Reply, Scored
from rejoinder.weighing import PERSONA_WEIGHT, check_weight, views, weighted
from rejoinder.words import folded

MEANING = "probability that this is the right reply, fitted on the model's development set"


class RetrieveAgent:
    """Says the best candidate of an index that nobody said yet, neither it nor the user.

    With `reranker` the `keep` best are put in a new order by it. The confidence is always that of
    the ranker behind the index: it has seen the whole pool. `max_history` is the number of newest
    messages to read, 0 = all; what was said before is known all the same. `persona_weight` is the
    share, 0 to 1, of the score that knows the persona (see `weighing`).
    """

    def __init__(
        self,
        index: CandidateIndex,
        ranker: TextRanker,
        *,
        reranker: TextRanker | None = None,
        keep: int = SHOWN,
        max_history: int = 0,
        repeat: bool = False,
        persona_weight: float = PERSONA_WEIGHT,
    ) -> None:
        check_weight(persona_weight)
        self.index = index
        self.ranker = ranker
        self.reranker = reranker
        self.keep = keep
        self.max_history = max_history
        self.repeat = repeat
        self.persona_weight = persona_weight

    def respond(self, dialogue: Dialogue) -> Reply:
        """The reply to say next, with the candidates that came nearest.

        Where every candidate was said already, the best of them is said again.
        """
        seen = newest(dialogue, self.max_history)
        said = set() if self.repeat else said_in(dialogue)
        found = self.index.search(seen, self.keep + len(said), self.persona_weight)
        listed = [
            Scored(self.index.texts[number], score)
            for number, score in zip(found.numbers, found.scores, strict=True)
        ]
        fresh = [one for one in listed if folded(one.text) not in said] or listed
        fresh = fresh[: self.keep]
        sure = self._confidence(fresh, found.crowd)
        if self.reranker:
            scores = self._rescored(seen, fresh)
            fresh = [Scored(one.text, score) for one, score in zip(fresh, scores, strict=True)]
            fresh.sort(key=lambda one: -one.score)
        return Reply(fresh[0].text, sure, tuple(fresh), MEANING)

    def _rescored(self, seen: Dialogue, listed: list[Scored]) -> list[float]:
        assert self.reranker is not None
        texts = [one.text for one in listed]
        seen_so, shares = zip(*views(seen, self.persona_weight), strict=True)
        scores = [self.reranker.scores(view, texts) for view in seen_so]
        found: list[float] = weighted(scores, shares).tolist()
        return found

    def _confidence(self, fresh: list[Scored], pool: Crowd) -> float | None:
        """Of the best that may still be said, as if those said already were not in the pool."""
        if self.ranker.confidence is None:
            return None
        best, second = fresh[0].score, fresh[min(1, len(fresh) - 1)].score
        return self.ranker.confidence.of(Crowd(best, second, pool.mean, pool.spread))
