"""Ten conversations of five turns, as they come, for people to judge.

    python bench/transcripts.py --index DIR [--model persona-poly] [--rerank persona-cross]

Seed n takes persona number n (`rejoinder chat --seed n`) and line n of bench/users.txt, which was
written before any reply was seen. Prints Markdown; each reply ends in an empty mark for the judge.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rejoinder import tasks
from rejoinder.schema import Dialogue
from rejoinder.talk import sample_persona

USERS = Path(__file__).with_name("users.txt")


def main() -> None:
    """Parse, talk, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--model", default="persona-poly")
    parser.add_argument("--rerank")
    asked = parser.parse_args()
    agent = tasks.make_agent(asked.model, index=asked.index, rerank=asked.rerank)
    for seed, line in enumerate(USERS.read_text(encoding="utf-8").splitlines()):
        dialogue = Dialogue(persona=sample_persona(seed))
        print(f"\n## Seed {seed}\n\nPersona: {' '.join(dialogue.persona)}\n")
        print("| | | sensible |\n|---|---|---|")
        for text in line.split(" | "):
            dialogue = dialogue.then("user", text)
            reply = agent.respond(dialogue).text
            dialogue = dialogue.then("assistant", reply)
            print(f"| user | {text} | |\n| model | {reply.replace('|', '/')} | ? |")


if __name__ == "__main__":
    main()
