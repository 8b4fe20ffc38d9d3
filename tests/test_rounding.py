"""Weights in fewer bits: small on disk, near in memory, and the same after a second saving."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from rejoinder import checkpoint, generators
from rejoinder.config import GeneratorConfig, ModelConfig
from rejoinder.rounding import FACTORS, rounded, unrounded
from rejoinder.schema import Dialogue, Message
from rejoinder.text import TextFormat

STYLE = TextFormat(max_context=44, max_reply=16)
ASKED = Dialogue((Message("user", "do you like tea ?"),))
LISTED = ["i like tea .", "no .", "my brother likes films too ."]


def test_whole_numbers_are_near_and_take_a_quarter() -> None:
    torch.manual_seed(0)
    weights = {"a": torch.randn(64, 100) * 3, "b": torch.randn(64), "n": torch.arange(5)}
    written = rounded(weights, torch.int8)
    assert written["a"].dtype == torch.int8
    assert written["a" + FACTORS].shape == (64,)
    assert written["b"].dtype == torch.float16
    assert written["n"].dtype == torch.int64
    again = unrounded(written)
    assert again.keys() == weights.keys()
    step = weights["a"].abs().amax(1, keepdim=True) / 127
    assert ((again["a"] - weights["a"]).abs() <= 0.501 * step).all()
    assert rounded(again, torch.int8)["a"].equal(written["a"])


def test_a_row_of_zeros_stays_one() -> None:
    weights = {"a": torch.zeros(64, 64)}
    assert unrounded(rounded(weights, torch.int8))["a"].equal(weights["a"])


def test_without_a_width_all_is_as_it_was() -> None:
    weights = {"a": torch.randn(64, 100)}
    assert rounded(weights, None)["a"] is weights["a"]


@pytest.mark.parametrize("dtype", [None, torch.float16, torch.int8])
def test_frozen_word_vectors_are_not_saved(
    base: Path, tmp_path: Path, dtype: torch.dtype | None
) -> None:
    config = GeneratorConfig(base=str(base), lora=0, freeze_embeddings=True)
    made = generators.fresh(config, STYLE, trainable=True)
    with torch.no_grad():
        made.module.choice.weight.add_(1.0)
        for name, weight in made.module.body.named_parameters():
            if "layer.0" in name:
                weight.add_(0.01)
    generators.save(made, tmp_path / "one", dtype=dtype)
    with safe_open(tmp_path / "one" / "model.safetensors", "pt") as file:
        assert not any("word_embeddings" in name for name in file.keys())  # noqa: SIM118
        assert any("layer.0" in name for name in file.keys())  # noqa: SIM118
    again = generators.load(tmp_path / "one")
    near = {None: 1e-6, torch.float16: 1e-2, torch.int8: 5e-2}[dtype]
    torch.testing.assert_close(
        again.scores(ASKED, LISTED), made.scores(ASKED, LISTED), atol=near, rtol=near
    )
    generators.save(again, tmp_path / "two", dtype=dtype)
    with safe_open(tmp_path / "two" / "model.safetensors", "pt") as file:
        assert not any("word_embeddings" in name for name in file.keys())  # noqa: SIM118


def test_word_vectors_that_were_learned_once_are_kept(base: Path, tmp_path: Path) -> None:
    """Frozen later, they are still not those of the base."""
    learned = generators.fresh(GeneratorConfig(base=str(base), lora=0), STYLE, trainable=True)
    with torch.no_grad():
        learned.module.body.words.add_(0.5)
    generators.save(learned, tmp_path / "learned")
    config = GeneratorConfig(base=str(base), lora=0, freeze_embeddings=True)
    heir, _, _ = generators.initialise(tmp_path / "learned", config)
    generators.save(heir, tmp_path / "heir")
    again = generators.load(tmp_path / "heir")
    assert again.module.body.words.equal(learned.module.body.words)
    config = replace(config, freeze_embeddings=True)
    third, fresh, _ = generators.initialise(tmp_path / "heir", config)
    assert third.module.body.words.equal(learned.module.body.words)
    assert not fresh


def test_a_ranker_leaves_frozen_word_vectors_out_too(base: Path, tmp_path: Path) -> None:
    config = ModelConfig(base=str(base), lora=0, freeze_embeddings=True)
    made = checkpoint.fresh(config, STYLE, trainable=True)
    checkpoint.save(made, tmp_path / "one")
    with safe_open(tmp_path / "one" / "model.safetensors", "pt") as file:
        assert not any("word_embeddings" in name for name in file.keys())  # noqa: SIM118
    again = checkpoint.load(tmp_path / "one")
    torch.testing.assert_close(again.scores(ASKED, LISTED), made.scores(ASKED, LISTED))
