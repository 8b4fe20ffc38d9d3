"""Training: it learns, it resumes bit for bit, and it hangs on the seed alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rejoinder import checkpoint, saved
from rejoinder.config import TrainConfig
from rejoinder.errors import ConfigError, RejoinderError
from rejoinder.evaluation import Report, evaluate, redraw, without_persona
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue, Example
from rejoinder.training import loop
from rejoinder.training.batches import Batch
from rejoinder.training.chunks import Passes, backward
from rejoinder.training.loop import spread
from rejoinder.training.source import listed

Make = Callable[..., TextRanker]
LETTERS = "abcdefghijk"
TIMES = ("seconds", "validated")  # of a run: never twice the same
SMALL: dict[str, Any] = {
    "batch_size": 4,
    "max_steps": 13,
    "warmup": 2,
    "lr": 3e-3,
    "precision": "fp32",
    "save_every": 4,
    "eval_every": 3,
    "drop_persona": 0.3,
}
SHAPES: dict[str, dict[str, Any]] = {
    "bi": {"kind": "bi", "dropout": 0.1},
    "bi-lora": {"kind": "bi", "lora": 4, "towers": "separate"},
    "poly": {"kind": "poly", "poly": "codes"},
    "poly-lora": {"kind": "poly", "attention": "multihead", "lora": 4, "dropout": 0.1},
    "cross": {"kind": "cross", "dropout": 0.1},
    "cross-lora": {"kind": "cross", "lora": 4},
}


def train(
    ranker: TextRanker,
    examples: list[Example],
    dev: list[Example],
    config: TrainConfig,
    out: Path,
    **more: Any,
) -> Report | None:
    return loop.train(ranker, listed(examples, ranker.tokens, config), dev, out, **more)


class StopAt:
    """A writer that ends the process, as far as the loop can tell, at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def add_scalar(self, name: str, value: float, step: int) -> None:
        if step >= self.step:
            raise KeyboardInterrupt

    def close(self) -> None:
        """Holds nothing."""


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = folder.glob("*.safetensors")
    return dict(load_file(file))


def same(one: Path, two: Path) -> bool:
    a, b = weights(one), weights(two)
    return list(a) == list(b) and all(a[name].equal(b[name]) for name in a)


def log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def position(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "last" / "position.json").read_text())
    return {name: value for name, value in found.items() if name not in TIMES}


def run(
    make: Make,
    lessons: list[Example],
    out: Path,
    shape: str = "bi",
    *,
    fresh: int = 0,
    writer: StopAt | None = None,
    dev: bool = True,
    **settings: Any,
) -> Report | None:
    """Train one of SHAPES on the lessons; `fresh` seeds the weights that it starts from."""
    config = TrainConfig(**{**SMALL, **settings})
    held = redraw(lessons, 8) if dev else []
    return train(make(**SHAPES[shape], seed=fresh), lessons, held, config, out, writer=writer)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_loss_falls(make: Make, lessons: list[Example], tmp_path: Path, shape: str) -> None:
    settings = {"max_steps": 60, "lr": 5e-3, "batch_size": 8, "negatives": 4, "eval_every": 30}
    ranker = make(**SHAPES[shape] | {"dropout": 0.0})  # so few and small steps drown in its noise
    plain = without_persona(lessons)
    report = train(ranker, plain, redraw(plain, 8), TrainConfig(**SMALL | settings), tmp_path)
    losses = [row["loss"] for row in log(tmp_path) if "loss" in row]
    assert len(losses) == 6
    assert losses[-1] < 0.6 * losses[0]
    assert report is not None
    assert report.hits_at_1 > 3 / 8  # eight candidates: 1 / 8 by chance
    assert saved.read_config(tmp_path / "best")["training"]["scores"]["hits@1"] == report.hits_at_1


@pytest.mark.parametrize("save_every", [4, 5, 9])
@pytest.mark.parametrize(
    ("shape", "optimizer", "schedule"),
    [
        ("bi", "adamw", "plateau"),
        ("bi-lora", "adamax", "linear"),
        ("poly", "adamax", "plateau"),
        ("poly-lora", "adamw", "linear"),
        ("cross", "adamw", "linear"),
        ("cross-lora", "adamax", "plateau"),
        ("bi", "sgd", "cosine"),
    ],
)
def test_a_resumed_run_equals_an_unbroken_one(
    make: Make,
    lessons: list[Example],
    tmp_path: Path,
    shape: str,
    optimizer: str,
    schedule: str,
    save_every: int,
) -> None:
    """Stopped at step 10, so it goes on from the last save: 8 (an epoch's end), 5 or 9."""
    how: dict[str, Any] = {
        "optimizer": optimizer,
        "schedule": schedule,
        "save_every": save_every,
        "decay": 0.5,
    }
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(make, lessons, whole, shape, **how)
    with pytest.raises(KeyboardInterrupt):
        run(make, lessons, broken, shape, writer=StopAt(10), **how)
    assert position(broken)["step"] == {4: 8, 5: 5, 9: 9}[save_every]
    run(make, lessons, broken, shape, fresh=1, **how)
    assert position(broken) == position(whole)
    assert position(whole)["step"] == 13
    assert same(broken / "last", whole / "last"), "weights and moments"
    assert same(broken / "best", whole / "best")


def test_the_same_seed_gives_the_same_weights(
    make: Make, lessons: list[Example], tmp_path: Path
) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.rand(len(name) + seed)  # what was drawn before has no say
        run(make, lessons, tmp_path / name, "cross", seed=seed)
    assert same(tmp_path / "a/last", tmp_path / "b/last")
    assert not same(tmp_path / "a/last", tmp_path / "c/last")


def test_runs_in_one_process_know_nothing_of_each_other(
    make: Make, lessons: list[Example], tmp_path: Path
) -> None:
    for i, count in enumerate((16, 4, 16, 8, 16)):
        run(make, lessons[:count], tmp_path / str(i), dev=False)
    assert same(tmp_path / "0/last", tmp_path / "2/last")
    assert same(tmp_path / "0/last", tmp_path / "4/last")


def test_a_finished_run_is_left_as_it_is(
    make: Make, lessons: list[Example], tmp_path: Path
) -> None:
    run(make, lessons, tmp_path)
    before = {name: weights(tmp_path / name) for name in ("best", "last")}
    run(make, lessons, tmp_path, fresh=1)
    for name, old in before.items():
        assert all(old[key].equal(value) for key, value in weights(tmp_path / name).items())
    assert position(tmp_path)["step"] == 13


@pytest.mark.parametrize(
    "change", [{"lr": 1e-4}, {"seed": 1}, {"max_steps": 14}, {"betas": (0.8, 0.9)}]
)
def test_a_folder_of_a_run_with_other_settings_is_refused(
    make: Make, lessons: list[Example], tmp_path: Path, change: dict[str, Any]
) -> None:
    run(make, lessons, tmp_path, max_steps=2)
    with pytest.raises(
        ConfigError,
        match=r"holds a run with other settings or data \(.*settings\.json: \w+ was .* and is .*\)",
    ):
        run(make, lessons, tmp_path, **{"max_steps": 2, **change})


@pytest.mark.parametrize("change", ["text", "data", "init_model"])
def test_a_folder_of_a_run_on_other_text_or_data_is_refused(
    make: Make, lessons: list[Example], tmp_path: Path, change: str
) -> None:
    origin = {"data": ["a.txt"], "init_model": None}
    config = TrainConfig(**SMALL | {"max_steps": 2})
    train(make(), lessons, [], config, tmp_path, origin=origin)
    ranker = make()
    if change == "text":
        ranker.tokens.style = replace(ranker.tokens.style, user_mark="U")
    else:
        origin |= {change: ["b.txt"]}
    with pytest.raises(ConfigError, match="holds a run with other settings"):
        train(ranker, lessons, [], config, tmp_path, origin=origin)


def test_a_folder_of_a_run_of_another_ranker_is_refused(
    make: Make, lessons: list[Example], tmp_path: Path
) -> None:
    run(make, lessons, tmp_path, "bi", max_steps=2)
    with pytest.raises(ConfigError, match="holds a run with other settings"):
        run(make, lessons, tmp_path, "poly", max_steps=2)


def test_a_folder_with_something_else_in_it_is_refused_at_once(
    make: Make, lessons: list[Example], tmp_path: Path
) -> None:
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "thesis.txt").write_text("mine")
    with pytest.raises(RejoinderError, match=r"best: holds 'thesis\.txt', which is not ours"):
        run(make, lessons, tmp_path)
    assert not (tmp_path / "log.jsonl").exists()


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_settings_of_a_run_that_are_broken(
    make: Make, lessons: list[Example], tmp_path: Path, content: str
) -> None:
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(ConfigError, match=r"settings"):
        run(make, lessons, tmp_path)


def test_nothing_to_train_on(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no examples to train on"):
        run(make, [], tmp_path, dev=False)


def test_without_dev_data_the_last_weights_are_the_best(
    make: Make, lessons: list[Example], tmp_path: Path
) -> None:
    assert run(make, lessons, tmp_path, "bi", dev=False) is None
    best, last = weights(tmp_path / "best"), weights(tmp_path / "last")
    assert all(best[name].equal(last[f"model.{name}"]) for name in best)


def test_the_best_checkpoint_is_the_best_seen(
    make: Make, lessons: list[Example], tmp_path: Path
) -> None:
    report = run(make, lessons, tmp_path, "poly", max_steps=30, lr=1e-2)
    seen = [(row["dev"]["hits@1"], -row["step"]) for row in log(tmp_path) if "dev" in row]
    hits, step = max(seen)  # the first of equal ones
    assert report is not None
    assert report.hits_at_1 == hits
    assert saved.read_config(tmp_path / "best")["training"]["step"] == -step
    ranker = checkpoint.load(tmp_path)
    assert evaluate(ranker, redraw(lessons, 8)).hits_at_1 == hits


def test_the_card_and_origin_are_saved_with_the_best(
    make: Make, lessons: list[Example], tmp_path: Path
) -> None:
    def card(report: Report | None) -> str:
        return f"# card {report.examples if report else 0}\n"

    config = TrainConfig(**{**SMALL, "max_steps": 2, "eval_limit": 5})
    held = redraw(lessons, 8)
    train(make(), lessons, held, config, tmp_path, card=card, origin={"command": "x"})
    assert (tmp_path / "best" / "README.md").read_text() == "# card 5\n"
    assert saved.read_config(tmp_path / "best")["training"]["command"] == "x"


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"max_steps": 0, "epochs": 1.0}, 4),
        ({"max_steps": 0, "epochs": 1.5}, 6),
        ({"max_steps": 0, "epochs": 0.01}, 1),
        ({"max_steps": 5, "epochs": 1.0}, 5),
    ],
)
def test_a_run_has_the_steps_that_its_settings_say(
    make: Make, lessons: list[Example], tmp_path: Path, settings: dict[str, Any], steps: int
) -> None:
    run(make, lessons, tmp_path, dev=False, **settings)
    assert position(tmp_path)["step"] == steps


def test_time_is_up(
    make: Make, lessons: list[Example], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It stops after the step that is under way, with everything saved; more time goes on."""
    assert run(make, lessons, tmp_path, max_time=1e-6) is not None
    assert position(tmp_path)["step"] == 1
    assert checkpoint.load(tmp_path)
    assert "1e-06 minutes are over; the same command" in capsys.readouterr().err
    run(make, lessons, tmp_path, max_time=1e-6)
    assert position(tmp_path)["step"] == 1
    run(make, lessons, tmp_path, max_time=60.0)
    assert position(tmp_path)["step"] == SMALL["max_steps"]
    run(make, lessons, tmp_path / "unbroken")
    assert same(tmp_path / "last", tmp_path / "unbroken" / "last")


@pytest.mark.parametrize(("limit", "wanted"), [(1, "a"), (3, "adh"), (5, "acegi"), (99, LETTERS)])
def test_few_dev_examples_are_spread_over_all(limit: int, wanted: str) -> None:
    dev = [Example(Dialogue(), (letter,)) for letter in LETTERS]
    assert "".join(example.reply for example in spread(dev, limit)) == wanted
    assert spread([], limit) == []


def validations(out: Path) -> list[int]:
    return [row["step"] for row in log(out) if "dev" in row]


@pytest.mark.parametrize(
    ("clocks", "steps"),
    [
        ({}, [4, 8, 12, 13]),  # 16 lessons in batches of 4: once an epoch, and at the end
        ({"eval_every": 5}, [5, 10, 13]),
        ({"eval_epochs": 0.5}, [2, 4, 6, 8, 10, 12, 13]),
        ({"eval_epochs": 2.0}, [8, 13]),
        ({"eval_every": 5, "eval_epochs": 1.0}, [4, 5, 8, 10, 12, 13]),
        ({"eval_minutes": 1e-9}, list(range(1, 14))),
        ({"eval_minutes": 1e9}, [13]),
    ],
)
def test_when_it_is_validated(
    make: Make, lessons: list[Example], tmp_path: Path, clocks: dict[str, Any], steps: list[int]
) -> None:
    run(make, lessons[:16], tmp_path, **{"eval_every": 0, **clocks})
    assert validations(tmp_path) == steps


def test_training_ends_without_progress(
    make: Make, lessons: list[Example], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At a learning rate of nothing no validation is better than the first."""
    run(make, lessons, tmp_path, lr=0.0, eval_every=2, stop_after=3)
    assert validations(tmp_path) == [2, 4, 6, 8]
    assert position(tmp_path)["step"] == 8
    assert "no progress in 3 validations" in capsys.readouterr().err
    run(make, lessons, tmp_path, lr=0.0, eval_every=2, stop_after=3)
    assert position(tmp_path)["step"] == 8


@pytest.mark.parametrize("metric", ["hits@5", "mrr", "mean_rank"])
def test_the_best_checkpoint_is_the_best_in_the_metric(
    make: Make, lessons: list[Example], tmp_path: Path, metric: str
) -> None:
    report = run(make, lessons, tmp_path, metric=metric, eval_every=1, lr=2e-2)
    values = [row["dev"][metric] for row in log(tmp_path) if "dev" in row]
    assert report is not None
    best = min(values) if metric == "mean_rank" else max(values)
    assert report.as_json()[metric] == best
    assert saved.read_config(tmp_path / "best")["training"]["step"] == 1 + values.index(best)


def test_gradients_of_several_batches_make_one_step(
    make: Make, lessons: list[Example], tmp_path: Path
) -> None:
    """Rows of a cross-encoder know nothing of each other: two batches of 2 are one of 4."""
    same_rows = {"shuffle": False, "drop_persona": 0.0, "shuffle_persona": False, "max_steps": 1}
    listed = redraw(lessons[:8], 4)
    how = {"candidates": "inline", "optimizer": "sgd", "lr": 0.01, "warmup": 0, **same_rows}
    found = []
    for size, each in ((4, 1), (2, 2)):
        config = TrainConfig(**{**SMALL, **how, "batch_size": size, "update_every": each})
        ranker = make(kind="cross")
        train(ranker, listed, [], config, tmp_path / str(size))
        found.append(weights(tmp_path / str(size) / "best"))
    for name, one in found[0].items():
        torch.testing.assert_close(one, found[1][name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", ["bi", "poly", "cross"])
def test_parts_of_a_batch_train_like_the_whole(
    make: Make,
    lessons: list[Example],
    tmp_path: Path,
    shape: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    steps = {"max_steps": 4, "optimizer": "sgd", "lr": 0.01}  # Adam makes much of small differences
    for name, budget in (("whole", 10_000), ("parts", 12)):
        config = TrainConfig(**{**SMALL, **steps, "max_tokens": budget})
        train(make(kind=shape, dropout=0.0), lessons, [], config, tmp_path / name)
    assert capsys.readouterr().err.count("encoded in parts of at most 12") == 1
    whole, parts = (weights(tmp_path / name / "best") for name in ("whole", "parts"))
    for name, one in whole.items():
        torch.testing.assert_close(parts[name], one, rtol=1e-3, atol=2e-4)


def test_memory_that_runs_out_halves_the_parts(
    make: Make,
    lessons: list[Example],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A device with room for 300 tokens, told by the error that torch raises."""
    asked: list[int] = []
    room = [300]

    def narrow(module: Any, batch: Batch, how: Passes, weight: float) -> float:
        asked.append(how.budget)
        if how.budget > room[0]:
            raise torch.OutOfMemoryError("out of memory")
        return backward(module, batch, how, weight)

    monkeypatch.setattr("rejoinder.training.stepper.backward", narrow)
    run(make, lessons, tmp_path, dev=False, max_tokens=1024, max_steps=2)
    assert asked == [1024, 512, 256, 256]
    assert "from here on 256 tokens are encoded at once" in capsys.readouterr().err
    room[0] = 0
    with pytest.raises(torch.OutOfMemoryError):
        run(make, lessons, tmp_path / "less", dev=False, max_tokens=1024, max_steps=2)


def test_a_loss_that_is_no_number_stops_the_run(
    make: Make, lessons: list[Example], tmp_path: Path
) -> None:
    ranker = make()
    with torch.no_grad():
        next(ranker.module.parameters()).fill_(float("nan"))
    with pytest.raises(RejoinderError, match="step 0: the loss is nan; lower --lr"):
        train(ranker, lessons, [], TrainConfig(**SMALL), tmp_path)


def test_only_adapters_and_own_weights_learn(
    make: Make, lessons: list[Example], tmp_path: Path
) -> None:
    ranker = make(kind="poly", poly="codes", lora=4)
    before = {name: value.clone() for name, value in ranker.module.state_dict().items()}
    train(ranker, lessons, [], TrainConfig(**SMALL), tmp_path)
    moved = {n for n, value in ranker.module.state_dict().items() if not value.equal(before[n])}
    adapters = {name for name in before if ".lora_" in name}
    assert moved == adapters | {"codes", "scale.log", "sharpness.log"}


def test_progress_goes_to_stderr_and_the_log_is_json(
    make: Make, lessons: list[Example], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(make, lessons, tmp_path)
    out, err = capsys.readouterr()
    assert out == ""
    assert "step 10/13" in err
    assert "step 13/13" in err
    rows = log(tmp_path)
    assert [row["step"] for row in rows if "loss" in row] == [10, 13]
    assert [row["step"] for row in rows if "dev" in row] == [3, 6, 9, 12, 13]
