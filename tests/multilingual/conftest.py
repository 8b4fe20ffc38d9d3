"""A tiny base that reads Spanish, Japanese and Arabic.

A BERT of width 32 with random weights under a tokenizer as XLM-RoBERTa has it: unigrams over NFKC
text, <s> and </s>, padding with number 1.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from .corpus import train_unigrams


@pytest.fixture(scope="session")
def multilingual_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base's folder as the hub would give it."""
    import torch
    from transformers import BertConfig, BertModel

    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("multilingual_base")
    size = train_unigrams(folder / "tokenizer.json")
    config = BertConfig(
        vocab_size=size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=160,
        initializer_range=0.2,
        pad_token_id=1,
    )
    BertModel(config).save_pretrained(folder)
    return folder
