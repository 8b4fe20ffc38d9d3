"""Replies of one dialogue learned together: contexts that begin alike are read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rejoinder import generators, tasks
from rejoinder.config import GeneratorConfig, TrainConfig
from rejoinder.data import read
from rejoinder.errors import ConfigError
from rejoinder.generator import TextGenerator
from rejoinder.schema import Example
from rejoinder.text import TextFormat
from rejoinder.training import start
from rejoinder.training.batches import Batch, written_batch
from rejoinder.training.source import Listed, listed
from rejoinder.training.stepper import Stepper

from .test_written import close

CONFIG = TrainConfig(
    candidates="inline", by_dialogue=True, batch_size=6, clip=0.0, lr=0.0, weight_decay=0.0
)
CONFIG = replace(CONFIG, precision="fp32", drop_persona=0.0, shuffle_persona=False)


def made(base: Path, **settings: float) -> TextGenerator:
    config = GeneratorConfig(base=str(base), lora=0, choice_dropout=0.0, **settings)  # type: ignore[arg-type]
    found = generators.fresh(config, TextFormat(max_context=44, max_reply=16), trainable=True)
    torch.manual_seed(2)
    for weight in (found.module.added, found.module.choice.weight):
        torch.nn.init.normal_(weight, std=0.4)
    return found


@pytest.fixture
def turns(talk: Path) -> list[Example]:
    return list(start.training_examples(read(talk), both_sides=False))


def gradient(
    generator: TextGenerator, found: Sequence[Example], config: TrainConfig
) -> tuple[float, Tensor]:
    stepper = Stepper(generator, listed(found, generator.tokens, config), 10, say=lambda _: None)
    loss = stepper.step(0)
    return loss, torch.cat([p.grad.flatten() for p in stepper.trained if p.grad is not None])


def batch(generator: TextGenerator, found: Sequence[Example], config: TrainConfig) -> Batch:
    data = listed(found, generator.tokens, config)
    return written_batch(data, data.batch(0), 0)


def test_read_once_they_teach_what_they_teach_one_by_one(base: Path, turns: list[Example]) -> None:
    generator = made(base)
    together = batch(generator, turns[:6], CONFIG)
    assert len(together.context[0]) == 3
    assert len(together.gold) == 6
    loss, whole = gradient(generator, turns[:6], CONFIG)
    alone = replace(CONFIG, batch_size=1, update_every=6)
    assert len(batch(generator, turns[:6], alone).context[0]) == 1
    again, parts = gradient(generator, turns[:6], alone)
    assert again == pytest.approx(loss, rel=1e-5)
    assert whole.abs().max() > 0
    close(parts, whole)


def test_what_was_cut_away_is_read_anew(base: Path, turns: list[Example]) -> None:
    """The second context does not begin with the first one, if that was cut."""
    generator = made(base)
    generator.layout.style = replace(generator.layout.style, max_history=1)
    assert len(batch(generator, turns[:6], CONFIG).context[0]) >= 5  # one message is empty
    loss, whole = gradient(generator, turns[:6], CONFIG)
    again, parts = gradient(generator, turns[:6], replace(CONFIG, batch_size=2, update_every=3))
    assert again == pytest.approx(loss, rel=1e-5)
    close(parts, whole)


def test_a_dialogue_stays_together(base: Path, turns: list[Example]) -> None:
    data = listed(turns, made(base).tokens, replace(CONFIG, batch_size=2))
    orders = []
    for epoch in range(2):
        pairs = [data.batch(epoch * 13 + number) for number in range(13)]
        assert all(
            b.context.messages[:2] == (*a.context.messages, b.context.messages[1]) for a, b in pairs
        )
        orders.append([a.reply for a, _ in pairs])
    assert sorted(orders[0]) == sorted(orders[1])
    assert orders[0] != orders[1]


def test_a_dialogue_has_one_order_of_its_persona(base: Path, turns: list[Example]) -> None:
    about = tuple(f"i like number {i} ." for i in range(3))
    found = [replace(one, context=replace(one.context, persona=about)) for one in turns[:6]]
    config = replace(CONFIG, shuffle_persona=True, drop_persona=0.5)
    generator = made(base)
    generator.layout.style = replace(generator.layout.style, max_context=60)
    for seed in range(5):
        together = batch(generator, found, replace(config, seed=seed))
        assert len(together.context[0]) == 3


def test_with_its_loss_the_context_is_learned(base: Path, turns: list[Example]) -> None:
    generator = made(base, context_coef=1.5)
    loss, _ = gradient(generator, turns[1:2], CONFIG)
    context = turns[1].context
    plain, _ = gradient(made(base), turns[1:2], CONFIG)
    row = generator.layout.contexts([context])[0]
    ids = torch.tensor([row])
    with torch.no_grad():
        from rejoinder.models.generator import Rows

        generator.module.eval()
        states = generator.module(Rows(ids, torch.ones_like(ids, dtype=torch.bool)))
        shares = generator.module.next_tokens(states[0, :-1]).log_softmax(-1)
    cost = -shares[torch.arange(len(row) - 1), torch.tensor(row[1:])].mean()
    assert loss - plain == pytest.approx(1.5 * float(cost), rel=1e-4)


def test_without_a_choice_no_candidates_are_read(base: Path, turns: list[Example]) -> None:
    stepper = Stepper(
        made(base, mc_coef=0.0), listed(turns, made(base).tokens, CONFIG), 10, say=lambda _: None
    )
    stepper.step(0)
    assert stepper.negatives == 0


def test_one_of_each_dialogue_and_all_replies_as_candidates(talk: Path, base: Path) -> None:
    every = list(start.training_examples(read(talk), both_sides=False))
    last = list(start.training_examples(read(talk), both_sides=False, one_per_dialogue=True))
    assert last == every[1::2]
    settings = replace(CONFIG, one_per_dialogue=True, candidates="batch")
    source = start._source([talk], read, made(base).tokens, settings)
    assert isinstance(source, Listed)
    assert set(source.pool) == {one.reply for one in every}


def test_a_stream_has_no_dialogues() -> None:
    with pytest.raises(ConfigError, match="by_dialogue"):
        TrainConfig(stream=True, by_dialogue=True)


def test_what_nothing_learns_does_not_choose_the_best(
    talk: Path, base: Path, tmp_path: Path
) -> None:
    def train(**more: Any) -> None:
        tasks.train(
            "generator",
            talk,
            dev=talk,
            out=tmp_path / "run",
            base=str(base),
            max_context=40,
            max_reply=12,
            max_steps=1,
            report=False,
            **more,
        )

    with pytest.raises(ConfigError, match="with mc_coef 0 nothing learns to choose"):
        train(mc_coef=0.0)
    with pytest.raises(ConfigError, match="preset is 'x'; known: transfertransfo"):
        train(preset="x")
    train(mc_coef=0.0, metric="perplexity")
    bare = tmp_path / "bare.jsonl"
    bare.write_text(
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
    )
    with pytest.raises(ConfigError, match="no message of the data has candidates to show"):
        tasks.train(
            "generator",
            bare,
            out=tmp_path / "new",
            base=str(base),
            hints=2,
            max_context=40,
            max_reply=12,
        )
