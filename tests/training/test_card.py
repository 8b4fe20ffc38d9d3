"""The card of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rejoinder.evaluation import Report
from rejoinder.ranker import TextRanker
from rejoinder.training.card import card

Make = Callable[..., TextRanker]
ORIGIN: dict[str, Any] = {
    "command": "rejoinder train poly --data a.txt",
    "data": ["a.txt", "b.txt"],
    "dev": "dev.txt",
    "examples": 12,
    "init_model": None,
    "torch": "2.0",
    "transformers": "5.0",
    "python": "3.11",
}
REPORT = Report(0.71234, 0.9, 0.95, 0.81, 1.7, 0.6, 0.68, 0.74, 1000, 20.0, 3.0)


@pytest.mark.parametrize("kind", ["bi", "poly", "cross"])
def test_a_card_says_what_it_is_and_how_good(make: Make, kind: str) -> None:
    text = card(make(kind=kind, lora=4), "mine", ORIGIN, REPORT)
    assert text.startswith(f"# mine\n\nA {kind}-encoder that scores")
    for part in (
        "| data | a.txt, b.txt (12 examples) |",
        "| command | `rejoinder train poly --data a.txt` |",
        "| started from | the base |",
        "| weights | adapters of rank 4, 0.0 M trained |",
        "| development set | dev.txt, 1000 examples spread over it, 20 candidates each |",
        "| hits@1 | 0.712 (95 % interval 0.680 to 0.740) |",
        "| MRR | 0.810 |",
    ):
        assert part in text


def test_a_card_without_dev_data_gives_no_scores(make: Make) -> None:
    text = card(make(), "mine", ORIGIN | {"init_model": "old"}, None)
    assert "hits@1" not in text
    assert "| started from | old |" in text
    assert "| weights | all weights, " in text
