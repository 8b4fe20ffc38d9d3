"""docs/exporting.md is what happens: its commands and its Python run, one after the other."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from rejoinder import zoo
from rejoinder.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "exporting.md"
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.weights
def test_the_page_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = PAGE.read_text(encoding="utf-8")
    if not all(name in zoo.names() for name in re.findall(r"rejoinder export (\S+)", text)):
        pytest.skip("the models of the page are not in the package")
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {"__name__": "__main__"}
    for kind, block in BLOCK.findall(text):
        if kind == "python":
            exec(block, space)
        for line in block.splitlines() if kind == "sh" else ():
            with pytest.raises(SystemExit) as ended:
                main(shlex.split(line)[1:])
            assert ended.value.code == 0
    assert capsys.readouterr().out.count("difference") == 3
    told = dict(re.findall(r"\| `(persona-bi)` \| `sentence-transformers` \| (\S+)", text))
    assert float(told["persona-bi"]) <= 1e-5
