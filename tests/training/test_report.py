"""The report of a real run: its figures are those of the evaluation, and it never costs a model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rejoinder import checkpoint, evaluation, saved, significance, tasks
from rejoinder.baselines import BM25
from rejoinder.data import read, write_jsonl
from rejoinder.errors import CheckpointError, DataError
from rejoinder.evaluation import redraw
from rejoinder.ranker import TextRanker
from rejoinder.runs import read_run
from rejoinder.schema import Dialogue, Example, Message
from rejoinder.training.measured import SHOWN, measure
from rejoinder.training.report import write_report
from rejoinder.training.start import dev_examples

Make = Callable[..., TextRanker]
THINGS = ("tea", "dogs", "rain", "chess", "music", "snow", "books", "cheese")
IMAGES = ["dev", "learning-rate", "loss", "reliability", "risk-coverage"]


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-eight dialogues of two replies; one has marks of Markdown in it."""
    file = tmp_path_factory.mktemp("talks") / "talks.jsonl"
    pairs = [(a, b) for a in THINGS for b in THINGS if a < b]
    dialogues = [
        Dialogue(
            (
                Message("user", f"do you like {a} | {b} ?"),
                Message("assistant", f"i like {a} and {b} ."),
                Message("user", "tell me more ."),
                Message("assistant", f"my brother likes {b} , not {a} ."),
            )
        )
        for a, b in pairs
    ]
    write_jsonl(dialogues, file)
    return file


@pytest.fixture(scope="module")
def trained(base: Path, talks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that another one began from, and what it said."""
    folder = tmp_path_factory.mktemp("runs")
    small: dict[str, Any] = {
        "base": str(base),
        "lora": 4,
        "batch_size": 8,
        "log_every": 2,
        "precision": "fp32",
        "eval_every": 3,
        "eval_limit": 40,
    }
    text: dict[str, Any] = {"max_context": 48, "max_reply": 12}
    first, said = folder / "first", list[str]()
    tasks.train("bi", talks, out=first, max_steps=2, **small, **text)
    tasks.train(
        "poly",
        talks,
        dev=talks,
        out=folder / "mine",
        init_model=first,
        max_steps=7,
        command="rejoinder train poly | tee log",
        say=said.append,
        **{name: value for name, value in small.items() if name not in ("base", "lora")},
    )
    (folder / "said.txt").write_text("\n".join(said))
    return folder / "mine"


def figures(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "report.json").read_text())
    return found


def test_training_ends_with_a_report(trained: Path) -> None:
    said = (trained.parent / "said.txt").read_text().splitlines()
    assert said[-1] == f"the report is in {trained / 'report.md'}"
    text = (trained / "report.md").read_text()
    for part in (
        "# Report of mine",
        "| kind | poly-encoder on `",
        "finished: 7 of 7 steps in ",
        "| started from | first |",
        "| data | talks.jsonl, 56 examples |",
        "| negatives | 7.0 for each example, on average |",
        " examples/s, validations included; while training ",
        " MiB of the process |",
        r"| command | `rejoinder train poly \| tee log` |",
        "| `batch_size` | `8` |",
        "| `max_steps` | `7` |",
        "on 40 examples of 28 dialogues in talks.jsonl, 20 candidates each",
        "| bm25 | 40 | ",
        "| the untuned base | 40 | ",
        "| the model it began from | 40 | ",
        "## Confidence",
        "### The worst examples",
        r" ?<br>assistant: i like ",
        r"| user: do you like ",
    ):
        assert part in text, text
    assert "What failed" not in text
    assert "| `lr` | `0.001` |" in text, "nobody gave one, so it is that for adapters"
    assert sorted(file.stem for file in trained.glob("*.png")) == IMAGES
    assert set(re.findall(r"!\[.*?\]\((.*?)\)", text)) == {f"{name}.png" for name in IMAGES}
    for name in IMAGES:
        with Image.open(trained / f"{name}.png") as image:
            assert image.format == "PNG"


def test_figures_are_those_of_the_evaluation(trained: Path, talks: Path) -> None:
    """Slow reference: the stored checkpoint, the examples of a validation, rivals one by one."""
    settings = tasks.split_settings({"eval_limit": 40})[1]
    held = dev_examples(talks, read(talks), settings)
    chosen = [held[i * 56 // 40] for i in range(40)]
    groups = [i * 56 // 40 // 2 for i in range(40)]
    ranks = [one.rank for one in evaluation.judge(checkpoint.load(trained), chosen)]
    found = figures(trained)
    assert found["dev"]["hits@1"] == np.mean([rank == 1 for rank in ranks])
    assert found["dev"]["mrr"] == pytest.approx(np.mean([1 / rank for rank in ranks]))
    interval = significance.interval([rank == 1 for rank in ranks], groups)
    assert found["dev"]["hits@1_interval"] == list(interval)
    words = [one.rank for one in evaluation.judge(BM25(), chosen)]
    wanted = significance.compare([r == 1 for r in words], [r == 1 for r in ranks], groups)
    (bm25,) = [one for one in found["rivals"] if one["name"] == "bm25"]
    assert bm25["hits@1"] == wanted.a
    assert bm25["better_by_interval"] == [wanted.low, wanted.high]
    first = tasks.evaluate(trained.parent / "first", chosen, precision="fp32")
    (began,) = [one for one in found["rivals"] if one["name"] == "the model it began from"]
    assert began["hits@1"] == first.hits_at_1
    scores = read_run(trained).origin["scores"]
    assert found["dev"]["hits@1"] == pytest.approx(scores["hits@1"], abs=1 / 40)


def test_the_card_says_how_good_the_confidence_is(trained: Path, talks: Path) -> None:
    card = saved.card_of(trained / "best")
    error = figures(trained)["calibration"]["error"]
    assert f"Expected calibration error {error:.3f};" in card
    before = (trained / "best" / "config.json").read_bytes()
    again = tasks.calibrate(trained, talks)
    now = saved.card_of(trained / "best")
    assert f"Expected calibration error {again['expected_calibration_error']:.3f};" in now
    assert "| 20 | 56 | " in now
    assert again["expected_calibration_error@20"] == again["expected_calibration_error"]
    assert now.count("## Confidence") == 1
    assert now.startswith("# mine\n")
    (trained / "best" / "config.json").write_bytes(before)


def test_it_is_written_again_with_or_without_data(trained: Path, talks: Path) -> None:
    text, values = (trained / "report.md").read_text(), figures(trained)
    weights = (trained / "best" / "config.json").read_bytes()
    (trained / "report.md").unlink()
    assert tasks.report(trained) == trained / "report.md"
    assert (trained / "report.md").read_text() == text
    tasks.report(trained, talks)
    again = figures(trained)
    for part in ("dev", "rivals"):
        assert drop_times(again[part]) == drop_times(values[part])
    assert again["calibration"] == values["calibration"]
    assert again["best"] == values["best"]
    assert (trained / "best" / "config.json").read_bytes() == weights


def drop_times(found: Any) -> Any:
    if not isinstance(found, dict):
        return found
    return {name: value for name, value in found.items() if "second" not in name}


def test_a_rival_that_fails_is_named_and_the_rest_stands(
    make: Make, lessons: list[Example]
) -> None:
    def broken() -> BM25:
        raise MemoryError("no room")

    held = redraw(lessons, 8)
    found = measure(make(), held, 0, {"big": broken, "bm25": BM25})
    assert found["failures"] == ["big: MemoryError: no room"]
    assert [one["name"] for one in found["rivals"]] == ["bm25"]
    assert found["dev"]["examples"] == len(lessons)


@pytest.mark.parametrize("count", [1, 2, 3, 16])
def test_best_and_worst_are_different_examples(
    make: Make, lessons: list[Example], count: int
) -> None:
    held = redraw(lessons, 8)[:count]
    found = measure(make(kind="cross"), held, 0, {})
    best, worst = found["best"], found["worst"]
    assert len(best) + len(worst) == min(count, 2 * SHOWN)
    assert len(best) - len(worst) in (0, 1)
    replies = [one["reply"] for one in (*best, *worst)]
    assert len(set(replies)) == len(replies)
    keys = [(one["rank"], -one["margin"]) for one in (*best, *reversed(worst))]
    assert keys == sorted(keys)
    for one in best:
        assert (one["rank"] == 1) == (one["top"] == one["reply"]) == (one["margin"] > 0)


def test_a_report_that_fails_leaves_the_model(
    base: Path, talks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder where the report should be, and one checkpoint that cannot be measured."""
    small: dict[str, Any] = {"base": str(base), "lora": 0, "max_steps": 2, "batch_size": 8}
    small |= {"max_context": 48, "max_reply": 12, "precision": "fp32", "eval_limit": 8}
    run, said = tmp_path / "run", list[str]()
    (run / "report.md").mkdir(parents=True)
    assert tasks.train("bi", talks, dev=talks, out=run, say=said.append, **small) == run
    assert "no report was written" in said[-1]
    assert said[-1].endswith(f"try again with: rejoinder report {run}")
    assert checkpoint.load(run).confidence
    (run / "report.md").rmdir()

    def full(*_: object, **__: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr("rejoinder.evaluation.timed", full)
    tasks.train("bi", talks, dev=talks, out=run, say=said.append, **small)
    assert said[-1] == f"the report is in {run / 'report.md'}"
    text = (run / "report.md").read_text()
    assert "- measuring: MemoryError: no room" in text
    assert "![loss](loss.png)" in text


def test_an_image_that_cannot_be_written_is_named(trained: Path, tmp_path: Path) -> None:
    run = copied(trained, tmp_path / "run")
    (run / "loss.png").mkdir()
    text = write_report(run).read_text()
    assert r"- drawing of loss: RejoinderError: " in text
    assert "![loss]" not in text
    assert "![dev](dev.png)" in text


def copied(run: Path, to: Path) -> Path:
    """What the report is made of, without weights."""
    for name in ("settings.json", "log.jsonl", "report.json", "last/position.json"):
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        (to / name).write_bytes((run / name).read_bytes())
    return to


def test_an_unfinished_run_has_curves_alone(trained: Path, talks: Path, tmp_path: Path) -> None:
    run = copied(trained, tmp_path / "run")
    for name in ("report.json", "last/position.json"):
        (run / name).unlink()
    log = (run / "log.jsonl").read_text().splitlines()
    (run / "log.jsonl").write_text("\n".join([*log[:2], log[2][:9]]))
    text = write_report(run).read_text()
    assert "| state | unfinished: " in text
    assert "None was measured yet" in text
    assert "lines of log.jsonl that could not be read, so they are left out: 1" in text
    assert sorted(file.name for file in run.glob("*.png"))[-1] == "loss.png"
    with pytest.raises(CheckpointError, match="no best checkpoint in it yet"):
        tasks.report(run, talks)


@pytest.mark.parametrize("content", ["{", "[]", '{"dev": {"hits@1": 1}, "data": "x"}'])
def test_figures_that_are_broken(trained: Path, tmp_path: Path, content: str) -> None:
    run = copied(trained, tmp_path / "run")
    (run / "report.json").write_text(content)
    with pytest.raises(DataError, match=r"report\.json: not the figures of a report .*again with"):
        write_report(run)
