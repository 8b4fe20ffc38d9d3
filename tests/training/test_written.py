"""A generator's step: both losses by hand, in however many parts and batches."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rejoinder import generators
from rejoinder.config import GeneratorConfig, TrainConfig, from_mapping
from rejoinder.decoding import Decoding
from rejoinder.generator import TextGenerator
from rejoinder.saved import read_config
from rejoinder.schema import Example
from rejoinder.text import TextFormat
from rejoinder.training import loop
from rejoinder.training.source import listed
from rejoinder.training.stepper import Stepper

STYLE = TextFormat(max_context=44, max_reply=16)
PLAIN = TrainConfig(
    drop_persona=0.0, shuffle_persona=False, negatives=3, batch_size=6, clip=0.0, precision="fp32"
)


@pytest.fixture(params=[0, 4])
def generator(request: pytest.FixtureRequest, base: Path) -> TextGenerator:
    config = GeneratorConfig(base=str(base), lora=request.param, lora_alpha=8, choice_dropout=0.0)
    made = generators.fresh(config, STYLE, trainable=True)
    torch.manual_seed(2)
    for name, weight in made.module.named_parameters():
        if weight.requires_grad and "body" not in name:
            nn.init.normal_(weight, std=0.4)
    return made


def gradient(
    generator: TextGenerator, lessons: list[Example], config: TrainConfig
) -> tuple[float, Tensor]:
    """The loss of a step that moves nothing, and all gradients in a row."""
    data = listed(lessons, generator.tokens, replace(config, lr=0.0, weight_decay=0.0))
    stepper = Stepper(generator, data, 10, say=lambda _: None)
    loss = stepper.step(0)
    return loss, torch.cat(
        [torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in stepper.trained]
    )


def close(one: Tensor, two: Tensor) -> None:
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5 * float(two.abs().max()))


def test_the_loss_is_both_of_what_it_says_of_each_reply(
    generator: TextGenerator, lessons: list[Example]
) -> None:
    chosen = [replace(one, candidates=tuple(x.reply for x in lessons[:5])) for one in lessons[:6]]
    found, _ = gradient(generator, chosen, replace(PLAIN, candidates="inline", negatives=0))
    generator.module.eval()
    lists = [
        [one.reply, *(text for text in one.candidates if text.lower() != one.reply.lower())]
        for one in chosen
    ]
    contexts = [one.context for one in chosen]
    scores = generator.score_many(contexts, lists)
    choice = sum(float(s.logsumexp(0) - s[0]) for s in scores) / len(chosen)
    likely = generator.likelihoods(contexts, [[one.reply] for one in chosen])
    counts = [len(generator.layout.reply(one.reply)) for one in chosen]
    words = -sum(float(m[0]) * n for m, n in zip(likely, counts, strict=True)) / sum(counts)
    assert found == pytest.approx(2 * words + choice, rel=1e-4)


@pytest.mark.parametrize("budget", [1, 60, 200])
def test_however_many_parts_the_gradient_is_the_same(
    generator: TextGenerator, lessons: list[Example], budget: int
) -> None:
    loss, whole = gradient(generator, lessons, PLAIN)
    again, parts = gradient(generator, lessons, replace(PLAIN, max_tokens=budget))
    assert again == pytest.approx(loss, rel=1e-5)
    assert whole.abs().max() > 0
    close(parts, whole)


def test_several_batches_of_a_step_are_one_large_batch(
    generator: TextGenerator, lessons: list[Example]
) -> None:
    """Tokens weigh alike over the whole step, however they fall into batches."""
    own = [replace(one, candidates=tuple(x.reply for x in lessons[:4])) for one in lessons]
    config = replace(PLAIN, candidates="inline", negatives=0)
    loss, whole = gradient(generator, own, config)
    again, parts = gradient(generator, own, replace(config, batch_size=2, update_every=3))
    assert again == pytest.approx(loss, rel=1e-6)
    close(parts, whole)


@pytest.mark.parametrize(("coef", "still"), [("lm_coef", "choice"), ("mc_coef", "")])
def test_each_loss_has_its_weight(
    base: Path, lessons: list[Example], coef: str, still: str
) -> None:
    coefs = {"lm_coef": 0.0, "mc_coef": 0.0, coef: 1.0}
    config = from_mapping(GeneratorConfig, {"base": str(base), "lora": 4, **coefs}, "here")
    made = generators.fresh(config, STYLE, trainable=True)
    loss, _ = gradient(made, lessons, PLAIN)
    assert loss > 0
    moved = made.module.choice.weight.grad
    assert (moved is None or not moved.any()) == bool(still)


def test_steps_lower_both_losses(generator: TextGenerator, lessons: list[Example]) -> None:
    data = listed(lessons, generator.tokens, replace(PLAIN, lr=1e-2, warmup=2, clip=1.0))
    stepper = Stepper(generator, data, 40, say=lambda _: None)
    lists = [[one.reply] for one in lessons]
    contexts = [one.context for one in lessons]
    before = torch.cat(generator.likelihoods(contexts, lists)).mean()
    losses = [stepper.step(number) for number in range(40)]
    generator.module.eval()
    after = torch.cat(generator.likelihoods(contexts, lists)).mean()
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert after > before + 0.5


def test_a_run_validates_saves_and_goes_on(
    generator: TextGenerator, lessons: list[Example], tmp_path: Path
) -> None:
    """As an unbroken one; the best checkpoint is the one of the lowest perplexity."""
    config = replace(PLAIN, lr=1e-2, warmup=2, metric="perplexity", eval_every=2, log_every=1)
    start = {name: tensor.clone() for name, tensor in generator.module.state_dict().items()}

    def run(out: str, steps: int) -> TextGenerator:
        generator.module.load_state_dict(start)
        settings = replace(config, max_steps=8, max_time=0.0, save_every=2)
        data = listed(lessons, generator.tokens, settings)
        dev = [replace(one, candidates=tuple(x.reply for x in lessons[:9])) for one in lessons[:9]]
        report = loop.train(generator, data, dev, tmp_path / out)
        assert (report is None) == (steps == 0)
        return generators.load(tmp_path / out)

    whole = run("whole", 8)
    rows = [json.loads(line) for line in (tmp_path / "whole/log.jsonl").read_text().splitlines()]
    values = [row["dev"]["perplexity"] for row in rows if "dev" in row]
    assert len(values) == 4
    assert values[-1] < values[0]
    chosen = read_config(tmp_path / "whole/best")["training"]["step"]
    assert chosen == 2 * (1 + values.index(min(values)))
    texts = [one.context for one in lessons[:3]]
    assert whole.write(texts, Decoding(greedy=True, max_length=5))
    assert run("whole", 0).write(texts, Decoding(greedy=True, max_length=5)) == whole.write(
        texts, Decoding(greedy=True, max_length=5)
    )
