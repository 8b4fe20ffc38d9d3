"""A bi-encoder loads in sentence-transformers and scores there as it does here."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rejoinder import checkpoint, zoo
from rejoinder.config import ModelConfig
from rejoinder.errors import CheckpointError, ConfigError, MissingExtra, RejoinderError
from rejoinder.exports import context_text, export_sentence, sentence_folder
from rejoinder.exports.checking import sample
from rejoinder.exports.texts import context_line
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue
from rejoinder.text import TextFormat

from .made import CLOSE, imported, learned, said, stir

BI: dict[str, dict[str, Any]] = {
    "shared": {},
    "separate, first": {"towers": "separate", "pooling": "first"},
    "raw, maximum": {"pooling": "max", "normalise": False},
    "raw, scaled": {"normalise": False, "scale": 2.5},
    "adapters": {"lora": 4},
    "separate, adapters": {"lora": 4, "towers": "separate", "share_embeddings": True},
    "two layers": {"mlp": True},
}
PARLAI: dict[str, dict[str, Any]] = {
    "separate": {},
    "shared, with two layers": {"share_encoders": True},
    "of length one": {"normalize_sent_emb": True, "reduction_type": "first"},
    "one matrix of words": {"share_word_embeddings": True, "embeddings_scale": True},
    "whole words": {"dict_tokenizer": "re", "dict_lower": False, "person_tokens": True},
    "sines": {"dict_tokenizer": "split", "learn_positional_embeddings": False, "n_segments": 0},
}


def theirs(folder: Path, contexts: list[str], replies: list[str]) -> Tensor:
    """What anybody gets who loads the folder: (B, N)."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    found: Tensor = model.similarity(
        model.encode_query(contexts, convert_to_tensor=True),
        model.encode_document(replies, convert_to_tensor=True),
    )
    return found


def check_same(
    ranker: TextRanker, folder: Path, dialogues: list[Dialogue], replies: list[str]
) -> None:
    """Assert that the folder scores exact dialogues as the ranker does."""
    exact = [one for one in dialogues if context_line(ranker.tokens, one).exact]
    assert len(exact) >= len(dialogues) - 1
    ours = torch.stack([ranker.scores(one, replies) for one in exact])
    found = theirs(folder, [context_text(ranker, one) for one in exact], replies)
    assert (ours - found).abs().max() <= CLOSE * max(1.0, float(ours.abs().max()))


@pytest.mark.parametrize("settings", BI.values(), ids=BI)
def test_scores_are_those_of_the_ranker(
    settings: dict[str, Any],
    make: Callable[..., TextRanker],
    dialogues: list[Dialogue],
    replies: list[str],
    tmp_path: Path,
) -> None:
    ranker = make(**settings)
    told = export_sentence(ranker, tmp_path / "new")
    assert 0 <= told["difference"] <= CLOSE
    parted = settings.get("towers") == "separate" or "mlp" in settings
    assert told["architecture"] == ("Router" if parted else "SentenceTransformer")
    check_same(ranker, tmp_path / "new", dialogues, replies)


@pytest.mark.parametrize("options", PARLAI.values(), ids=PARLAI)
def test_an_imported_ranker_scores_there_as_in_parlai(
    options: dict[str, Any], tmp_path: Path
) -> None:
    ranker = imported(**options)
    assert export_sentence(ranker, tmp_path / "new")["difference"] <= CLOSE
    dialogues = [Dialogue(one.messages[-2:], one.persona[:1]) for one in sample()[0]]
    replies = ["i am fine .", "yes", "", "déjà-vu 42 __start__", "two\ndogs and a cat ?"]
    check_same(ranker, tmp_path / "new", dialogues, replies)


@pytest.mark.parametrize("prefix_space", [False, True])
def test_a_ranker_on_learned_bytes_scores_there_as_here(prefix_space: bool, tmp_path: Path) -> None:
    ranker = learned(prefix_space=prefix_space, towers="separate")
    export_sentence(ranker, tmp_path / "new")
    check_same(ranker, tmp_path / "new", sample()[0][:3], ["tea ?", "", "naïve <end>"])


def test_what_a_user_types_is_text(make: Callable[..., TextRanker], tmp_path: Path) -> None:
    ranker = make()
    export_sentence(ranker, tmp_path / "new")
    odd = ["[SEP] [PAD]", "[unk][CLS]", "# > < |", "i am\x00 a\tguide\n"]
    check_same(ranker, tmp_path / "new", [said(*odd, persona=(odd[0],))], odd)


def test_weights_in_16_bits_are_exported_in_32(
    make: Callable[..., TextRanker], tmp_path: Path
) -> None:
    ranker = make()
    ranker.precision = "bf16"
    export_sentence(ranker, tmp_path / "cast")
    export_sentence(ranker.halved(), tmp_path / "halved")
    weights = (tmp_path / "cast" / "model.safetensors").stat().st_size
    assert weights == (tmp_path / "halved" / "model.safetensors").stat().st_size
    assert ranker.precision == "bf16"


@pytest.mark.parametrize("settings", [{}, {"towers": "separate"}])
def test_the_card_shows_code_that_runs(
    settings: dict[str, Any],
    make: Callable[..., TextRanker],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ranker = make(**settings)
    ranker.card = "# one\n\nLicence: Apache-2.0.\n"
    export_sentence(ranker, tmp_path / "new")
    card = (tmp_path / "new" / "README.md").read_text(encoding="utf-8")
    assert "Licence: Apache-2.0." in card
    assert str(tmp_path) not in card.replace(ranker.config.base, "")
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert "tensor([[" in capsys.readouterr().out


def test_nothing_is_told_and_no_path_is_left(
    make: Callable[..., TextRanker], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    export_sentence(make(towers="separate"), tmp_path / "new")
    assert capfd.readouterr() == ("", "")
    for file in (tmp_path / "new").rglob("*.json"):
        assert b"/tmp" not in file.read_bytes()


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (lambda: imported(variant="aiayn"), "variant aiayn"),
        (lambda: imported(variant="prelayernorm", reduction_type="first"), "variant prelayernorm"),
        (lambda: imported(reduction_type="max"), "padding is part of its scores"),
        (lambda: imported(dict_tokenizer="space"), "kind 'space'"),
        (lambda: imported("poly"), "one vector for a text"),
    ],
)
def test_what_the_library_cannot_follow_is_refused(
    made: Callable[[], TextRanker], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=f"{reason}.*onnx"):
        export_sentence(made(), tmp_path / "new")
    assert [*tmp_path.iterdir()] == []


def test_a_folder_with_things_in_it_is_left_alone(
    make: Callable[..., TextRanker], tmp_path: Path
) -> None:
    ranker = make()
    ranker.save_pretrained(tmp_path / "mine")
    before = {file.name: file.read_bytes() for file in (tmp_path / "mine").iterdir()}
    with pytest.raises(RejoinderError, match="mine: is not empty; expected a new or empty folder"):
        export_sentence(ranker, tmp_path / "mine")
    assert {file.name: file.read_bytes() for file in (tmp_path / "mine").iterdir()} == before
    with pytest.raises(RejoinderError, match="is a file"):
        export_sentence(ranker, tmp_path / "mine" / "README.md")
    (tmp_path / "empty").mkdir()
    export_sentence(ranker, tmp_path / "empty")


def test_an_export_that_scores_otherwise_is_not_written(
    make: Callable[..., TextRanker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sentence_folder, "MODES", {"mean": "cls"})
    with pytest.raises(CheckpointError, match="not written: sentence-transformers scores it off"):
        export_sentence(make(), tmp_path / "new")
    assert [*tmp_path.iterdir()] == []


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
        export_sentence(ranker, tmp_path / "new")
    assert [*tmp_path.iterdir()] == []


def test_a_library_that_is_missing_is_named(
    make: Callable[..., TextRanker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtra, match=r"pip install 'rejoinder\[export\]'"):
        export_sentence(make(), tmp_path / "new")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.slow
@pytest.mark.weights
def test_the_model_of_the_zoo_scores_there_as_here(tmp_path: Path) -> None:
    if "persona-bi" not in zoo.names():
        pytest.skip("persona-bi is not in the package")
    ranker = checkpoint.load(zoo.find("persona-bi"))
    told = export_sentence(ranker, tmp_path / "new")
    assert told["difference"] <= CLOSE
    dialogues, replies = sample()
    check_same(ranker, tmp_path / "new", dialogues, replies)


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.parametrize("towers", ["shared", "separate"])
@pytest.mark.parametrize("normalise", [True, False])
def test_a_tuned_minilm_scores_there_as_here(towers: str, normalise: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings: Any = {"towers": towers, "normalise": normalise, "lora": 4}
    ranker = checkpoint.fresh(ModelConfig(**settings), TextFormat(), trainable=True)
    stir(ranker, 0.02)  # with more of it, six layers make whole numbers of the last digit
    ranker.save_pretrained(tmp_path / "tuned")
    ranker = checkpoint.load(tmp_path / "tuned")
    assert export_sentence(ranker, tmp_path / "new")["difference"] <= CLOSE
    check_same(ranker, tmp_path / "new", *sample())


@pytest.mark.slow
def test_the_folder_loads_in_a_process_without_rejoinder_and_a_network(
    make: Callable[..., TextRanker], tmp_path: Path
) -> None:
    export_sentence(make(), tmp_path / "new")
    code = (
        "import sys, socket\n"
        "def refuse(*_): raise OSError('no network')\n"
        "socket.getaddrinfo = refuse\n"
        "from sentence_transformers import SentenceTransformer\n"
        f"model = SentenceTransformer({str(tmp_path / 'new')!r}, device='cpu')\n"
        "print(model.encode_query(['> hi']).shape, 'rejoinder' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(1, 16) False"
