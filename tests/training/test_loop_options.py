"""Options of a training that reach far: fp16, hard negatives, shared word vectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rejoinder import checkpoint
from rejoinder.config import TrainConfig
from rejoinder.models.build import towers
from rejoinder.ranker import TextRanker
from rejoinder.schema import Example

from .test_loop import SMALL, StopAt, log, position, run, same, train, weights

Make = Callable[..., TextRanker]


def test_fp16_learns_and_resumes(make: Make, lessons: list[Example], tmp_path: Path) -> None:
    """Slow on a processor, but there; the factor on the loss is saved with the run."""
    settings: dict[str, Any] = {"precision": "fp16", "max_steps": 8, "save_every": 4}
    run(make, lessons, tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        run(make, lessons, tmp_path / "broken", writer=StopAt(6), log_every=1, **settings)
    assert position(tmp_path / "broken")["scaler"]["scale"] > 1
    run(make, lessons, tmp_path / "broken", fresh=1, **settings)
    assert same(tmp_path / "whole" / "last", tmp_path / "broken" / "last")


@pytest.mark.parametrize(
    ("shape", "settings"),
    [("bi", {}), ("poly-lora", {"candidates": "batch-all"}), ("cross", {"mine_draw": 6})],
)
def test_hard_negatives_are_searched_again_and_resumed(
    make: Make, lessons: list[Example], tmp_path: Path, shape: str, settings: dict[str, Any]
) -> None:
    settings = {"candidates": "batch-hard", "mine_every": 5, "mine_keep": 2, **settings}
    run(make, lessons, tmp_path / "whole", shape, **settings)
    rows = [row for row in log(tmp_path / "whole") if "mined" in row]
    assert [row["step"] for row in rows] == [5, 10]
    assert all(0 < row["mined"]["negatives"] <= 2 for row in rows)
    with pytest.raises(KeyboardInterrupt):
        run(make, lessons, tmp_path / "broken", shape, writer=StopAt(9), log_every=1, **settings)
    run(make, lessons, tmp_path / "broken", shape, fresh=1, **settings)
    for part in ("last", "best"):
        assert same(tmp_path / "whole" / part, tmp_path / "broken" / part)


def test_towers_that_share_word_vectors(make: Make, lessons: list[Example], tmp_path: Path) -> None:
    ranker = make(kind="bi", towers="separate", share_embeddings=True)
    assert train(ranker, lessons, [], TrainConfig(**SMALL), tmp_path) is None
    saved = weights(tmp_path / "best")
    words = [name for name in saved if "word_embeddings" in name]
    assert words == ["context_encoder.model.embeddings.word_embeddings.weight"]
    loaded = checkpoint.load(tmp_path)
    both = towers(loaded.module)
    assert len(both) == 2
    one, two = (tower.model.get_input_embeddings().weight for tower in both.values())  # type: ignore[operator]
    assert one is two
    dialogue = lessons[0].context
    texts = [example.reply for example in lessons[:3]]
    torch.testing.assert_close(loaded.scores(dialogue, texts), ranker.scores(dialogue, texts))
