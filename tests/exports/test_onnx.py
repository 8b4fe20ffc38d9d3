"""A ranker as ONNX gives the scores that it gives here, for rows of any number and length."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

from rejoinder import checkpoint, zoo
from rejoinder.errors import CheckpointError, ConfigError, MissingExtra, RejoinderError
from rejoinder.exports import export_onnx, onnx, onnx_check
from rejoinder.exports.onnx_check import Runner, sessions
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue

from .made import CLOSE, imported, learned, said

WRITTEN: dict[str, dict[str, Any]] = {
    "bi": {"towers": "separate", "pooling": "first", "lora": 4},
    "poly": {"kind": "poly", "poly": "n_first", "attention": "multihead"},
    "poly with codes": {"kind": "poly", "poly": "codes", "normalise": False},
    "cross": {"kind": "cross", "pooling": "max"},
    "cross with a prefix": {"kind": "cross", "head": "prefix", "towers": "separate"},
}
PARLAI: dict[str, dict[str, Any]] = {
    "padding that counts": {"kind": "bi", "reduction_type": "max", "variant": "prelayernorm"},
    "blanks that count": {"kind": "bi", "dict_tokenizer": "space", "variant": "aiayn"},
    "cross": {"kind": "cross", "reduction_type": "max"},
}


def check_same(
    ranker: TextRanker, folder: Path, dialogues: list[Dialogue], replies: list[str]
) -> None:
    """Assert that the graphs of a folder score as the ranker does."""
    ours = torch.stack(ranker.score_many(dialogues, [replies] * len(dialogues)))
    largest = max(1.0, float(ours.abs().max()))
    graphs = [file.name for file in folder.glob("*.onnx")]
    theirs = Runner(ranker, graphs, sessions(folder)).scores(dialogues, replies)
    assert (ours - theirs).abs().max() <= CLOSE * largest


def test_scores_are_those_of_the_ranker_whatever_is_read(
    make: Callable[..., TextRanker],
    dialogues: list[Dialogue],
    replies: list[str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    ranker = make()
    told = export_onnx(ranker, tmp_path / "new")
    assert capfd.readouterr() == ("", "")
    assert told["graphs"] == ["encoder.onnx"]
    assert told["difference"] <= CLOSE
    check_same(ranker, tmp_path / "new", dialogues, replies)
    check_same(ranker, tmp_path / "new", dialogues[:1], replies[:1])
    names = {file.name for file in (tmp_path / "new").iterdir()}
    assert names == {"encoder.onnx", "tokenizer.json", "config.json", "README.md"}
    assert b"rejoinder/" not in (tmp_path / "new" / "encoder.onnx").read_bytes()  # no paths


@pytest.mark.slow
@pytest.mark.parametrize("settings", WRITTEN.values(), ids=WRITTEN)
def test_every_kind_of_ranker_scores_there_as_here(
    settings: dict[str, Any],
    make: Callable[..., TextRanker],
    dialogues: list[Dialogue],
    replies: list[str],
    tmp_path: Path,
) -> None:
    ranker = make(**settings)
    told = export_onnx(ranker, tmp_path / "new")
    assert told["difference"] <= CLOSE
    check_same(ranker, tmp_path / "new", dialogues, replies)
    check_same(ranker, tmp_path / "new", dialogues[:1], replies[:1])
    config = json.loads((tmp_path / "new" / "config.json").read_text(encoding="utf-8"))
    assert list(config["graphs"]) == told["graphs"]


@pytest.mark.slow
@pytest.mark.parametrize("options", PARLAI.values(), ids=PARLAI)
def test_an_imported_ranker_scores_there_as_in_parlai(
    options: dict[str, Any], tmp_path: Path
) -> None:
    ranker = imported(**options)
    export_onnx(ranker, tmp_path / "new")
    dialogues = [said("hello , i am back ."), said("a", "b ?", persona=("i like tea .",))]
    check_same(ranker, tmp_path / "new", dialogues, ["yes", "", "i am fine . " * 4])
    there = {file.name for file in (tmp_path / "new").iterdir()}
    by_pieces = options.get("dict_tokenizer") == "space"
    assert ("dictionary.json" in there, "tokenizer.json" in there) == (by_pieces, not by_pieces)


@pytest.mark.slow
@pytest.mark.parametrize(
    "made",
    [
        lambda make: make(kind="poly"),
        lambda make: learned("cross", head="linear"),
        lambda make: imported(),
    ],
    ids=["poly", "bytes", "imported"],
)
def test_the_card_shows_code_that_gives_the_scores(
    made: Callable[[Callable[..., TextRanker]], TextRanker],
    make: Callable[..., TextRanker],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from rejoinder.exports.cards import ASKED, REPLIES

    ranker = made(make)
    export_onnx(ranker, tmp_path / "new")
    card = (tmp_path / "new" / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    found = [float(one) for one in re.findall(r"-?\d+\.\d+", capsys.readouterr().out)]
    assert found == pytest.approx(ranker.scores(ASKED, REPLIES).tolist(), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bi", "cross"])
def test_a_card_of_pieces_shows_code_that_runs(
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ranker = imported(kind, dict_tokenizer="space", reduction_type="max")
    ranker.save_pretrained(tmp_path / "mine")
    export_onnx(ranker, tmp_path / "new")
    card = (tmp_path / "new" / "README.md").read_text(encoding="utf-8")
    assert "one by one" in card
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code.replace("the ranker that this was made from", "mine"), {})
    assert capsys.readouterr().out


@pytest.mark.slow
def test_much_weight_goes_into_a_file_beside_the_graph(
    make: Callable[..., TextRanker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx, "MOST_BYTES", 0)
    ranker = make()
    export_onnx(ranker, tmp_path / "new")
    assert (tmp_path / "new" / "encoder.onnx.data").is_file()
    check_same(ranker, tmp_path / "new", [said("hi")], ["tea", "no"])


@pytest.mark.slow
def test_graphs_that_score_otherwise_are_not_written(
    make: Callable[..., TextRanker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_check.Runner, "scores", lambda *_: torch.tensor(float("nan")))
    with pytest.raises(CheckpointError, match="not written: onnxruntime scores it off by nan"):
        export_onnx(make(), tmp_path / "new")
    assert [*tmp_path.iterdir()] == []


def test_what_torch_cannot_write_is_told_in_a_line(
    make: Callable[..., TextRanker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx, "SIZES", {**onnx.SIZES, "length": 1000})  # more than it has places
    with pytest.raises(ConfigError, match=r"^encoder.onnx: torch cannot write this \w+ as onnx \("):
        export_onnx(make(), tmp_path / "new")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.slow
def test_a_full_disk_leaves_nothing(
    make: Callable[..., TextRanker],
    tmp_path: Path,
    full_disk: Callable[[int], AbstractContextManager[None]],
) -> None:
    ranker = make()
    with (
        full_disk(4000),
        pytest.raises(RejoinderError, match="could not be written .*Free some space"),
    ):
        export_onnx(ranker, tmp_path / "new")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("library", ["onnx", "onnxscript", "onnxruntime"])
def test_a_library_that_is_missing_is_named(
    library: str, make: Callable[..., TextRanker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtra, match=rf"{library} .*pip install 'rejoinder\[export\]'"):
        export_onnx(make(), tmp_path / "new")


def test_a_folder_with_things_in_it_is_left_alone(
    make: Callable[..., TextRanker], tmp_path: Path
) -> None:
    (tmp_path / "diary.txt").write_text("dear diary\n")
    with pytest.raises(RejoinderError, match="is not empty"):
        export_onnx(make(), tmp_path)
    assert [*tmp_path.iterdir()] == [tmp_path / "diary.txt"]


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.parametrize("name", ["persona-bi", "persona-poly", "persona-cross"])
def test_the_models_of_the_zoo_score_there_as_here(name: str, tmp_path: Path) -> None:
    if name not in zoo.names():
        pytest.skip(f"{name} is not in the package")
    ranker = checkpoint.load(zoo.find(name))
    assert export_onnx(ranker, tmp_path / "new")["difference"] <= CLOSE
    check_same(ranker, tmp_path / "new", [said("hi", "hello", "tea ?")], ["yes .", "no , milk ."])
