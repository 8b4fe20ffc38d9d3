"""Several processes: shares of lists, and trainings that equal those of one process.

The trainings are started as users start them, by torchrun, and talk through gloo.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from rejoinder.training.processes import ALONE, Processes, join

STEPS = 20
NATIVE = ["--base", "native", "--n-layers", "2", "--n-heads", "2"]
NATIVE += ["--embedding-size", "16", "--ffn-size", "32"]
TRAINING = {
    "bi": ["bi"],
    "bi-cached": ["bi", "--max-tokens", "60"],
    "poly-adapters": ["poly", "--poly", "codes", "--lora", "4", "--max-tokens", "100"],
    "poly-fewer-rows-than-processes": ["poly", "--batch-size", "5"],  # the last batch has one
    "cross": ["cross", "--batch-size", "5"],
    "cross-prefix": ["cross", "--head", "prefix", "--batch-size", "5", "--negatives", "6"],
    "cross-separate": ["cross", "--towers", "separate", "--batch-size", "5"],
    "cross-cached": ["cross", "--max-tokens", "100"],
    "bi-two-towers-hard": ["bi", "--towers", "separate", "--candidates", "batch-hard"],
    "poly-from-scratch": ["poly", *NATIVE],
}


def test_alone_nothing_is_exchanged() -> None:
    part = torch.randn(3, 2)
    assert ALONE.first
    assert ALONE.gather(part, 3) is part
    assert ALONE.collect([1, 2]) == [1, 2]
    assert ALONE.most(4) == ALONE.told(4) == 4
    before = part.clone()
    ALONE.add([part])
    assert part.equal(before)
    assert join("cpu") == (ALONE, "cpu")


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shares_are_all_there_is_and_disjoint(count: int) -> None:
    listed = list(range(10))
    shares = [listed[Processes(number, count).own] for number in range(count)]
    assert sorted(x for share in shares for x in share) == listed
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


EXCHANGE = """
import torch
from rejoinder.training.processes import end, join
group, _ = join("cpu")
whole = torch.arange(14.0).view(7, 2)
assert group.gather(whole[group.own], 7).equal(whole)
assert group.gather(whole[:1][group.own], 1).equal(whole[:1])  # one of them has nothing
assert group.collect(list("abcde")[group.own]) == list("abcde")
assert group.most(group.number) == group.count - 1
assert group.told(group.number + 5) == 5
two = [torch.full((2, 2), float(group.number)), torch.tensor(1.0 + group.number)]
group.add(two)
assert two[0].eq(sum(range(group.count))).all() and two[1] == sum(range(1, group.count + 1))
print("all well")
end(0)
"""


def launch(count: int, arguments: Sequence[str], folder: Path) -> str:
    """Run a module or script in `count` processes (one: without torchrun); -> its output."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    command = [sys.executable, *(torchrun if count > 1 else []), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=environment, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_what_is_exchanged_comes_together(tmp_path: Path, count: int) -> None:
    (tmp_path / "exchange.py").write_text(EXCHANGE)
    assert launch(count, ["exchange.py"], tmp_path).count("all well") == count


ENDING = """
from rejoinder.training.processes import end, join
group, _ = join("cpu")
print("said")
end(7 * group.number)
print("never said")
"""


@pytest.mark.slow
def test_the_end_of_a_process_has_its_exit_code(tmp_path: Path) -> None:
    (tmp_path / "ending.py").write_text(ENDING)
    with pytest.raises(AssertionError, match=r"exitcode\s*: 7"):
        launch(2, ["ending.py"], tmp_path)
    assert launch(1, ["ending.py"], tmp_path).split("\n") == ["said", "never said", ""]


def trained(count: int, options: Sequence[str], talk: Path, base: Path, out: Path) -> Path:
    kind, *more = options
    command = ["-m", "rejoinder", "train", kind, "--data", str(talk), "--dev", str(talk)]
    command += ["--out", str(out), "--max-steps", str(STEPS), *more]
    if "--base" not in more:
        command += ["--base", str(base)]
    if "--batch-size" not in more:
        command += ["--batch-size", "7"]
    command += ["--precision", "fp32", "--log-every", "1", "--lr", "3e-3"]
    command += ["--warmup", "3", "--eval-every", "10", "--max-context", "40", "--max-reply", "12"]
    if "--lora" not in more:
        command += ["--lora", "0"]
    launch(count, command, talk.parent)
    return out


def losses(out: Path) -> list[float]:
    rows = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    return [row["loss"] for row in rows if "loss" in row]


def scores(out: Path) -> list[dict[str, float]]:
    rows = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    return [row["dev"] for row in rows if "dev" in row]


def check_equal(one: Path, two: Path) -> None:
    assert len(losses(one)) == STEPS
    assert losses(one)[-1] < losses(one)[0]
    assert losses(two) == pytest.approx(losses(one), abs=1e-4)
    for a, b in zip(scores(one), scores(two), strict=True):
        assert a["examples"] == b["examples"] == 26
        assert a["mrr"] == pytest.approx(b["mrr"], abs=0.02)


WRITING = {
    "full": ["generator", "--choice-dropout", "0", "--negatives", "2"],
    "adapters-inline": ["generator", "--choice-dropout", "0", "--lora", "4"],
    "dialogues": ["generator", "--choice-dropout", "0", "--context-coef", "1", "--by-dialogue"],
}
WRITING["adapters-inline"] += ["--candidates", "inline", "--update-every", "2"]


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITING)
def test_two_processes_that_learn_to_write_equal_one(
    name: str, talk: Path, base: Path, tmp_path: Path
) -> None:
    options = WRITING[name]
    one = trained(1, options, talk, base, tmp_path / "one")
    two = trained(2, options, talk, base, tmp_path / "two")
    check_equal(one, two)
    for a, b in zip(scores(one), scores(two), strict=True):
        assert a["perplexity"] == pytest.approx(b["perplexity"], rel=1e-3)


@pytest.mark.slow
def test_writing_is_learned_with_weights_in_pieces_too(
    talk: Path, base: Path, tmp_path: Path
) -> None:
    one = trained(1, WRITING["full"], talk, base, tmp_path / "one")
    two = trained(2, [*WRITING["full"], "--parallel", "fsdp"], talk, base, tmp_path / "two")
    check_equal(one, two)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINING)
def test_two_processes_equal_one(name: str, talk: Path, base: Path, tmp_path: Path) -> None:
    options = TRAINING[name]
    one = trained(1, options, talk, base, tmp_path / "one")
    two = trained(2, options, talk, base, tmp_path / "two")
    check_equal(one, two)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bi-cached", "poly-adapters", "cross", "poly-from-scratch"])
def test_two_processes_with_weights_in_pieces_equal_one(
    name: str, talk: Path, base: Path, tmp_path: Path
) -> None:
    options = TRAINING[name]
    one = trained(1, options, talk, base, tmp_path / "one")
    two = trained(2, [*options, "--parallel", "fsdp"], talk, base, tmp_path / "two")
    check_equal(one, two)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_run_goes_on_with_another_number_of_processes(
    parallel: str, talk: Path, base: Path, tmp_path: Path
) -> None:
    options = ["bi", "--save-every", "1", "--parallel", parallel]
    whole = trained(1, options, talk, base, tmp_path / "whole")
    out = tmp_path / "parts"
    trained(2, [*options, "--max-time", "0.0001"], talk, base, out)  # ends after one step
    assert json.loads((out / "last" / "position.json").read_text())["step"] == 1
    trained(1, [*options, "--max-time", "0"], talk, base, out)
    assert losses(out) == pytest.approx(losses(whole), abs=1e-4)
