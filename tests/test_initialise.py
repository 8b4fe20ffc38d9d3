"""Training that begins with another model's weights: what is taken up, fresh, or left behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rejoinder import checkpoint
from rejoinder.config import Kind, ModelConfig
from rejoinder.models.rankers import BiEncoder, CrossEncoder, PolyEncoder
from rejoinder.ranker import TextRanker

Make = Callable[..., TextRanker]
Scored = Callable[[TextRanker], Tensor]


def initialised(
    make: Make, tmp_path: Path, old: dict[str, Any], new: dict[str, Any]
) -> tuple[TextRanker, TextRanker, list[str]]:
    before = make(**old)
    checkpoint.save(before, tmp_path / "old")
    after, fresh, _ = checkpoint.initialise(tmp_path / "old", replace(before.config, **new))
    return before, after, fresh


@pytest.mark.parametrize("lora", [0, 4])
@pytest.mark.parametrize(
    ("old", "new", "fresh"),
    [
        ({"kind": "bi"}, {"kind": "bi"}, []),
        ({"kind": "bi"}, {"kind": "poly", "poly": "codes"}, ["codes", "sharpness.log"]),
        ({"kind": "bi"}, {"kind": "poly", "poly": "all"}, ["sharpness.log"]),
        ({"kind": "poly"}, {"kind": "bi"}, []),
        ({"kind": "poly"}, {"kind": "cross"}, ["linear.bias", "linear.weight"]),
        ({"kind": "bi"}, {"kind": "cross"}, ["linear.bias", "linear.weight", "sharpness.log"]),
        ({"kind": "cross"}, {"kind": "bi"}, []),
        ({"kind": "cross"}, {"kind": "poly"}, []),
        ({"kind": "cross"}, {"kind": "cross"}, []),
        ({"kind": "cross"}, {"kind": "cross", "towers": "separate"}, []),
        ({"kind": "cross", "towers": "separate"}, {"kind": "cross"}, []),
    ],
)
def test_a_new_kind_takes_up_the_tower_and_names_what_is_fresh(
    make: Make,
    tmp_path: Path,
    old: dict[str, Any],
    new: dict[str, Any],
    fresh: list[str],
    lora: int,
) -> None:
    before, after, named = initialised(make, tmp_path, old | {"lora": lora}, new)
    assert named == fresh
    assert after.config.kind == new["kind"]
    towers = []
    for one in (before, after):
        name = "encoder" if one.is_cross else "context_encoder"
        towers.append(getattr(one.module, name).state_dict())
    assert list(towers[0]) == list(towers[1])
    assert all(towers[0][name].equal(towers[1][name]) for name in towers[0])
    assert after.module.scale.log.equal(before.module.scale.log)
    learned = {n for n, p in after.module.named_parameters() if p.requires_grad}
    assert bool([n for n in learned if "lora" in n]) == (lora > 0)


@pytest.mark.parametrize("kind", ["bi", "poly", "cross"])
def test_of_the_same_kind_again_it_gives_the_same_scores(
    make: Make, tmp_path: Path, scored: Scored, kind: str
) -> None:
    before, after, _ = initialised(make, tmp_path, {"kind": kind, "lora": 4}, {"kind": kind})
    assert scored(after).equal(scored(before))


@pytest.mark.parametrize("lora", [0, 4])
def test_a_cross_encoder_starts_as_the_poly_encoder_that_it_came_from(
    make: Make, tmp_path: Path, scored: Scored, lora: int
) -> None:
    old, new = {"kind": "poly", "poly": "all", "lora": lora}, {"kind": "cross"}
    before, after, _ = initialised(make, tmp_path, old, new)
    torch.testing.assert_close(scored(after), scored(before), rtol=1e-5, atol=1e-4)


APART = {"kind": "cross", "towers": "separate"}


@pytest.mark.parametrize("head", ["both", "prefix"])
def test_reading_apart_starts_as_the_poly_encoder_and_can_be_kept(
    make: Make, tmp_path: Path, scored: Scored, head: str
) -> None:
    new = APART | {"head": head, "freeze_apart": True}
    before, after, fresh = initialised(make, tmp_path, {"kind": "poly", "poly": "all"}, new)
    assert fresh == ["linear.bias", "linear.weight"]
    torch.testing.assert_close(scored(after), scored(before), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", ["bi", "poly"])
def test_a_poly_encoder_takes_up_what_reads_apart(make: Make, tmp_path: Path, kind: Kind) -> None:
    before = make(**APART)
    checkpoint.save(before, tmp_path / "old")
    after, _, left = checkpoint.initialise(tmp_path / "old", replace(before.config, kind=kind))
    assert after.config.towers == "shared"
    assert left[0] == "encoder"
    assert isinstance(after.module, BiEncoder | PolyEncoder)
    assert isinstance(before.module, CrossEncoder)
    took = after.module.context_encoder.state_dict()
    gave = before.module.apart_encoder.state_dict()
    assert all(took[name].equal(gave[name]) for name in gave)


def test_separate_towers_of_a_cross_encoder_stay(
    make: Make, tmp_path: Path, scored: Scored
) -> None:
    old = APART | {"lora": 4}
    before, after, fresh = initialised(make, tmp_path, old, {"towers": "shared"})
    assert after.config.towers == "separate"  # nobody asked otherwise
    assert fresh == []
    assert scored(after).equal(scored(before))


def test_both_towers_are_taken_up(make: Make, tmp_path: Path) -> None:
    before, after, fresh = initialised(
        make, tmp_path, {"kind": "bi", "towers": "separate"}, {"kind": "poly", "towers": "shared"}
    )
    assert after.config.towers == "separate"
    assert fresh == ["sharpness.log"]
    name = "candidate_encoder.model.embeddings.word_embeddings.weight"
    assert after.module.state_dict()[name].equal(before.module.state_dict()[name])


def test_shapes_that_differ_are_not_taken_up(make: Make, tmp_path: Path) -> None:
    old = {"kind": "poly", "poly": "codes", "codes": 4}
    before, after, _ = initialised(make, tmp_path, old, {"codes": 5})
    assert after.config.codes == 4  # what a model of the same kind has, where nobody asks otherwise
    wanted = replace(before.config, codes=5)
    ranker, fresh, left = checkpoint.initialise(tmp_path / "old", wanted, given=["codes"])
    assert ranker.config.codes == 5
    assert (fresh, left) == (["codes"], ["codes"])  # both are named


def test_what_is_left_behind_is_named(make: Make, tmp_path: Path) -> None:
    checkpoint.save(make(kind="poly", poly="codes", towers="separate"), tmp_path / "old")
    wanted = ModelConfig(kind="cross")
    _, _, left = checkpoint.initialise(tmp_path / "old", wanted)
    assert left == ["candidate_encoder", "codes"]
    poly = ModelConfig(kind="poly", poly="all")
    ranker, _, left = checkpoint.initialise(tmp_path / "old", poly)
    assert (ranker.config.poly, left) == ("codes", [])
    ranker, _, left = checkpoint.initialise(tmp_path / "old", poly, given=["poly"])
    assert (ranker.config.poly, left) == ("all", ["codes"])


def test_pooling_goes_with_the_weights(make: Make, tmp_path: Path) -> None:
    checkpoint.save(make(kind="bi", pooling="first"), tmp_path / "old")
    ranker, _, _ = checkpoint.initialise(tmp_path / "old", ModelConfig(kind="poly"))
    assert ranker.config.pooling == "first"
    ranker, _, _ = checkpoint.initialise(
        tmp_path / "old", ModelConfig(kind="poly", pooling="mean"), given=["pooling"]
    )
    assert ranker.config.pooling == "mean"
