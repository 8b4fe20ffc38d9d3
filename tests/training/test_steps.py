"""The optimizer, and the learning rate of every step."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch

from rejoinder.config import TrainConfig
from rejoinder.training.steps import Rate, make_optimizer


@pytest.mark.parametrize(
    ("name", "kind"), [("adamw", torch.optim.AdamW), ("adamax", torch.optim.Adamax)]
)
def test_the_optimizer_has_the_settings(
    name: Literal["adamw", "adamax"], kind: type[torch.optim.Optimizer]
) -> None:
    config = TrainConfig(
        optimizer=name,
        lr=0.5,
        betas=(0.1, 0.2),
        eps=1e-3,
        weight_decay=0.3,
    )
    optimizer = make_optimizer([torch.nn.Parameter(torch.ones(2))], config)
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    found = {name: group[name] for name in ("lr", "betas", "eps", "weight_decay")}
    assert found == {"lr": 0.5, "betas": (0.1, 0.2), "eps": 1e-3, "weight_decay": 0.3}


def test_sgd_has_its_momentum() -> None:
    config = TrainConfig(optimizer="sgd", lr=0.5, momentum=0.9, weight_decay=0.3)
    (group,) = make_optimizer([torch.nn.Parameter(torch.ones(2))], config).param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.5, 0.9, 0.3)


def test_scales_learn_faster_and_do_not_decay() -> None:
    weight, scale = torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.tensor(3.0))
    groups = make_optimizer([weight, scale], TrainConfig(weight_decay=0.3)).param_groups
    assert [group["params"] for group in groups] == [[weight], [scale]]
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    assert [group["factor"] for group in groups] == [1.0, 50.0]


def rates(steps: int, **settings: Any) -> list[float]:
    rate = Rate(TrainConfig(lr=1.0, **settings), steps)
    return [rate.at(step) for step in range(steps)]


def test_linear_goes_up_in_warmup_and_down_to_almost_nothing() -> None:
    found = rates(8, warmup=3, schedule="linear")
    assert found == pytest.approx([1 / 3, 2 / 3, 1, 1, 4 / 5, 3 / 5, 2 / 5, 1 / 5])


def test_cosine_falls_slowly_at_both_ends() -> None:
    found = rates(5, warmup=1, schedule="cosine")
    assert found == pytest.approx([1.0, 1.0, 0.8536, 0.5, 0.1464], abs=1e-4)


def test_inverse_sqrt_halves_after_four_times_the_warmup() -> None:
    found = rates(16, warmup=4, schedule="inverse-sqrt")
    assert found[:4] == [0.25, 0.5, 0.75, 1.0]
    assert found[4] == pytest.approx((4 / 5) ** 0.5)
    assert found[15] == pytest.approx(0.5)


def test_linear_without_warmup_starts_at_the_top() -> None:
    assert rates(4, warmup=0, schedule="linear") == [1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize("schedule", ["linear", "cosine", "inverse-sqrt", "constant", "plateau"])
def test_a_warmup_longer_than_the_run_only_goes_up(schedule: str) -> None:
    assert rates(3, warmup=6, schedule=schedule) == pytest.approx([1 / 6, 2 / 6, 3 / 6])


def test_constant_stays() -> None:
    assert rates(4, warmup=2, schedule="constant") == [0.5, 1.0, 1.0, 1.0]


def plateau(losses: list[float], patience: int) -> list[float]:
    rate = Rate(TrainConfig(lr=1.0, warmup=0, schedule="plateau", patience=patience, decay=0.5), 9)
    found = []
    for loss in losses:
        rate.validated(loss)
        found.append(rate.at(0))
    return found


def test_plateau_falls_when_patience_is_over() -> None:
    losses = [0.9, 0.8, 0.8, 0.85, 0.7, 0.7, 0.7]
    assert plateau(losses, patience=0) == [1, 1, 0.5, 0.25, 0.25, 0.125, 0.0625]
    assert plateau(losses, patience=1) == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]


def test_only_plateau_listens_to_validations() -> None:
    rate = Rate(TrainConfig(lr=1.0, warmup=0, schedule="constant"), 9)
    for _ in range(5):
        rate.validated(1.0)
    assert rate.at(8) == 1.0


def test_a_plateau_goes_on_from_its_saved_state() -> None:
    config = TrainConfig(lr=1.0, warmup=0, schedule="plateau", patience=1, decay=0.5)
    one, two = Rate(config, 9), Rate(config, 9)
    for loss in (0.9, 0.9):
        one.validated(loss)
    two.restore(one.state())
    for rate in (one, two):
        rate.validated(0.9)
    assert one.at(0) == two.at(0) == 0.5
