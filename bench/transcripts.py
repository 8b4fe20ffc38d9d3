"""Ten conversations of five turns, as they come, for people to judge.

    python bench/transcripts.py --index DIR [--model persona-poly] [--rerank persona-cross]
    python bench/transcripts.py --model persona-generator [--agent choose --index DIR] [--best-of 5]

Seed n takes persona number n (`rejoinder chat --seed n`) and line n of bench/users.txt, which was
written before any reply was seen. Prints Markdown; each reply ends in an empty mark for the judge.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from rejoinder import tasks, zoo
from rejoinder.agents import Agent
from rejoinder.decoding import Decoding
from rejoinder.schema import Dialogue
from rejoinder.talk import sample_persona

USERS = Path(__file__).with_name("users.txt")


def main() -> None:
    """Parse, talk, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--index", type=Path)
    parser.add_argument("--model", default="persona-poly")
    parser.add_argument("--rerank")
    parser.add_argument("--agent", choices=["retrieve", "rerank", "generate", "hint", "choose"])
    parser.add_argument("--best-of", type=int)
    parser.add_argument("--temperature", type=float)
    asked = parser.parse_args()
    writes = zoo.writes(asked.model)
    marks = "answers | persona | new |" if writes else "sensible |"
    empty = "? | ? | ? |" if writes else "? |"
    for seed, line in enumerate(USERS.read_text(encoding="utf-8").splitlines()):
        dialogue = Dialogue(persona=sample_persona(seed))
        agent = made(asked, seed)
        print(f"\n## Seed {seed}\n\nPersona: {' '.join(dialogue.persona)}\n")
        print(f"| | | {marks}\n|---|---{'|---' * marks.count('|')}|")
        for text in line.split(" | "):
            dialogue = dialogue.then("user", text)
            reply = agent.respond(dialogue).text
            dialogue = dialogue.then("assistant", reply)
            blank = " |" * marks.count("|")
            print(f"| user | {text} |{blank}\n| model | {reply.replace('|', '/')} | {empty}")


def made(asked: argparse.Namespace, seed: int) -> Agent:
    """What answers in the conversation of a seed."""
    how = None
    if zoo.writes(asked.model):
        how = Decoding(seed=seed)
        how = replace(how, temperature=asked.temperature) if asked.temperature else how
    return tasks.make_agent(
        asked.model,
        agent=asked.agent,
        index=asked.index,
        rerank=asked.rerank,
        best_of=asked.best_of,
        how=how,
    )


if __name__ == "__main__":
    main()
