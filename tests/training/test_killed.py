"""`kill -9` at any moment, the same command again, and the weights are those of an unbroken run.

Real processes are killed for real, by SIGKILL: some after a random time, some at the worst places
(in the middle of writing a checkpoint, between its two renames, after the last batch of an epoch).
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

KINDS = {
    "bi": ["bi", "--dropout", "0.1", "--optimizer", "adamw"],
    "poly-adapters": ["poly", "--lora", "4", "--schedule", "plateau", "--eval-epochs", "0.5"],
    "cross": ["cross", "--optimizer", "adamax", "--negatives", "2"],
    "generator": ["generator", "--by-dialogue", "--dropout", "0.1", "--context-coef", "1"],
    "bi-streamed": ["bi", "--stream", "--buffer", "7"],
    "bi-from-scratch": ["bi", "--n-layers", "2", "--n-heads", "2", "--embedding-size", "16"],
    "bi-mined": ["bi", "--candidates", "batch-hard", "--mine-every", "5", "--mine-keep", "2"],
}
# The process kills itself the n-th time that it comes to a place of the code (0: never), and says
# how often it was at each.
AMBUSH = """
import importlib, json, os, signal, sys
places, arguments = json.loads(sys.argv[1]), sys.argv[2:]
seen = dict.fromkeys(places, 0)
def ambush(place, fatal):
    module, _, name = place.partition(":")
    found = importlib.import_module(module)
    *path, name = name.split(".")
    for part in path:
        found = getattr(found, part)
    before = getattr(found, name)
    def ambushed(*given, **named):
        seen[place] += 1
        if seen[place] == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return before(*given, **named)
    setattr(found, name, ambushed)
for place, fatal in places.items():
    ambush(place, fatal)
from rejoinder.cli import main
try:
    main(arguments)
finally:
    print(json.dumps(seen))
"""


def command(name: str, talk: Path, base: Path, out: Path) -> list[str]:
    kind, *more = KINDS[name]
    on = "native" if "--n-layers" in more else base
    options = f"--data {talk} --dev {talk} --base {on} --out {out} --batch-size 5 --epochs 3"
    options += " --save-every 3 --warmup 3 --lr 3e-3 --max-context 40 --max-reply 12 --seed 3"
    adapters = [] if "--lora" in more else ["--lora", "0"]
    return ["train", kind, *options.split(), *more, *adapters]


def start(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, *arguments], env=environment, **quiet)  # type: ignore[call-overload, no-any-return]


def finish(arguments: Sequence[str]) -> None:
    assert start(["-m", "rejoinder", *arguments]).wait(300) == 0


def check_same(one: Path, two: Path) -> None:
    """Weights, moments and place of two runs, to the last bit."""
    words = [out / "best" / "tokenizer.json" for out in (one, two)]
    assert words[0].read_bytes() == words[1].read_bytes()
    for part in ("last/state.safetensors", "best/model.safetensors"):
        a, b = load_file(one / part), load_file(two / part)
        assert list(a) == list(b)
        assert [name for name in a if not a[name].equal(b[name])] == []
    places = [json.loads((out / "last" / "position.json").read_text()) for out in (one, two)]
    for place in places:
        del place["seconds"], place["validated"]
    assert places[0] == places[1]
    assert [f.name for f in two.iterdir() if f.name.startswith(".")] == []  # nothing is left over


@pytest.fixture(scope="module")
def unbroken(talk: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    runs = {}
    for name in KINDS:
        runs[name] = tmp_path_factory.mktemp("unbroken") / name
        finish(command(name, talk, base, runs[name]))
    return runs


@pytest.mark.parametrize("name", KINDS)
def test_killed_at_random_moments(
    name: str, talk: Path, base: Path, tmp_path: Path, unbroken: dict[str, Path]
) -> None:
    out = tmp_path / "run"
    arguments = command(name, talk, base, out)
    chance = random.Random(name)
    killed = 0
    for _ in range(3):
        before = claimed(out)
        process = start(["-m", "rejoinder", *arguments])
        while process.poll() is None and claimed(out) == before:
            time.sleep(0.01)  # it is still importing
        time.sleep(chance.uniform(0.0, 1.0))
        process.kill()
        killed += process.wait() == -signal.SIGKILL
    assert killed
    finish(arguments)
    check_same(unbroken[name], out)


def claimed(out: Path) -> int:
    """When a process last took the run; it writes settings.json anew."""
    file = out / "settings.json"
    return file.stat().st_mtime_ns if file.exists() else 0


SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)
# Where, and after what share of its visits: a run saves its best as often as it gets better, which
# is not the same on every machine.
PLACES = {
    "before a step": ("rejoinder.training.stepper:backward", 0.5),
    "after the last batch of an epoch": ("rejoinder.training.loop:save_state", 0.4),
    "while a state is written": ("rejoinder.training.resume:save_file", 0.3),
    "while a checkpoint is written": ("rejoinder.saved:save_file", 0.9),
    "before a checkpoint takes its place": ("rejoinder.files:_swap", 0.5),
    **{f"at {share} of the renames": ("pathlib:Path.rename", share) for share in SHARES},
    "while old files are cleared away": ("shutil:rmtree", 0.6),
    "before the log is written": ("rejoinder.training.folder:write_log", 0.5),
}


@pytest.fixture(scope="module")
def visits(talk: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """How often an unbroken run comes to each place, on this machine."""
    folder = tmp_path_factory.mktemp("visits")
    (folder / "ambush.py").write_text(AMBUSH)
    harmless = json.dumps({where: 0 for where, _ in PLACES.values()})
    arguments = command("bi", talk, base, folder / "run")
    done = subprocess.run(
        [sys.executable, str(folder / "ambush.py"), harmless, *arguments],
        capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    counted: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return counted


@pytest.mark.parametrize("place", PLACES)
def test_killed_at_the_worst_place(
    place: str,
    talk: Path,
    base: Path,
    tmp_path: Path,
    unbroken: dict[str, Path],
    visits: dict[str, int],
) -> None:
    where, share = PLACES[place]
    fatal = math.ceil(share * visits[where])
    assert fatal  # it does come there
    ambush = tmp_path / "ambush.py"
    ambush.write_text(AMBUSH)
    arguments = command("bi", talk, base, tmp_path / "run")
    killed = start([str(ambush), json.dumps({where: fatal}), *arguments]).wait(300)
    assert killed == -signal.SIGKILL
    finish(arguments)
    check_same(unbroken["bi"], tmp_path / "run")
