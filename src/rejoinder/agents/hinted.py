"""Write the reply with what a ranker found before its eyes."""

from __future__ import annotations

from rejoinder.agents.generate import GenerateAgent
from rejoinder.agents.protocol import Agent, newest
from rejoinder.hints import hinted
from rejoinder.schema import Dialogue, Reply, Scored

HINTS = 2  # retrieved replies that the generator sees


class HintedAgent:
    """Retrieves replies, then generates with the best of them as hints.

    For generators that were trained with `hints`, or follow instructions. The confidence is that of
    the writer; what was retrieved is listed behind what was written.
    """

    def __init__(self, writer: GenerateAgent, retriever: Agent, *, hints: int = HINTS) -> None:
        self.writer = writer
        self.retriever = retriever
        self.hints = hints

    def respond(self, dialogue: Dialogue) -> Reply:
        """The reply to say next, with what else was written, and the hints."""
        found = self.retriever.respond(dialogue).considered[: self.hints]
        plain = newest(dialogue, self.writer.max_history)
        seen = hinted(plain, [one.text for one in found])
        reply = self.writer.said(seen, self.writer.write(dialogue, seen), plain)
        written = (Scored(one.text, one.score, "written") for one in reply.considered)
        hints = (Scored(one.text, one.score, "hint") for one in found)
        return Reply(reply.text, reply.confidence, (*written, *hints), reply.meaning)
