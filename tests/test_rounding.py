"""Weights in fewer bits: small on disk, near in memory, and the same after a second saving."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from rejoinder import checkpoint, generators
from rejoinder.config import GeneratorConfig, ModelConfig
from rejoinder.errors import ConfigError
from rejoinder.rounding import FACTORS, rounded, unrounded
from rejoinder.schema import Dialogue, Message
from rejoinder.text import TextFormat

ROOT = Path(__file__).parents[1]
low_rank = runpy.run_path(str(ROOT / "tools" / "low_rank_words.py"))["low_rank"]
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


def test_what_is_learned_on_top_of_word_vectors(base: Path, tmp_path: Path) -> None:
    """Merged or apart, read and written by, saved small, and taken up again."""
    config = GeneratorConfig(base=str(base), lora=0, freeze_embeddings=True, words_rank=3)
    plain = generators.fresh(replace(config, words_rank=0), STYLE, trainable=True)
    made = generators.fresh(config, STYLE, trainable=True)
    assert made.module.words.equal(plain.module.body.words)
    torch.manual_seed(1)
    for weight in (made.module.shift_out, made.module.choice.weight):
        assert weight is not None
        torch.nn.init.normal_(weight)
    generators.save(made, tmp_path / "one")
    with safe_open(tmp_path / "one" / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert {"shift_in", "shift_out"} <= names
    assert not any("word_embeddings" in name for name in names)
    merged = generators.load(tmp_path / "one")
    assert merged.module.shift_in is None
    lists = [LISTED]
    torch.testing.assert_close(merged.scores(ASKED, LISTED), made.scores(ASKED, LISTED))
    torch.testing.assert_close(
        merged.likelihoods([ASKED], lists)[0], made.likelihoods([ASKED], lists)[0]
    )
    assert not torch.allclose(
        plain.likelihoods([ASKED], lists)[0], made.likelihoods([ASKED], lists)[0]
    )
    generators.save(merged, tmp_path / "two")
    apart = generators.load(tmp_path / "two", trainable=True)
    assert apart.module.shift_in is not None
    torch.testing.assert_close(apart.scores(ASKED, LISTED), made.scores(ASKED, LISTED))
    heir, fresh, left = generators.initialise(tmp_path / "two", GeneratorConfig(lm_coef=1.0))
    assert (heir.config.words_rank, heir.config.freeze_embeddings) == (3, True)
    assert (fresh, left) == ([], [])
    torch.testing.assert_close(heir.scores(ASKED, LISTED), made.scores(ASKED, LISTED))


def test_a_rank_needs_vectors_that_are_kept() -> None:
    with pytest.raises(ConfigError, match="words_rank is 3, but all word vectors are learned"):
        GeneratorConfig(lora=0, words_rank=3)


def test_learned_word_vectors_become_a_small_product(base: Path, tmp_path: Path) -> None:
    """With enough rank nothing changes; with less, what comes often changes least."""
    made = generators.fresh(GeneratorConfig(base=str(base), lora=0), STYLE, trainable=True)
    torch.manual_seed(1)
    words = made.module.body.words
    with torch.no_grad():
        words.add_(torch.randn_like(words) * 0.1)
        made.module.choice.weight.normal_()
    counts = torch.zeros(len(words))
    counts[10:14] = 1e6
    whole = low_rank(made, 16, counts)
    assert whole.module.words.allclose(words, atol=1e-5)
    torch.testing.assert_close(whole.scores(ASKED, LISTED), made.scores(ASKED, LISTED))
    few = low_rank(made, 4, counts)
    miss = (few.module.words - words).norm(dim=1)
    assert miss[10:14].max() < 1e-3 < miss[20:].mean()
    with pytest.raises(ConfigError, match="nothing to do"):
        low_rank(few, 2, counts)
