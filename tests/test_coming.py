"""The guide for those who come from transfer-learning-conv-ai: no flag is forgotten or made up."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import pytest

from rejoinder.cli.chat import chat
from rejoinder.cli.measure import evaluate
from rejoinder.cli.train import Around
from rejoinder.config import GeneratorConfig, TrainConfig
from rejoinder.decoding import Decoding
from rejoinder.text import TextFormat

PAGE = Path(__file__).parents[1] / "docs" / "coming-from-transfer-learning-conv-ai.md"
OPTION = re.compile(r"`--([a-z][\w@-]*)")

TRAIN = """
    dataset_path dataset_cache model_checkpoint num_candidates max_history train_batch_size
    valid_batch_size gradient_accumulation_steps lr lm_coef mc_coef max_norm n_epochs
    personality_permutations eval_before_start device fp16 local_rank
"""
INTERACT = """
    dataset_path dataset_cache model model_checkpoint max_history device no_sample max_length
    min_length seed temperature top_k top_p eval_type
"""


def rows(section: str) -> list[list[str]]:
    """Cells of the table of a section."""
    text = PAGE.read_text(encoding="utf-8").split(f"## {section}")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if re.match(r"\| (fork: )?`--", line)]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]


def names(*kinds: type) -> set[str]:
    return {field.name for kind in kinds for field in fields(kind)}


@pytest.mark.parametrize(
    ("section", "flags"),
    [
        ("Flags of train.py", TRAIN),
        ("Flags of interact.py and convai_evaluation.py", INTERACT),
    ],
)
def test_every_old_flag_has_its_row(section: str, flags: str) -> None:
    told = [
        flag for row in rows(section) if "fork" not in row[0] for flag in OPTION.findall(row[0])
    ]
    assert sorted(told) == sorted(flags.split())
    for row in rows(section):
        assert re.search(r"[.;]$", row[-1]), f"{row[0]}: {row[-1]!r} is no sentence"


def test_every_new_flag_exists() -> None:
    trained = names(GeneratorConfig, TrainConfig, TextFormat, Around)
    assert _unknown([row[2] for row in rows("Flags of train.py")], trained) == set()
    talked = {*chat.__annotations__, *evaluate.__annotations__, *names(Decoding)}
    cells = [row[3] for row in rows("Flags of interact.py and convai_evaluation.py")]
    assert _unknown(cells, talked) == set()


def _unknown(cells: Sequence[str], known: set[str]) -> set[str]:
    found = {flag.replace("-", "_") for cell in cells for flag in OPTION.findall(cell)}
    assert len(found) > 8
    return found - known
