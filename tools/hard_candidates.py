"""Give the replies of a dialogue file hard wrong candidates, for training a cross-encoder.

    python tools/hard_candidates.py MODEL DATA OUT.jsonl --draw 24 --keep 3 --examples 6000

For every assistant message, `draw` replies of other messages are drawn (seeded), MODEL scores them,
and the `keep` best become its candidates: what a ranker meets among two dozen random ones, at a
fraction of the cost. Whole dialogues are taken, in random order, until there are enough examples.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rejoinder import tasks, zoo
from rejoinder.data import read, write_jsonl
from rejoinder.progress import Bar
from rejoinder.schema import Dialogue, examples


def main() -> None:
    """Parse, score, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("out")
    parser.add_argument("--draw", type=int, default=24)
    parser.add_argument("--keep", type=int, default=3)
    parser.add_argument("--examples", type=int, default=6000)
    parser.add_argument("--both-sides", action="store_true", help="users with a persona too")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    chance = random.Random(asked.seed)
    dialogues = list(read(asked.data))
    if asked.both_sides:
        dialogues += [dialogue.swapped() for dialogue in dialogues if dialogue.partner_persona]
    pool = list(dict.fromkeys(example.reply for example in examples(dialogues)))
    chance.shuffle(dialogues)
    taken: list[Dialogue] = []
    while dialogues and sum(1 for _ in examples(taken)) < asked.examples:
        taken.append(dialogues.pop())
    found = list(examples(taken))
    lists = [
        [text for text in chance.sample(pool, asked.draw) if text not in example.replies]
        for example in found
    ]
    ranker = zoo.load(asked.model)
    ranker.precision = tasks.fast_precision()
    with Bar("examples") as bar:
        scores = ranker.score_many([example.context for example in found], lists, bar)
    hard = [
        tuple(texts[i] for i in row.topk(min(asked.keep, len(texts))).indices)
        for texts, row in zip(lists, scores, strict=True)
    ]
    write_jsonl(with_candidates(taken, hard), Path(asked.out))


def with_candidates(
    dialogues: Sequence[Dialogue], lists: Sequence[tuple[str, ...]]
) -> list[Dialogue]:
    """Each assistant message with the next list and its own reply as candidates."""
    left = iter(lists)
    return [
        replace(
            dialogue,
            messages=tuple(
                replace(message, candidates=(message.content, *next(left)))
                if message.role == "assistant"
                else message
                for message in dialogue.messages
            ),
        )
        for dialogue in dialogues
    ]


if __name__ == "__main__":
    main()
