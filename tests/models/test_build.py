"""Towers and adapters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn

from rejoinder.config import Kind, ModelConfig
from rejoinder.models.build import add_lora, build, merge_lora, towers
from rejoinder.models.pretrained import Base, find_base
from rejoinder.models.rankers import BiEncoder
from rejoinder.ranker import TextRanker

Make = Callable[..., TextRanker]


@pytest.fixture(scope="module")
def found(base: Path) -> Base:
    return find_base(str(base))


def test_shared_towers_are_one_encoder(found: Base) -> None:
    module = build(ModelConfig(kind="bi", towers="shared"), found)
    assert isinstance(module, BiEncoder)
    assert module.context_encoder is module.candidate_encoder
    assert list(towers(module)) == ["context_encoder"]


def test_separate_towers_start_alike_and_share_nothing(found: Base) -> None:
    module = build(ModelConfig(kind="bi", towers="separate"), found)
    assert list(towers(module)) == ["context_encoder", "candidate_encoder"]
    left, right = (list(tower.parameters()) for tower in towers(module).values())
    for a, b in zip(left, right, strict=True):
        assert a.equal(b)
        assert a.data_ptr() != b.data_ptr()


def test_a_cross_encoder_has_one_tower(found: Base) -> None:
    assert list(towers(build(ModelConfig(kind="cross"), found))) == ["encoder"]


@pytest.mark.parametrize("kind", ["bi", "poly", "cross"])
@pytest.mark.parametrize("shape", ["shared", "separate"])
def test_adapters_sit_on_every_linear_layer_and_nothing_else_of_a_tower_learns(
    found: Base, kind: Kind, shape: Literal["shared", "separate"]
) -> None:
    module = build(ModelConfig(kind=kind, towers=shape, poly="codes"), found)
    linear = {
        f"{tower}.{name}"
        for tower, encoder in towers(module).items()
        for name, layer in encoder.named_modules()
        if isinstance(layer, nn.Linear)
    }
    own = {
        name for name, _ in module.named_parameters() if name.split(".")[0] not in towers(module)
    }
    add_lora(module, rank=4, alpha=8)
    learned = {
        name.replace("base_model.model.", "").replace(".default", ""): p
        for name, p in module.named_parameters()
        if p.requires_grad
    }
    assert len(linear) == 12 * len(towers(module))  # 6 in each of 2 layers
    adapters = {f"{name}.lora_{side}.weight" for name in linear for side in "AB"}
    assert set(learned) == adapters | own
    assert {min(learned[name].shape) for name in adapters} == {4}


def test_fresh_adapters_change_nothing(found: Base) -> None:
    module = build(ModelConfig(kind="cross"), found)
    ids, mask = torch.tensor([[2, 5, 6, 3]]), torch.ones(1, 4, dtype=torch.bool)
    before = towers(module)["encoder"](ids, mask)
    add_lora(module, rank=4, alpha=8)
    torch.testing.assert_close(towers(module)["encoder"](ids, mask), before)


def test_merging_adds_the_product_of_both_halves() -> None:
    torch.manual_seed(0)
    weight, a, b = torch.randn(5, 3), torch.randn(2, 3), torch.randn(5, 2)
    weights = {"x.weight": weight.clone(), "x.bias": torch.ones(5), "y.weight": torch.ones(5, 3)}
    merge_lora(weights, {"x.lora_A.weight": a, "x.lora_B.weight": b}, 0.5)
    torch.testing.assert_close(weights["x.weight"], weight + 0.5 * b @ a)
    assert weights["y.weight"].equal(torch.ones(5, 3))
    assert weights["x.bias"].equal(torch.ones(5))


def test_an_adapter_without_its_other_half() -> None:
    with pytest.raises(KeyError, match=r"x\.lora_B\.weight"):
        merge_lora({"x.weight": torch.ones(5, 3)}, {"x.lora_A.weight": torch.ones(2, 3)}, 1.0)
