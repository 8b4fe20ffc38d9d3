"""docs/own-dialogues.md from its first command to its last, as a reader would type them."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path
from subprocess import run

import pytest

from rejoinder import zoo
from rejoinder.data import read
from rejoinder.schema import examples

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "own-dialogues.md").read_text(encoding="utf-8")
SUPPORT = ROOT / "examples" / "support"


def commands() -> list[list[str]]:
    """Words after `rejoinder`, in order."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert all(line.startswith("rejoinder ") for line in lines)
    return [shlex.split(line)[1:] for line in lines]


def test_there_are_fifty_dialogues_of_which_some_are_held_out() -> None:
    sizes = {name: list(read(SUPPORT / f"{name}.jsonl")) for name in ("train", "dev")}
    assert (len(sizes["train"]), len(sizes["dev"])) == (42, 8)
    learned, held = ({one.reply for one in examples(sizes[name])} for name in ("train", "dev"))
    assert len(learned) > 100
    assert not learned & held


@pytest.mark.slow
@pytest.mark.weights
def test_the_page_from_the_first_command_to_the_last(tmp_path: Path) -> None:
    if "persona-generator" not in zoo.names():
        pytest.skip("persona-generator is not in the package")
    shutil.copytree(SUPPORT, tmp_path / "examples" / "support")
    said: list[str] = []
    for words in commands():
        done = run(
            [sys.executable, "-m", "rejoinder", *words],
            cwd=tmp_path,
            input="Where is my parcel?\n" if words[0] == "chat" else "",
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        said.append(done.stdout)
    before, after = (
        {name: float(value) for name, value in re.findall(r"^(\w+) +([\d.]+)$", text, re.MULTILINE)}
        for text, words in zip(said, commands(), strict=True)
        if words[0] == "evaluate"
    )
    assert after["word_perplexity"] < before["word_perplexity"] / 2
    assert all(text.strip() for text in said)
    assert (tmp_path / "runs" / "support" / "report.md").is_file()
