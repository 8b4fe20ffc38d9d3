"""A cross-encoder loads in sentence-transformers and scores there as it does here."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rejoinder import checkpoint
from rejoinder.config import ModelConfig
from rejoinder.errors import ConfigError
from rejoinder.exports import candidate_text, context_text, export_cross
from rejoinder.exports.checking import sample
from rejoinder.exports.texts import candidate_line, context_line
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue
from rejoinder.text import TextFormat

from .made import CLOSE, imported, learned, stir

LINEAR: dict[str, dict[str, Any]] = {
    "mean": {},
    "first": {"pooling": "first"},
    "maximum, adapters": {"pooling": "max", "lora": 4},
}
PARLAI: dict[str, dict[str, Any]] = {
    "first": {},
    "mean": {"reduction_type": "mean", "output_scaling": 0.06, "embeddings_scale": True},
    "no segments told": {"n_segments": 0, "dict_tokenizer": "re", "dict_lower": False},
}


def theirs(folder: Path, pairs: list[tuple[str, str]]) -> Tensor:
    """What anybody gets who loads the folder: (P,)."""
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(folder), device="cpu", local_files_only=True)
    found: Tensor = model.predict(pairs, convert_to_tensor=True)
    return found


def check_same(
    ranker: TextRanker, folder: Path, dialogues: list[Dialogue], replies: list[str]
) -> None:
    """Assert that the folder scores exact pairs as the ranker does."""
    dialogues = [one for one in dialogues if context_line(ranker.tokens, one).exact]
    replies = [one for one in replies if candidate_line(ranker.tokens, one).exact]
    assert len(dialogues) > 1
    assert len(replies) > 1
    ours = torch.cat([ranker.scores(one, replies) for one in dialogues])
    texts = [candidate_text(ranker, reply) for reply in replies]
    pairs = [(context_text(ranker, one), text) for one in dialogues for text in texts]
    largest = max(1.0, float(ours.abs().max()))
    assert (ours - theirs(folder, pairs)).abs().max() <= CLOSE * largest


@pytest.mark.parametrize("settings", LINEAR.values(), ids=LINEAR)
def test_scores_are_those_of_the_ranker(
    settings: dict[str, Any],
    make: Callable[..., TextRanker],
    dialogues: list[Dialogue],
    replies: list[str],
    tmp_path: Path,
) -> None:
    ranker = make(kind="cross", head="linear", **settings)
    assert export_cross(ranker, tmp_path / "new")["difference"] <= CLOSE
    check_same(ranker, tmp_path / "new", dialogues, replies)


@pytest.mark.parametrize("options", PARLAI.values(), ids=PARLAI)
def test_an_imported_ranker_scores_there_as_in_parlai(
    options: dict[str, Any], tmp_path: Path
) -> None:
    ranker = imported("cross", **options)
    export_cross(ranker, tmp_path / "new")
    dialogues = [Dialogue(one.messages[-2:], one.persona[:1]) for one in sample()[0]]
    check_same(ranker, tmp_path / "new", dialogues, ["yes", "", "i am fine .", "__end__ 42"])


def test_a_ranker_on_learned_bytes_scores_there_as_here(tmp_path: Path) -> None:
    ranker = learned("cross", head="linear")
    export_cross(ranker, tmp_path / "new")
    check_same(ranker, tmp_path / "new", sample()[0][:3], ["tea ?", "", "naïve <end>"])


def test_the_card_shows_code_that_runs(
    make: Callable[..., TextRanker],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    export_cross(make(kind="cross", head="linear"), tmp_path / "new")
    card = (tmp_path / "new" / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert re.match(r"\[\S+ +\S+ *\]\n", capsys.readouterr().out)


def test_a_bi_encoder_is_none(make: Callable[..., TextRanker], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a bi-encoder reads the two sides apart"):
        export_cross(make(), tmp_path / "new")


@pytest.mark.parametrize("head", ["both", "prefix"])
def test_a_head_that_reads_the_sides_apart_is_refused(
    head: str, make: Callable[..., TextRanker], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=f"its head is '{head}'.*onnx.*--head linear"):
        export_cross(make(kind="cross", head=head), tmp_path / "new")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"variant": "aiayn"}, "variant aiayn"), ({"reduction_type": "max"}, "padding is part")],
)
def test_what_the_library_cannot_follow_is_refused(
    options: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=f"imported: .*{reason}.*export it to onnx"):
        export_cross(imported("cross", **options), tmp_path / "new")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.slow
@pytest.mark.weights
def test_a_tuned_minilm_scores_there_as_here(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = ModelConfig(kind="cross", head="linear", lora=4)
    ranker = checkpoint.fresh(config, TextFormat(), trainable=True)
    stir(ranker, 0.02)
    ranker.save_pretrained(tmp_path / "tuned")
    ranker = checkpoint.load(tmp_path / "tuned")
    assert export_cross(ranker, tmp_path / "new")["difference"] <= CLOSE
    check_same(ranker, tmp_path / "new", *sample())
