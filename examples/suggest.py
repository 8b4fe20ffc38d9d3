"""Suggest three replies that differ, for a person to choose from.

    python examples/suggest.py "What do you do for a living?" [MODEL [CANDIDATES]]

Without CANDIDATES, a file of replies or dialogues, the sample replies are taken.
"""

from __future__ import annotations

import sys

import torch

from rejoinder import Dialogue, RetrieveAgent
from rejoinder.diversity import diverse, vector_likeness
from rejoinder.tasks import make_agent

LOOKED_AT = 30  # best candidates that the suggestions are chosen from


def suggest(agent: RetrieveAgent, dialogue: Dialogue, count: int = 3) -> list[str]:
    """Good replies, each unlike those before it; the first is the best of all."""
    found = agent.index.search(dialogue, k=LOOKED_AT)
    texts = [agent.index.texts[number] for number in found.numbers]
    likeness = vector_likeness(agent.ranker.encode_candidates(texts))
    return [texts[place] for place in diverse(torch.tensor(found.scores), likeness, count)]


def main() -> None:
    """Print suggestions for one message."""
    message, *rest = sys.argv[1:] or ["What do you do for a living?"]
    model, candidates = [*rest, *("persona-poly", "sample")[len(rest) :]]
    agent = make_agent(model, candidates=candidates)
    for text in suggest(agent, Dialogue().then("user", message)):
        print(f"- {text}")


if __name__ == "__main__":
    main()
