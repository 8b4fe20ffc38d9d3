"""Rankers to export: imported ones with any of ParlAI's options, and ones on learned bytes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from legacy.parlai_checkpoint import make_checkpoint
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from rejoinder import checkpoint
from rejoinder.config import ModelConfig
from rejoinder.legacy.parlai import find_files, import_ranker
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue, Message
from rejoinder.shape import NATIVE, Shape
from rejoinder.text import TextFormat
from rejoinder.tokens import Tokens

CLOSE = 1e-5  # of the largest score, and of 1 at least
ROOM = {"text_truncate": 60, "label_truncate": 20, "n_positions": 90}  # for sample texts
WORDS = [
    "tea",
    "i like tea ,",
    "Hello?!",
    "i'm",
    "a guide .",
    "[SEP] it",
    "naïve Ünsinn",
    "42 < 43",
]


def imported(kind: str = "bi", **options: Any) -> TextRanker:
    """A ranker from ParlAI's files with random weights."""
    with tempfile.TemporaryDirectory() as folder:
        files = find_files(make_checkpoint(Path(folder), kind=kind, **{**ROOM, **options}))
        assert files is not None
        ranker = import_ranker(files).ranker
        ranker.module.load_state_dict({n: w.clone() for n, w in ranker.module.state_dict().items()})
    ranker.name = "imported"
    return ranker


def learned(kind: str = "bi", *, prefix_space: bool = False, **settings: Any) -> TextRanker:
    """A ranker on an encoder of our own that reads bytes, as one that began with nothing."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<pad>", "<start>", "<end>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([f"> {word}?< {word}" for word in WORDS], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 2)]
    )
    shape = Shape(
        n_layers=2,
        n_heads=2,
        embedding_size=16,
        ffn_size=24,
        n_positions=160,
        vocabulary=tokenizer.get_vocab_size(),
    )
    torch.manual_seed(0)
    config = ModelConfig(kind=kind, base=NATIVE, lora=0, **settings)  # type: ignore[arg-type]
    style = TextFormat(max_context=120, max_reply=30)
    ranker = checkpoint.fresh_native(config, shape, Tokens(tokenizer, style))
    stir(ranker)
    return ranker


def stir(ranker: TextRanker, size: float = 0.1) -> None:
    """Leave no weight that learns at the zero or one that it starts with."""
    with torch.no_grad():
        for weight in ranker.module.parameters():
            if weight.requires_grad:
                weight.add_(size * torch.randn_like(weight))


def said(*texts: str, persona: tuple[str, ...] = ()) -> Dialogue:
    """A dialogue of a user, who speaks last, and an assistant."""
    roles = ["user" if place % 2 == 0 else "assistant" for place in range(len(texts))][::-1]
    return Dialogue(tuple(map(Message, roles, texts)), persona)  # type: ignore[arg-type]
