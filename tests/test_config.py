"""Settings: choices, checks, plain values and TOML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rejoinder.config import (
    ModelConfig,
    TrainConfig,
    from_mapping,
    read_overrides,
    read_settings,
    read_toml,
    to_mapping,
)
from rejoinder.decoding import Decoding
from rejoinder.errors import ConfigError
from rejoinder.text import TextFormat


@pytest.mark.parametrize("kind", [ModelConfig, TrainConfig, TextFormat])
def test_settings_survive_json(kind: type[Any]) -> None:
    plain = json.loads(json.dumps(to_mapping(kind())))
    assert from_mapping(kind, plain, "x") == kind()


def test_plain_values_fill_settings() -> None:
    values = {"lr": 1, "betas": [0.5, 0], "optimizer": "adamax", "both_sides": True, "seed": 3}
    config = from_mapping(TrainConfig, values, "x")
    assert config == TrainConfig(
        lr=1.0, betas=(0.5, 0.0), optimizer="adamax", both_sides=True, seed=3
    )
    assert isinstance(config.lr, float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"bacth_size": 3},
            r"run\.toml: unknown setting 'bacth_size'\. Did you mean 'batch_size'\?",
        ),
        ({"zzz": 3}, r"run\.toml: unknown setting 'zzz'\. Known: batch_size, "),
        ({"lr": "fast"}, r"run\.toml: lr is 'fast'; expected float"),
        ({"lr": True}, "lr is True; expected float"),
        ({"seed": 1.5}, r"seed is 1\.5; expected int"),
        ({"seed": False}, "seed is False; expected int"),
        ({"both_sides": 1}, "both_sides is 1; expected bool"),
        ({"betas": 0.9}, r"betas is 0\.9; expected tuple"),
        ({"betas": [0.9]}, r"betas is \[0\.9\]; expected tuple"),
        ({"betas": [0.9, "x"]}, "betas is 'x'; expected float"),
        ({"optimizer": "adam"}, "optimizer is 'adam'; known: adamw, adamax, sgd"),
        ({"optimizer": ["adamw"]}, r"optimizer is \['adamw'\]; known: adamw, adamax"),
    ],
)
def test_plain_values_that_cannot_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_mapping(TrainConfig, values, "run.toml")


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (ModelConfig, {"kind": "tri"}, "kind is 'tri'; known: bi, poly, cross"),
        (ModelConfig, {"pooling": "last"}, "pooling is 'last'; known: mean, first, max"),
        (ModelConfig, {"poly": "n_last"}, "poly is 'n_last'; known: codes, n_first, all"),
        (ModelConfig, {"codes": 0}, "codes is 0; expected at least 1"),
        (ModelConfig, {"heads": 0}, "heads is 0; expected at least 1"),
        (ModelConfig, {"lora": -1}, "lora is -1; expected at least 0"),
        (ModelConfig, {"lora_alpha": 0}, "lora_alpha is 0; expected at least 1"),
        (ModelConfig, {"scale": -1.0}, r"scale is -1\.0; expected at least 0"),
        (ModelConfig, {"dropout": 1.0}, r"dropout is 1\.0; expected 0 up to"),
        (TrainConfig, {"schedule": "sine"}, "schedule is 'sine'; known: linear, cosine, inverse"),
        (TrainConfig, {"batch_size": 0}, "batch_size is 0; expected at least 1"),
        (TrainConfig, {"lr": -1.0}, r"lr is -1\.0; expected at least 0"),
        (TrainConfig, {"clip": -1.0}, r"clip is -1\.0; expected at least 0"),
        (TrainConfig, {"warmup": -1}, "warmup is -1; expected at least 0"),
        (TrainConfig, {"log_every": 0}, "log_every is 0; expected at least 1"),
        (TrainConfig, {"update_every": 0}, "update_every is 0; expected at least 1"),
        (TrainConfig, {"max_tokens": 0}, "max_tokens is 0; expected at least 1"),
        (TrainConfig, {"eval_minutes": -1.0}, "eval_minutes is -1.0; expected at least 0"),
        (TrainConfig, {"negatives": -1}, "negatives is -1; expected at least 0"),
        (TrainConfig, {"save_every": 0}, "save_every is 0; expected at least 1"),
        (TrainConfig, {"patience": -1}, "patience is -1; expected at least 0"),
        (TrainConfig, {"eval_every": -1}, "eval_every is -1; expected at least 0"),
        (TrainConfig, {"betas": (0.9, 1.0)}, r"betas are \(0\.9, 1\.0\); expected two from 0"),
        (TrainConfig, {"seed": 2**32}, r"seed is 4294967296; expected less than 2\*\*32"),
        (TrainConfig, {"lr": float("inf")}, "lr is inf; expected a number"),
        (ModelConfig, {"scale": float("nan")}, "scale is nan; expected a number"),
        (TrainConfig, {"epochs": 0.0}, "neither epochs nor max_steps is above 0"),
        (TrainConfig, {"drop_persona": 1.5}, r"drop_persona is 1\.5; expected 0 to 1"),
    ],
)
def test_settings_that_cannot_be(kind: type[Any], values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**values)


def test_toml_sections(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('[model]\nkind = "poly"\n\n[train]\nlr = 3e-5\nbetas = [0.9, 0.98]\n')
    sections = read_toml(file, ["model", "train", "text"])
    assert sections == {"model": {"kind": "poly"}, "train": {"lr": 3e-5, "betas": [0.9, 0.98]}}
    assert from_mapping(TrainConfig, sections["train"], "x").betas == (0.9, 0.98)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[modle]\n", r"run\.toml: unknown section 'modle'; known: \[model\], \[train\]"),
        (b"lr = 3\n", r"run\.toml: unknown section 'lr'; known: \[model\], \[train\]"),
        (b"model = 3\n", r"run\.toml: unknown section 'model'"),
        (b"[model\n", r"run\.toml: not TOML: .*line 1"),
        (b"[model]\nx = '\xff'\n", r"run\.toml: not TOML"),
    ],
)
def test_toml_that_cannot_be_used(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "run.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_toml(file, ["model", "train"])


def test_settings_from_toml_are_one_mapping(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('[train]\nlr = 1\n\n[model]\nkind = "poly"\n')
    kinds = {"model": ModelConfig, "train": TrainConfig}
    assert read_settings(file, kinds) == {"lr": 1.0, "kind": "poly"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[model]\n\ncodse = 3\n", r"run\.toml:3: \[model\]: unknown setting 'codse'.*'codes'"),
        ("[train]\nlr = 1\n[model]\nlr = 1\n", r"run\.toml:4: \[model\]: unknown setting 'lr'"),
        ("[train]\nseed = 1\nlr = 'x'\n", r"run\.toml:3: \[train\]: lr is 'x'; expected float"),
        ('["train"]\n"lr" = true\n', r"run\.toml:2: \[train\]: lr is True; expected float"),
    ],
)
def test_settings_from_toml_that_cannot_be_name_the_line(
    tmp_path: Path, content: str, message: str
) -> None:
    file = tmp_path / "run.toml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_settings(file, {"model": ModelConfig, "train": TrainConfig})


def test_a_toml_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run\.toml: No such file.*; expected a TOML"):
        read_toml(tmp_path / "run.toml", ["model"])


SECTIONS = {"model": ModelConfig, "train": TrainConfig, "text": TextFormat}


def test_overrides_are_values_as_toml_has_them() -> None:
    words = ["train.lr=3e-5", "model.kind=poly", 'model.base="my base"', "train.betas=[0.5, 0.9]"]
    words += ["train.shuffle=false", "text.max_context=100", "model.base=my/base=x"]
    assert read_overrides(words, SECTIONS) == {
        "lr": 3e-5,
        "kind": "poly",
        "betas": (0.5, 0.9),
        "shuffle": False,
        "max_context": 100,
        "base": "my/base=x",
    }
    assert read_overrides([], SECTIONS) == {}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("lr=3e-5", r"'lr=3e-5' sets nothing; expected model\.NAME=VALUE, train\.NAME"),
        ("train.lr", "sets nothing"),
        ("other.lr=1", "sets nothing"),
        ("train.lrr=1", "train.lrr=1: unknown setting 'lrr'. Did you mean 'lr'"),
        ("train.lr=fast", "train.lr=fast: lr is 'fast'; expected float"),
        ("train.optimizer=adam", "known: adamw, adamax, sgd"),
    ],
)
def test_overrides_that_cannot_be(word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_overrides([word], SECTIONS)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"candidates": "fixed"}, "expected the file with candidates = fixed"),
        ({"fixed_candidates": "x.txt"}, "expected the file with candidates = fixed"),
        ({"precision": "fp16", "parallel": "fsdp"}, "fp16 does not go with parallel fsdp"),
        ({"mine_every": 5}, "expected batch-hard, batch-all or inline"),
        (
            {"mine_every": 5, "candidates": "batch-hard", "stream": True},
            "mine beforehand with rejoinder mine",
        ),
    ],
)
def test_settings_that_do_not_go_together(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**values)


def test_flags_win_whatever_they_begin_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """--no-repeat is a setting of that name, --no-shuffle one without its first word."""
    from rejoinder.cli import application

    words = ["chat", "--no-repeat", "3", "--no-shuffle", "--max-length=7", "repeat"]
    monkeypatch.setattr(application, "typed", words)
    assert application.given(Decoding(no_repeat=3, max_length=7)) == {
        "no_repeat": 3,
        "max_length": 7,
    }
    assert application.given(TrainConfig(shuffle=False)) == {"shuffle": False}
    assert application.given(None) == {}
