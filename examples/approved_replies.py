"""A support bot that says approved replies only, and calls a person where it is not sure.

    python examples/approved_replies.py [MODEL]

Without MODEL, a name or a folder, the default model is taken.
"""

from __future__ import annotations

import sys

from rejoinder import Dialogue, Index, RetrieveAgent, load
from rejoinder.agents import Agent

APPROVED = (
    "Could you give me your order number, please?",
    "A parcel takes three to five working days.",
    "You can send anything back within thirty days, free of charge.",
    "We are open from nine to five, Monday to Friday.",
    "I am sorry to hear that. I will send you a new one today.",
    "You are welcome. Have a nice day!",
)
QUESTIONS = ("How long does delivery take?", "When are you open?", "Who won the match last night?")
LEAST = 0.5  # probability that the reply is right; choose it on questions of your own
HAND_OVER = "Let me ask a colleague. One moment, please."


def answer(agent: Agent, dialogue: Dialogue) -> tuple[str, float]:
    """What to say, and how sure the model is of its best reply."""
    reply = agent.respond(dialogue)
    sure = reply.confidence or 0.0  # None: the model is not calibrated, so it is never sure
    return (reply.text if sure >= LEAST else HAND_OVER), sure


def main() -> None:
    """Answer some questions, one conversation after the other."""
    ranker = load(*sys.argv[1:2])
    agent = RetrieveAgent(Index.build(ranker, APPROVED), ranker)
    for question in QUESTIONS:
        said, sure = answer(agent, Dialogue().then("user", question))
        print(f"user: {question}\nbot:  {said}  ({sure:.2f})\n")


if __name__ == "__main__":
    main()
