"""How well the cosine of two candidate vectors tells rewordings from replies of other meaning.

python bench/likeness.py [MODEL ...]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

import torch

from rejoinder import baselines, zoo
from rejoinder.diversity import vector_likeness
from rejoinder.ranker import TextRanker

SAME = (
    (
        "You can pay by card, by bank transfer or on invoice.",
        "You can pay by card, by bank transfer, or on invoice.",
    ),
    (
        "I am sorry to hear that. I will send you a new one today.",
        "Oh, I am sorry to hear that. I will send you a new one today.",
    ),
    ("You are welcome. Have a nice day!", "You're welcome, have a nice day!"),
    ("You are welcome!", "You're welcome!"),
    ("You are welcome.", "you're welcome!"),
    (
        "Of course. You can send anything back within 30 days, free of charge.",
        "You can send anything back within thirty days, free of charge.",
    ),
    ("Could you give me your order number, please?", "What is your order number, please?"),
    ("I will send you a new one today.", "A new one will be sent to you today."),
)
OTHER = (
    ("You can send it back.", "You cannot send it back."),
    ("Yes, we deliver to Norway.", "No, we do not deliver to Norway."),
    ("We are open on Monday.", "We are open on Sunday."),
    ("Delivery takes two days.", "Delivery takes five days."),
    ("I have cancelled it.", "I have changed it."),
    ("We open at nine.", "We close at nine."),
)


def cosines(ranker: TextRanker, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """Of each pair, lowest first."""
    likeness = [vector_likeness(ranker.encode_candidates(pair))[0, 1] for pair in pairs]
    return sorted(round(float(one), 3) for one in likeness)


def main() -> None:
    """Measure and print, one line for each model."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("models", nargs="*", default=["persona-poly", "persona-bi", "untuned"])
    for name in parser.parse_args().models:
        ranker = baselines.untuned() if name == "untuned" else zoo.load_ranker(name)
        same, other = cosines(ranker, SAME), cosines(ranker, OTHER)
        above = sum(one > other[-1] for one in same)
        row: dict[str, object] = {"bench": "likeness", "model": name, "same": same, "other": other}
        row["same_above_all_other"] = above
        print(json.dumps(row | {"torch": torch.__version__, "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
