"""Cut long dialogues into short ones of four messages, to pretrain on many contexts fast.

    python tools/short_dialogues.py self_dialogue.jsonl.xz self_pre.jsonl

Two pieces are cut from the start of each dialogue, each from a user's message to an assistant's;
one with a message of 300 characters or more is left out. They come in random order (seeded).
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from rejoinder.data import read, write_jsonl
from rejoinder.errors import RejoinderError
from rejoinder.schema import Dialogue

LENGTH, LONGEST = 4, 300  # messages, characters


def main() -> None:
    """Parse, cut, shuffle, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    found = [piece for dialogue in read(asked.data) for piece in pieces(dialogue)]
    random.Random(asked.seed).shuffle(found)
    print(f"{asked.out}: {write_jsonl(found, asked.out)} dialogues")


def pieces(dialogue: Dialogue) -> Iterator[Dialogue]:
    """The first two pieces of a dialogue that are whole turns."""
    for start in (0, LENGTH):
        messages = list(dialogue.messages[start : start + LENGTH])
        while messages and messages[-1].role != "assistant":
            messages.pop()
        short = all(len(message.content) < LONGEST for message in messages)
        if len(messages) >= 2 and messages[0].role == "user" and short:
            yield Dialogue(tuple(messages))


if __name__ == "__main__":
    try:
        main()
    except (RejoinderError, OSError) as error:
        sys.exit(f"{Path(__file__).name}: {error}")
