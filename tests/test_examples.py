"""The examples run: with a tiny model in this process, and as scripts with the default one."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from rejoinder.ranker import TextRanker

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
REPLIES = [
    "i like tea .",
    "i like dogs .",
    "hello there !",
    "tell me more .",
    "it rained all day .",
]

Run = Callable[..., str]
Make = Callable[..., "TextRanker"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run an example as `python examples/NAME.py ARGUMENTS` would, and give what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REJOINDER_HOME", str(tmp_path / "home"))

    def running(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return running


def saved(ranker: TextRanker, folder: Path) -> Path:
    from rejoinder import checkpoint

    checkpoint.save(ranker, folder)
    return folder


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_an_example_is_short(script: Path) -> None:
    assert len(script.read_text(encoding="utf-8").splitlines()) < 50


@pytest.mark.parametrize(("bias", "says_approved"), [(None, False), (-50.0, False), (50.0, True)])
def test_approved_replies_are_said_only_where_the_model_is_sure(
    bias: float | None, says_approved: bool, make: Make, run: Run, tmp_path: Path
) -> None:
    from rejoinder.confidence import Confidence

    ranker = make(kind="poly", lora=4)
    ranker.confidence = None if bias is None else Confidence(bias, (0.0, 0.0, 0.0))
    shown = run("approved_replies", saved(ranker, tmp_path / "model"))
    said = re.findall(r"^bot:  (.+)  \(\d\.\d\d\)$", shown, re.MULTILINE)
    example = runpy.run_path(str(EXAMPLES / "approved_replies.py"))
    assert len(said) == len(example["QUESTIONS"])
    assert set(said) <= (set(example["APPROVED"]) if says_approved else {example["HAND_OVER"]})


def test_suggestions_differ_and_come_from_the_file(make: Make, run: Run, tmp_path: Path) -> None:
    model = saved(make(kind="bi", lora=4), tmp_path / "model")
    file = tmp_path / "replies.txt"
    file.write_text("\n".join(REPLIES) + "\n", encoding="utf-8")
    shown = run("suggest", "do you like tea ?", model, file).splitlines()
    assert len(shown) == len(set(shown)) == 3
    assert {line.removeprefix("- ") for line in shown} <= set(REPLIES)


def test_own_dialogues_are_learned_and_measured(base: Path, run: Run, tmp_path: Path) -> None:
    from rejoinder.candidates import SAMPLE
    from rejoinder.data import read, write_jsonl

    file = tmp_path / "few.jsonl"
    write_jsonl(list(read(SAMPLE / "dev.jsonl"))[:4], file)
    out = tmp_path / "own"
    small = ("--base", base, "--steps", 2, "--max-context", 48)
    shown = run("own_dialogues", file, file, out, *small).splitlines()
    assert [line.partition(": hits@1 ")[0] for line in shown] == ["bm25", str(out)]
    assert (out / "best" / "model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_an_example_runs_as_it_is(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rejoinder import zoo

    if zoo.DEFAULT not in zoo.names():
        pytest.skip(f"{zoo.DEFAULT} is not in the package")
    monkeypatch.setenv("REJOINDER_HOME", str(tmp_path / "home"))
    arguments = ["--steps", "2"] if script.stem == "own_dialogues" else []
    done = subprocess.run(
        [sys.executable, script, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
