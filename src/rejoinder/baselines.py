"""What any trained ranker must beat: BM25, and the base encoder as it comes.

Both score candidate lists the way a ranker does, so they stand in every table beside it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rejoinder import checkpoint
from rejoinder.config import ModelConfig
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue
from rejoinder.text import TextFormat
from rejoinder.words import words

BASELINES = ("bm25", "untuned")
K1, B = 1.2, 0.75  # the usual constants (Robertson and Zaragoza 2009, section 3.6)


class BM25:
    """Words that persona and history share with a candidate, rare ones counting more."""

    name = "bm25"

    def score_many(
        self,
        dialogues: Sequence[Dialogue],
        lists: Sequence[Sequence[str]],
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Tensor]:
        """Scores of every dialogue's own candidates; word frequencies are those of all of them."""
        counts = {text: Counter(words(text)) for texts in lists for text in texts}
        having = Counter(word for count in counts.values() for word in count)
        mean = sum(sum(count.values()) for count in counts.values()) / max(1, len(counts))
        rarity = {
            word: math.log(1 + (len(counts) - n + 0.5) / (n + 0.5)) for word, n in having.items()
        }
        found = []
        for dialogue, texts in zip(dialogues, lists, strict=True):
            asked = set(
                words(" ".join([*dialogue.persona, *(m.content for m in dialogue.messages)]))
            )
            found.append(
                torch.tensor([_score(asked, counts[text], rarity, mean) for text in texts])
            )
            if progress:
                progress(len(found), len(dialogues))
        return found


def _score(asked: set[str], count: Counter[str], rarity: dict[str, float], mean: float) -> float:
    length = sum(count.values())
    damping = K1 * (1 - B + B * length / max(mean, 1e-9))
    shared = asked & count.keys()
    return sum(rarity[word] * count[word] * (K1 + 1) / (count[word] + damping) for word in shared)


def untuned(base: str = "minilm", max_context: int = 160) -> TextRanker:
    """The pretrained base as a bi-encoder, not trained on dialogues: mean vectors, no marks."""
    plain = TextFormat(
        persona_mark="", user_mark="", assistant_mark="", system_mark="", max_context=max_context
    )
    return checkpoint.fresh(ModelConfig(kind="bi", base=base, lora=0), plain)
