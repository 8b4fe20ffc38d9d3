"""Folders of runs: what they say, in which settings they differ, which cannot be read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rejoinder import tasks
from rejoinder.cli import main
from rejoinder.config import ModelConfig, TrainConfig, to_mapping
from rejoinder.errors import ConfigError
from rejoinder.evaluation import redraw
from rejoinder.ranker import TextRanker
from rejoinder.runs import changed, defaults, read_run, read_runs
from rejoinder.schema import Example
from rejoinder.text import TextFormat
from rejoinder.training.loop import train
from rejoinder.training.source import listed

Make = Callable[..., TextRanker]
SMALL = TrainConfig(
    batch_size=4, max_steps=5, warmup=2, precision="fp32", eval_every=2, log_every=2, save_every=2
)


def write(folder: Path, rows: list[dict[str, Any]], **settings: Any) -> Path:
    """A run's folder by hand: settings and log."""
    folder.mkdir(parents=True)
    told = {
        "model": to_mapping(ModelConfig()),
        "train": to_mapping(TrainConfig(**settings)),
        "text": to_mapping(TextFormat()),
    }
    (folder / "settings.json").write_text(json.dumps(told | {"data": ["a.txt"], "dev": None}))
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def command(*words: str) -> None:
    """Run a command that goes well."""
    with pytest.raises(SystemExit) as end:
        main(words)
    assert not end.value.code


def step(number: int, **more: Any) -> dict[str, Any]:
    return {"step": number, "of": 10, "loss": 1.0, "seconds": 60.0 * number, **more}


def dev(number: int, hits: float) -> dict[str, Any]:
    return {"step": number, "dev": {"hits@1": hits, "mean_rank": 1 / hits}}


def test_real_runs(make: Make, lessons: list[Example], tmp_path: Path) -> None:
    held = redraw(lessons, 8)
    for name, ranker, lr in (("a", make(), 1e-3), ("b", make(kind="cross"), 2e-3)):
        data = listed(lessons, ranker.tokens, replace(SMALL, lr=lr))
        train(ranker, data, held, tmp_path / name)
    rows = tasks.list_runs(tmp_path)["runs"]
    assert [row["folder"] for row in rows] == [str(tmp_path / name) for name in "ba"]
    assert [row["kind"] for row in rows] == ["cross", "bi"]
    assert [row["settings"] for row in rows] == [{"lr": 2e-3}, {"lr": 1e-3}]
    for row in rows:
        assert (row["steps"], row["planned"], row["state"]) == (5, 5, "finished")
        assert 0 <= row["best"] <= 1
        assert row["minutes"] >= 0
    record = read_run(tmp_path / "a")
    assert [row["step"] for row in record.steps] == [2, 4, 5]
    assert [row["step"] for row in record.validations] == [2, 4, 5]
    for row in record.steps:
        assert row["of"] == 5
        assert 0 < row["lr"] <= 1e-3
        assert row["memory"] > 10**7
    assert record.best == max(row["dev"]["hits@1"] for row in record.validations)


@pytest.mark.parametrize(
    ("rows", "settings", "state"),
    [
        ([], {}, (0, None, "unfinished")),
        ([step(4)], {}, (4, 10, "unfinished")),
        ([step(4), step(10)], {}, (10, 10, "finished")),
        ([step(4)], {"max_steps": 4}, (4, 4, "finished")),
        ([step(4)], {"max_time": 3.0}, (4, 10, "finished")),
        ([step(4)], {"max_time": 5.0}, (4, 10, "unfinished")),
        ([step(6), step(8), step(7)], {}, (8, 10, "unfinished")),
    ],
)
def test_how_far_a_run_is(
    rows: list[dict[str, Any]], settings: dict[str, Any], state: object, tmp_path: Path
) -> None:
    write(tmp_path / "run", rows, **settings)
    (row,) = tasks.list_runs(tmp_path)["runs"]
    assert (row["steps"], row["planned"], row["state"]) == state


def test_a_run_that_stood_still_is_finished(tmp_path: Path) -> None:
    run = write(tmp_path / "run", [step(4)], stop_after=2)
    (run / "last").mkdir()
    (run / "last" / "position.json").write_text('{"step": 4, "seconds": 9.0, "waited": 2}')
    assert read_run(run).finished


@pytest.mark.parametrize(("metric", "best"), [("hits@1", 0.5), ("mean_rank", 2.0), ("mrr", None)])
def test_the_best_value_of_the_metric(metric: str, best: float | None, tmp_path: Path) -> None:
    run = write(tmp_path / "run", [dev(1, 0.25), dev(2, 0.5), dev(3, 0.4)], metric=metric)
    assert read_run(run).best == best


def test_steps_that_were_done_twice_count_once(tmp_path: Path) -> None:
    run = write(tmp_path / "run", [step(2), step(4), dev(4, 0.5), step(2), step(4), dev(4, 0.5)])
    record = read_run(run)
    assert [row["step"] for row in record.steps] == [2, 4]
    assert len(record.validations) == 1


def test_a_log_that_was_cut_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    run = write(tmp_path / "run", [step(2), step(4)])
    with (run / "log.jsonl").open("a") as file:
        file.write('{"step": 6, "lo{"step": 8}\n[1]\n{"step": "x"}\n')
    record = read_run(run)
    assert (record.done, record.unread) == (4, 3)


def test_newest_first(tmp_path: Path) -> None:
    for age, name in ((10, "new"), (1000, "old"), (100, "middle")):
        log = write(tmp_path / name, [step(2)]) / "log.jsonl"
        os.utime(log, (1e9 - age, 1e9 - age))
    rows = tasks.list_runs(tmp_path)["runs"]
    assert [Path(row["folder"]).name for row in rows] == ["new", "middle", "old"]
    (alone,) = tasks.list_runs(tmp_path / "old")["runs"]
    assert Path(alone["folder"]).name == "old"


def test_settings_of_an_older_version_are_read(tmp_path: Path) -> None:
    run = write(tmp_path / "run", [step(2)])
    settings = json.loads((run / "settings.json").read_text())
    del settings["train"]["stop_after"]
    (run / "settings.json").write_text(json.dumps(settings))
    assert read_run(run).settings["stop_after"] == 0


def test_what_differs_from_the_defaults(tmp_path: Path) -> None:
    assert changed(defaults()) == {}
    record = read_run(write(tmp_path / "run", [], lr=0.5, betas=(0.5, 0.9)))
    assert changed(record.settings) == {"lr": 0.5, "betas": [0.5, 0.9]}


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("settings.json", "{", r"settings\.json: expected JSON"),
        ("settings.json", "[1]", r"settings\.json: expected a JSON object, but it is a list"),
        ("settings.json", "{}", r"settings\.json: expected a section 'model'"),
        ("last/position.json", '{"step": "x"}', r"position\.json: expected step, seconds"),
        ("best/config.json", "{", r"config\.json: expected JSON"),
    ],
)
def test_folders_that_cannot_be_read_are_named(
    file: str, content: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "good", [step(2)])
    bad = write(tmp_path / "bad", [step(2)])
    (bad / file).parent.mkdir(exist_ok=True)
    (bad / file).write_text(content)
    (tmp_path / "notes").mkdir()
    with pytest.raises(ConfigError, match=told):
        read_run(bad)
    found, unreadable = read_runs(tmp_path)
    assert [one.folder.name for one in found] == ["good"]
    assert len(unreadable) == 1
    command("runs", str(tmp_path))
    shown = capsys.readouterr()
    assert shown.err.startswith(f"left out: {bad / file}: ")
    assert "good" in shown.out


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "one", [step(2), dev(2, 0.5)], lr=0.5)
    write(tmp_path / "another", [step(10)])
    os.utime(tmp_path / "one" / "log.jsonl", (1, 1))
    command("runs", str(tmp_path))
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert shown[0][:3] == ["run", "kind", "steps"]
    assert shown[1] == ["another", "bi", "10/10", "-", "10.0", "finished"]
    assert shown[2] == ["one", "bi", "2/10", "hits@1", "0.500", "2.0", "unfinished", "lr=0.5"]
    command("runs", str(tmp_path), "--json")
    assert json.loads(capsys.readouterr().out) == tasks.list_runs(tmp_path)
    command("runs", str(tmp_path / "one"))
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected the folder that runs are in, such as runs"):
        tasks.list_runs(tmp_path / "none")
    with pytest.raises(ConfigError, match=r"no settings\.json in it, so it is no run"):
        read_run(tmp_path)
