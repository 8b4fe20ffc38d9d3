"""Let a ranker choose among written and retrieved replies."""

from __future__ import annotations

from rejoinder.agents.generate import GenerateAgent
from rejoinder.agents.protocol import SHOWN, newest, said_in
from rejoinder.agents.retrieve import RetrieveAgent
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue, Reply, Scored
from rejoinder.weighing import PERSONA_WEIGHT, views, weighted
from rejoinder.words import folded

MEANING = (
    "share that the ranker gives this reply among those considered (softmax of its scores), which "
    "says nothing of whether any of them is right"
)


class ChooseAgent:
    """Writes some replies, retrieves others, and says what a ranker scores best.

    That is `ranker`, or the one that retrieves. The confidence is its softmax over all of them.
    """

    def __init__(
        self,
        writer: GenerateAgent,
        retriever: RetrieveAgent,
        ranker: TextRanker | None = None,
        *,
        keep: int = SHOWN // 2,
        persona_weight: float = PERSONA_WEIGHT,
    ) -> None:
        self.writer = writer
        self.retriever = retriever
        self.ranker = ranker or retriever.ranker
        self.keep = keep
        self.persona_weight = persona_weight

    def respond(self, dialogue: Dialogue) -> Reply:
        """The reply to say next, and all others, with where each came from."""
        seen = newest(dialogue, self.writer.max_history)
        written = self.writer.write(dialogue, seen)
        found = [one.text for one in self.retriever.respond(dialogue).considered[: self.keep]]
        known = {folded(text) for text in written}
        texts = [*written, *(text for text in found if folded(text) not in known)]
        said = set() if self.writer.repeat else said_in(dialogue)
        fresh = [i for i, text in enumerate(texts) if folded(text) not in said]
        kept = fresh or list(range(len(texts)))
        origins = ["written" if i < len(written) else "retrieved" for i in kept]
        texts = [texts[i] for i in kept]
        sees, shares = zip(*views(seen, self.persona_weight), strict=True)
        scores = weighted([self.ranker.scores(view, texts) for view in sees], shares)
        chances = scores.softmax(0)
        considered = [
            Scored(text, float(score), origin)
            for text, score, origin in zip(texts, scores, origins, strict=True)
        ]
        considered.sort(key=lambda one: -one.score)
        return Reply(considered[0].text, float(chances.max()), tuple(considered), MEANING)
