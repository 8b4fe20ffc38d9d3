"""Our BERT against the library's, and files that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.testing import assert_close

from rejoinder.batching import pad
from rejoinder.errors import CheckpointError
from rejoinder.models.bert import Bert, Dropout, shape_of
from rejoinder.models.pretrained import Base, find_base, load_encoder

IDS, MASK = pad([[2, 5, 6, 7, 8, 9, 3], [2, 9, 3], [2, 3]])


def both(folder: Path, **settings: Any) -> tuple[Any, nn.Module]:
    """The library's BERT with random weights, and what we make of its files."""
    from transformers import BertConfig, BertModel

    sizes: dict[str, Any] = {
        "vocab_size": 50,
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 24,
        "max_position_embeddings": 40,
        "initializer_range": 0.3,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    torch.manual_seed(0)
    theirs = BertModel(BertConfig(**sizes | settings), add_pooling_layer=False)
    for weight in theirs.parameters():
        nn.init.normal_(weight, std=0.3)
    theirs.save_pretrained(folder)
    return theirs, load_encoder(find_base(str(folder)))


def states(model: nn.Module) -> Tensor:
    found: Tensor = model(input_ids=IDS, attention_mask=MASK.long()).last_hidden_state
    return found[MASK]


@pytest.mark.parametrize(
    "settings",
    [{}, {"layer_norm_eps": 1e-3}, {"type_vocab_size": 1}, {"num_attention_heads": 1}],
    ids=str,
)
def test_states_and_gradients_equal_the_library_s(tmp_path: Path, settings: dict[str, Any]) -> None:
    theirs, ours = both(tmp_path, **settings)
    assert isinstance(ours, Bert)
    assert_close(states(ours), states(theirs))
    pull = torch.randn_like(states(ours))
    for model in (ours, theirs):
        (states(model) * pull).sum().backward()
    expected = dict(theirs.named_parameters())
    assert set(expected) == set(dict(ours.named_parameters()))
    for name, weight in ours.named_parameters():
        assert weight.grad is not None
        assert_close(weight.grad, expected[name].grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "changed",
    [{"hidden_act": "relu"}, {"position_embedding_type": "relative_key"}, {"model_type": "xlm"}],
    ids=str,
)
def test_another_kind_of_encoder_is_left_to_the_library(changed: dict[str, str]) -> None:
    sizes = dict.fromkeys(
        ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"), 8
    )
    whole = {**sizes, "intermediate_size": 8, "max_position_embeddings": 8, "model_type": "bert"}
    assert shape_of(whole, Dropout()) is not None
    assert shape_of(whole | changed, Dropout()) is None
    assert shape_of(sizes | {"model_type": "bert"}, Dropout()) is None


def test_an_encoder_that_is_not_gelu_still_loads(tmp_path: Path) -> None:
    theirs, ours = both(tmp_path, hidden_act="relu")
    assert not isinstance(ours, Bert)
    assert_close(states(ours), states(theirs))


def test_names_of_whole_and_of_very_old_checkpoints(tmp_path: Path) -> None:
    theirs, _ = both(tmp_path)
    weights = {
        f"bert.{name}".replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): weight
        for name, weight in load_file(tmp_path / "model.safetensors").items()
    }
    weights["cls.predictions.bias"] = torch.zeros(50)
    save_file(weights, tmp_path / "model.safetensors")
    assert_close(states(load_encoder(find_base(str(tmp_path)))), states(theirs))


@pytest.mark.parametrize("wrong", ["missing", "shape"])
def test_weights_that_do_not_fit_are_named(tmp_path: Path, wrong: str) -> None:
    both(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    name = "encoder.layer.2.output.dense.weight"
    weights[name] = weights[name][:3].clone()
    if wrong == "missing":
        del weights[name]
    save_file(weights, tmp_path / "model.safetensors")
    what = "is missing" if wrong == "missing" else r"has shape \(3, 24\), expected \(16, 24\)"
    with pytest.raises(CheckpointError, match=f"{name} {what}"):
        load_encoder(Base("x", tmp_path, ""))


def test_loading_it_does_not_import_the_library(base: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from rejoinder.models.pretrained import *; "
        f"load_encoder(find_base({str(base)!r})); print('transformers' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"
