"""Our encoders as models of transformers have the same states."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rejoinder.errors import ConfigError
from rejoinder.exports.encoders import check_told, library_encoder
from rejoinder.exports.joined import Joined, joined
from rejoinder.exports.quiet import quiet
from rejoinder.models.encoder import Encoder
from rejoinder.models.rankers import CrossEncoder
from rejoinder.ranker import TextRanker

from .made import CLOSE, imported

NATIVE: dict[str, dict[str, Any]] = {
    "plain": {},
    "scaled": {"embeddings_scale": True, "output_scaling": 0.06},
    "waves": {"learn_positional_embeddings": False, "activation": "relu"},
    "no segments": {"n_segments": 0, "variant": "bart"},
    "three segments": {"n_segments": 3},
}


def encoder_of(ranker: TextRanker) -> Encoder:
    module = ranker.module
    return module.encoder if isinstance(module, CrossEncoder) else module.context_encoder


def check_same(encoder: Encoder, text: Joined, folder: Path, kinds: bool = False) -> Any:
    """Assert that the saved and loaded library model has the encoder's states; -> it."""
    from transformers import AutoModel

    with quiet():
        library_encoder(encoder, text).save_pretrained(folder)
        load: Any = AutoModel.from_pretrained
        model, info = load(folder, output_loading_info=True)
    assert not any(info.values())
    torch.manual_seed(0)
    ids = torch.randint(0, text.known, (4, 17))
    mask = torch.arange(17) < torch.tensor([[17], [3], [9], [1]])
    second = torch.arange(17).expand(4, -1) > 7
    more: dict[str, Tensor] = {"token_type_ids": second.long()} if kinds else {}
    with torch.inference_mode():
        ours = encoder(ids, mask, second=second if kinds else None)
        theirs = model(input_ids=ids, attention_mask=mask.long(), **more).last_hidden_state
    assert (ours - theirs)[mask].abs().max() <= CLOSE * max(1.0, float(ours.abs().max()))
    return model


@pytest.mark.parametrize("options", NATIVE.values(), ids=NATIVE)
@pytest.mark.parametrize("kind", ["bi", "cross"])
def test_a_native_encoder_is_a_bert(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    ranker = imported(kind, **options)
    text = joined(ranker.tokens)
    encoder = encoder_of(ranker)
    check_told(encoder, "imported")
    check_same(encoder, text, tmp_path, kinds=kind == "cross" and options.get("n_segments") != 0)


def test_ids_beyond_the_dictionary_mean_unknown(tmp_path: Path) -> None:
    ranker = imported(embeddings_scale=True)
    text = joined(ranker.tokens)
    assert text.more > 0
    model = check_same(encoder_of(ranker), text, tmp_path)
    words = model.get_input_embeddings().weight
    assert len(words) == text.known + text.more == text.tokenizer.get_vocab_size()
    assert (words[text.known :] == words[text.unknown]).all()


@pytest.mark.parametrize("variant", ["aiayn", "prelayernorm"])
def test_other_variants_are_refused(variant: str) -> None:
    with pytest.raises(ConfigError, match=f"imported: .* variant {variant}.*export it to onnx"):
        check_told(encoder_of(imported(variant=variant)), "imported")


def test_our_bert_is_the_librarys(make: Callable[..., TextRanker], tmp_path: Path) -> None:
    ranker = make()
    model = check_same(encoder_of(ranker), joined(ranker.tokens), tmp_path)
    assert not model.pooler.dense.weight.any()


@pytest.mark.parametrize("family", ["Roberta", "DistilBert"])
def test_an_encoder_of_the_library_stays_itself(
    family: str, make: Callable[..., TextRanker], base: Path, tmp_path: Path
) -> None:
    import shutil

    import transformers

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    if family == "DistilBert":
        sizes = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}
    config = getattr(transformers, f"{family}Config")(
        vocab_size=400, max_position_embeddings=70, pad_token_id=0, initializer_range=0.3, **sizes
    )
    torch.manual_seed(0)
    folder = tmp_path / "base"
    with quiet():
        getattr(transformers, f"{family}Model")(config).save_pretrained(folder)
    shutil.copy(base / "tokenizer.json", folder)
    ranker = make(base=str(folder))
    model = check_same(encoder_of(ranker), joined(ranker.tokens), tmp_path / "new")
    assert type(model).__name__ == f"{family}Model"
