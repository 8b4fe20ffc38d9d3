"""Give every reply hard wrong candidates out of its own dialogue.

    python tools/same_dialogue.py DATA OUT.jsonl [--both-sides] [--following 1 --other 1 --own 1]

What the other speaker says next, or anywhere, and what the replying one says elsewhere: all of it
knows the persona and the talk, and is still no answer here. Learned from with `rejoinder train
--candidates batch-hard`, it teaches who is who and what was asked, which candidates of other
dialogues do not. Lists that DATA has already are kept and made longer.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rejoinder.data import read, write_jsonl
from rejoinder.errors import RejoinderError
from rejoinder.schema import Dialogue, Message
from rejoinder.words import caseless


def main() -> None:
    """Parse, read, choose, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--both-sides", action="store_true", help="every dialogue swapped too")
    parser.add_argument("--following", type=int, default=1, help="0 or 1: what is said next")
    parser.add_argument("--other", type=int, default=1, help="of the other speaker")
    parser.add_argument("--own", type=int, default=1, help="of the replying speaker")
    parser.add_argument("--seed", type=int, default=7)
    asked = parser.parse_args()
    counts = asked.following, asked.other, asked.own
    chance = random.Random(asked.seed)
    write_jsonl(
        (
            with_hard(side, counts, chance)
            for dialogue in read(asked.data)
            for side in ((dialogue, dialogue.swapped()) if asked.both_sides else (dialogue,))
        ),
        asked.out,
    )


def with_hard(dialogue: Dialogue, counts: Sequence[int], chance: random.Random) -> Dialogue:
    """The dialogue with longer lists of candidates, the right reply first where there was none."""
    said = {
        role: [message.content for message in dialogue.messages if message.role == role]
        for role in ("user", "assistant")
    }

    def longer(turn: int, message: Message) -> Message:
        if message.role != "assistant":
            return message
        later = [m.content for m in dialogue.messages[turn + 1 :] if m.role == "user"]
        listed = list(message.candidates) or [message.content]
        taken = {caseless(text) for text in (*listed, message.content, *message.alternatives)}
        for pool, count in zip((later[:1], said["user"], said["assistant"]), counts, strict=True):
            left = [text for text in pool if caseless(text) not in taken]
            drawn = chance.sample(left, min(count, len(left)))
            listed += drawn
            taken |= {caseless(text) for text in drawn}
        return replace(message, candidates=tuple(listed))

    turns = enumerate(dialogue.messages)
    return replace(dialogue, messages=tuple(longer(turn, message) for turn, message in turns))


if __name__ == "__main__":
    try:
        main()
    except (RejoinderError, OSError) as error:
        sys.exit(f"{Path(__file__).name}: {error}")
