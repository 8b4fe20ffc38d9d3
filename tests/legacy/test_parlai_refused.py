"""Files of a ParlAI model that do not fit together are refused, and the message names the file.

The last part is the other side: odd files that belong together all the same.
"""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from rejoinder.errors import CheckpointError
from rejoinder.legacy.parlai import Imported, find_files, import_ranker
from rejoinder.schema import Dialogue, Message

from .parlai_checkpoint import make_checkpoint

FIRST: dict[str, Any] = {"kind": "poly", "polyencoder_type": "n_first"}
SAID = Dialogue((Message("user", "hello , how are you today ?"),), ("i like tea .",))
REPLIES = ["i am fine .", "", "two dogs and a cat ."]


def imported(model: Path) -> Imported:
    files = find_files(model)
    assert files is not None
    return import_ranker(files)


def scores(model: Path) -> Tensor:
    return imported(model).ranker.scores(SAID, REPLIES)


def options_of(model: Path) -> dict[str, Any]:
    return dict(json.loads(Path(f"{model}.opt").read_text(encoding="utf-8")))


def tell(model: Path, /, **changes: Any) -> None:
    """Change options; `...` takes one out."""
    told = {name: x for name, x in (options_of(model) | changes).items() if x is not ...}
    Path(f"{model}.opt").write_text(json.dumps(told), encoding="utf-8")


def reweigh(model: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    """Change the weights of a model file in place."""
    whole = torch.load(model, weights_only=True)
    change(whole["model"])
    torch.save(whole, model)


def refused(model: Path, file: str, *parts: str) -> None:
    """Assert that an import is refused with a message of one line that begins with the file."""
    with pytest.raises(CheckpointError) as caught:
        imported(model)
    text = str(caught.value)
    assert text.startswith(str(model.with_name(file)))
    assert "\n" not in text
    assert [part for part in parts if part not in text] == []


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "bi")


# ----------------------------------------------------------------------------- dictionary and codes


def test_the_dictionary_of_another_model(model: Path, tmp_path: Path) -> None:
    other = make_checkpoint(tmp_path / "other", dict_tokenizer="re")
    Path(f"{model}.dict").write_bytes(Path(f"{other}.dict").read_bytes())
    refused(model, "model.dict", "word vectors", "model.opt")


def test_a_dictionary_that_is_not_there(model: Path) -> None:
    Path(f"{model}.dict").unlink()
    refused(model, "model.dict", "No such file")


def test_an_end_token_that_the_model_did_not_have(model: Path) -> None:
    tell(model, dict_endtoken="__end__")
    refused(model, "model.dict", "end __end__", "dict_endtoken")


@pytest.mark.parametrize("half", [{}, {"fp16": True}], ids=["not-said", "said"])
def test_a_dictionary_of_another_multiple(tmp_path: Path, half: dict[str, Any]) -> None:
    model = make_checkpoint(tmp_path, **half)
    tell(model, fp16=not half)
    refused(model, "model.dict", "fp16")


def test_a_dictionary_line_that_is_none(model: Path) -> None:
    file = Path(f"{model}.dict")
    file.write_text(file.read_text(encoding="utf-8") + "tea\tmuch\n", encoding="utf-8")
    number = len(file.read_text(encoding="utf-8").splitlines())
    refused(model, f"model.dict:{number}", "'tea\\tmuch'")


def test_codes_that_are_not_there(model: Path) -> None:
    Path(f"{model}.dict.codecs").unlink()
    refused(model, "model.dict.codecs", "No such file")


def test_a_line_of_codes_that_is_none(model: Path) -> None:
    file = Path(f"{model}.dict.codecs")
    lines = file.read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join([*lines[:4], "a b c", *lines[4:]]), encoding="utf-8")
    refused(model, "model.dict.codecs:5", "'a b c'")


# ------------------------------------------------------------------------------ options and weights

OTHERS: list[tuple[dict[str, Any], dict[str, Any], str, str]] = [
    ({}, {"n_layers": 3}, "model", "n_layers 2, but model.opt says 3"),
    ({}, {"n_layers": 1}, "model", "n_layers 2, but model.opt says 1"),
    ({}, {"n_encoder_layers": 4}, "model", "n_layers 2, but model.opt says 4"),
    ({}, {"embedding_size": 32}, "model", "embedding_size 16, but model.opt says 32"),
    ({}, {"ffn_size": 25}, "model", "ffn_size 24"),
    ({}, {"n_positions": 64}, "model", "n_positions 40"),
    ({}, {"n_segments": 0}, "model", "n_segments 2"),
    ({}, {"variant": "aiayn"}, "model", "norm_embeddings"),
    ({"variant": "aiayn"}, {"variant": "xlm"}, "model", "norm_embeddings"),
    ({}, {"variant": "best"}, "model.opt", "variant is 'best'; expected"),
    ({}, {"activation": "swish"}, "model.opt", "activation is 'swish'"),
    ({}, {"n_heads": 3}, "model.opt", "n_heads is 3"),
    ({}, {"n_heads": "2"}, "model.opt", "n_heads is '2'"),
    ({}, {"share_encoders": True}, "model", "mlp"),
    ({"share_encoders": True}, {"share_encoders": False}, "model", "candidate_encoder"),
    ({}, {"share_word_embeddings": True}, "model", "embeddings"),
    ({}, {"model": "transformer/polyencoder"}, "model", "transformer/polyencoder"),
    ({}, {"model": "transformer/crossencoder"}, "model", "transformer/crossencoder"),
    ({"kind": "cross"}, {"model": "transformer/biencoder"}, "model", "transformer/biencoder"),
    (FIRST, {"polyencoder_type": "codes"}, "model", "codes"),
    ({"kind": "poly"}, {"polyencoder_type": "n_first"}, "model", "codes"),
    ({"kind": "poly"}, {"poly_n_codes": 7}, "model", "codes has shape (5, 16)"),
    (FIRST, {"polyencoder_type": "n_last"}, "model.opt", "n_last"),
    (FIRST, {"poly_attention_type": "multihead"}, "model", "multihead"),
    ({"kind": "poly"}, {"codes_attention_type": "multihead"}, "model", "multihead"),
    ({}, {"dict_tokenizer": "gpt2"}, "model.opt", "dict_tokenizer is 'gpt2'; expected bpe"),
    ({}, {"model": "transformer/generator"}, "model.opt", "transformer/generator"),
    ({}, {"model": ...}, "model.opt", "model is ''"),
    ({}, {"use_memories": True}, "model.opt", "use_memories is True"),
    ({}, {"history_reversed": True}, "model.opt", "history_reversed is True"),
    ({}, {"reduction_type": "none"}, "model.opt", "reduction_type"),
    ({}, {"output_scaling": "much"}, "model.opt", "much"),
]


@pytest.mark.parametrize(
    ("made", "changes", "file", "part"),
    OTHERS,
    ids=[" ".join(f"{k}={v}" for k, v in (*a.items(), *b.items())) for a, b, _, _ in OTHERS],
)
def test_the_options_of_another_model(
    tmp_path: Path, made: dict[str, Any], changes: dict[str, Any], file: str, part: str
) -> None:
    model = make_checkpoint(tmp_path, **made)
    tell(model, **changes)
    refused(model, file, part)


@pytest.mark.parametrize(
    ("lacking", "part"),
    [
        ("context_encoder.layers.1.ffn.lin2.bias", "ffn.lin2.bias"),
        ("cand_encoder.position_embeddings.weight", "position_embeddings.weight"),
        ("cand_encoder.norm_embeddings.weight", "norm_embeddings.weight"),
        ("context_encoder.position_embeddings.weight", "n_positions 0"),
        ("context_encoder.embeddings.weight", "context_encoder"),
    ],
)
def test_a_tensor_that_is_missing(model: Path, lacking: str, part: str) -> None:
    reweigh(model, lambda weights: weights.pop(lacking))
    refused(model, "model", part)


@pytest.mark.parametrize(
    "extra",
    ["cand_encoder.layers.2.norm1.bias", "codes", "linear_layer.bias", "memory_transformer.x.bias"],
)
def test_a_tensor_that_is_too_much(model: Path, extra: str) -> None:
    reweigh(model, lambda weights: weights.update({extra: torch.ones(16)}))
    refused(model, "model", extra)


def test_a_copy_that_is_none(model: Path) -> None:
    name = "memory_transformer.layers.0.norm1.bias"
    reweigh(model, lambda weights: weights.update({name: weights[name] + 1}))
    refused(model, "model", name)


def test_a_tensor_of_another_shape(model: Path) -> None:
    name = "cand_encoder.layers.1.norm2.weight"
    reweigh(model, lambda weights: weights.update({name: torch.ones(8)}))
    refused(model, "model", "(8,)", "(16,)")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_model_file_that_was_cut(tmp_path: Path, legacy: bool, share: float) -> None:
    model = make_checkpoint(tmp_path, legacy=legacy)
    whole = model.read_bytes()
    model.write_bytes(whole[: int(share * len(whole))])
    refused(model, "model")


@pytest.mark.parametrize("content", [{"model": [1]}, {"model": {"a": 1}}, [torch.ones(2)], "text"])
def test_a_model_file_that_holds_something_else(model: Path, content: Any) -> None:
    torch.save(content, model)
    refused(model, "model")


@pytest.mark.parametrize(
    "content", [b"", b"hello\n", b"{'model': 1}", b'{"model": ', b"[1]", pickle.dumps([1])]
)
def test_options_that_are_none(model: Path, content: bytes) -> None:
    Path(f"{model}.opt").write_bytes(content)
    refused(model, "model.opt")


# -------------------------------------------------------------------------------- which files it is


def test_a_model_is_found_by_its_file_and_by_its_folder(model: Path) -> None:
    Path(f"{model}.trainstats").write_text("{}", encoding="utf-8")
    for name in ("", ".opt", ".dict", ".dict.opt", ".dict.codecs"):  # of the last validation
        Path(f"{model}.checkpoint{name}").write_bytes(b"")
    found = find_files(model)
    assert found is not None
    assert found.model == model
    assert found.codes == model.with_name("model.dict.codecs")
    assert find_files(model.parent) == found


def test_a_checkpoint_of_training_can_be_named_too(model: Path) -> None:
    for name in ("", ".opt", ".dict", ".dict.opt", ".dict.codecs"):
        Path(f"{model}{name}").rename(f"{model}.checkpoint{name}")
    found = find_files(model.parent)
    assert found is not None
    assert found.model.name == "model.checkpoint"
    assert len(import_ranker(found).ranker.scores(SAID, REPLIES)) == 3


def test_several_models_in_one_folder(model: Path) -> None:
    make_checkpoint(model.parent / "more")
    for name in ("", ".opt", ".dict", ".dict.opt", ".dict.codecs"):
        Path(f"{model.parent / 'more' / 'model'}{name}").rename(f"{model.parent / 'second'}{name}")
    with pytest.raises(CheckpointError, match=r"has 2 models \(model, second\)") as caught:
        find_files(model.parent)
    assert str(caught.value).startswith(str(model.parent))
    found = find_files(model.parent / "second")
    assert found is not None
    assert found.dictionary.name == "second.dict"


def test_what_is_no_model_of_parlai(tmp_path: Path, model: Path) -> None:
    Path(f"{model}.opt").unlink()
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "empty", tmp_path / "not-there", model, model.parent):
        assert find_files(source) is None


# ---------------------------------------------------------------------- odd, and all the same whole


@pytest.mark.parametrize(
    ("module", "protocol"),
    [("parlai.core.utils", 0), ("parlai.utils.misc", 2), ("parlai.core.opt", 4)],
)
def test_pickled_options_of_old_versions(
    model: Path, monkeypatch: pytest.MonkeyPatch, module: str, protocol: int
) -> None:
    expected, told = scores(model), options_of(model)
    kind = type("Opt", (dict,), {"__module__": module})
    for end in range(1, len(module.split(".")) + 1):
        name = ".".join(module.split(".")[:end])
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules[module], "Opt", kind, raising=False)
    opt = kind(told)
    opt.history = [("n_heads", 2, "<file>")]
    Path(f"{model}.opt").write_bytes(pickle.dumps(opt, protocol))
    assert torch.equal(scores(model), expected)
    Path(f"{model}.opt").write_bytes(pickle.dumps(told, protocol))
    assert torch.equal(scores(model), expected)


def test_names_of_several_gpus(model: Path) -> None:
    expected = scores(model)
    whole = torch.load(model, weights_only=True)
    whole["model"] = {f"module.{name}": tensor for name, tensor in whole["model"].items()}
    torch.save(whole, model)
    assert torch.equal(scores(model), expected)


def test_sizes_that_are_not_said_are_those_of_the_weights(model: Path) -> None:
    expected = scores(model)
    tell(model, n_positions=None, n_layers=..., embedding_size=..., ffn_size=..., n_segments=...)
    assert torch.equal(scores(model), expected)


def test_what_was_left_and_changed_is_said(tmp_path: Path) -> None:
    model = make_checkpoint(
        tmp_path, fp16=True, half=True, training=True, variant="prelayernorm", legacy=True
    )
    notes = " / ".join(imported(model).notes)
    for part in ("optimizer", "warmup_scheduler", "16 bits", "fp16", "there twice", "padding is"):
        assert part in notes
    assert imported(make_checkpoint(tmp_path / "plain", kind="poly")).notes == []


def test_weights_that_are_no_numbers(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path, **FIRST)
    name = "encoder_ctxt.layers.0.attention.q_lin.weight"
    reweigh(model, lambda weights: weights[name].fill_(torch.nan))
    refused(model, "model", name, "holds what is no number")
    reweigh(model, lambda weights: weights.update({name: weights[name].nan_to_num().int()}))
    refused(model, "model", name, "is of int32")
