"""rejoinder export: what goes where, what is printed, what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from rejoinder import tasks
from rejoinder.cli import main
from rejoinder.errors import CheckpointError, ConfigError, MissingExtra, RejoinderError
from rejoinder.ranker import TextRanker
from rejoinder.tasks.exporting import Target


@pytest.fixture(scope="module")
def models(make: Callable[..., TextRanker], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of small models, and of a generator that is only looked at."""
    folder = tmp_path_factory.mktemp("models")
    for kind in ("bi", "poly", "cross"):
        make(kind=kind).save_pretrained(folder / kind)
    make(kind="cross", head="linear").save_pretrained(folder / "linear")
    (folder / "writer").mkdir()
    told = {"format": 1, "model": {"kind": "generator"}}
    (folder / "writer" / "config.json").write_text(json.dumps(told))
    return folder


def run(*words: object) -> object:
    """Run a command in this process; its exit code."""
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words)])
    return ended.value.code


def files_of(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_a_bi_encoder_goes_to_sentence_transformers(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new"
    assert run("export", models / "bi", "--to", "sentence-transformers", "--out", out) == 0
    printed, noted = capsys.readouterr()
    assert noted == ""
    rows = dict(line.split(maxsplit=1) for line in printed.splitlines())
    assert list(rows) == ["model", "kind", "to", "architecture", "difference", "megabytes"]
    assert float(rows["difference"]) <= 1e-5
    assert "modules.json" in files_of(out)
    assert "`bi` of rejoinder" in (out / "README.md").read_text(encoding="utf-8")


def test_a_linear_cross_encoder_goes_there_too_told_as_json(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("export", models / "linear", "--to", "sentence-transformers", "--json")
    assert run(*command, "--out", tmp_path / "new") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["architecture"] == "CrossEncoder"
    assert told["difference"] <= 1e-5


@pytest.mark.slow
def test_any_ranker_goes_to_onnx(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("export", models / "poly", "--to", "onnx", "--out", tmp_path / "new") == 0
    printed = capsys.readouterr().out
    assert "context.onnx, candidate.onnx, score.onnx\n" in printed


@pytest.mark.parametrize(
    ("name", "to", "says"),
    [
        ("writer", "onnx", "is a generator, .* take --to transformers"),
        ("writer", "sentence-transformers", "is a generator, .* take --to transformers"),
        ("bi", "transformers", "is a ranker, .* take --to sentence-transformers or onnx"),
        ("poly", "sentence-transformers", "poly: a poly-encoder has no place .* export it to onnx"),
        ("cross", "sentence-transformers", "cross: its head is 'both', .* --head linear"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    name: str, to: Target, says: str, models: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=says):
        tasks.export_model(models / name, to, tmp_path / "new")
    assert files_of(tmp_path) == set()


@pytest.mark.parametrize("to", get_args(Target))
def test_a_model_is_never_replaced_by_its_export(to: Target, models: Path) -> None:
    name = "writer" if to == "transformers" else "bi"
    before = files_of(models / name)
    with pytest.raises(RejoinderError, match=f"{name}: is not empty; expected a new or empty"):
        tasks.export_model(models / name, to, models / name)
    assert files_of(models / name) == before


def test_a_wrong_folder_is_told_before_anything_is_loaded(models: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RejoinderError, match="file: is a file; expected a new folder"):
        tasks.export_model(models / "bi", "onnx", tmp_path / "file")
    with pytest.raises(CheckpointError, match="no model 'bi-'"):
        tasks.export_model("bi-", "onnx", tmp_path / "new")


def test_without_the_library_the_extra_is_named(
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtra):
        tasks.export_model(models / "bi", "sentence-transformers", tmp_path / "new")
    command = ("export", models / "bi", "--to", "sentence-transformers")
    assert run(*command, "--out", tmp_path / "new") == 1
    assert "run: pip install 'rejoinder[export]'\n" in capsys.readouterr().err
    assert files_of(tmp_path) == set()


def test_a_run_is_exported_under_its_own_name(
    make: Callable[..., TextRanker], tmp_path: Path
) -> None:
    make().save_pretrained(tmp_path / "run" / "best")
    told = tasks.export_model(tmp_path / "run", "sentence-transformers", tmp_path / "new")
    assert told["model"] == str(tmp_path / "run")
    assert "`run` of rejoinder" in (tmp_path / "new" / "README.md").read_text(encoding="utf-8")
