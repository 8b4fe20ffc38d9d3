"""A generator, a ranker and an index that agents are made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rejoinder import generators
from rejoinder.config import GeneratorConfig
from rejoinder.generator import TextGenerator
from rejoinder.index import Index
from rejoinder.ranker import TextRanker
from rejoinder.text import TextFormat

TEXTS = ["i like tea .", "i like dogs .", "it rained .", "my brother plays chess .", "see you ."]


@pytest.fixture(scope="session")
def generator(base: Path) -> TextGenerator:
    style = TextFormat(max_context=44, max_reply=16)
    made = generators.fresh(GeneratorConfig(base=str(base)), style)
    torch.manual_seed(3)
    for weight in (made.module.added, made.module.choice.weight):
        torch.nn.init.normal_(weight, std=0.4)
    return made


@pytest.fixture(scope="session")
def index(make: Callable[..., TextRanker]) -> Index:
    return Index.build(make(kind="poly"), TEXTS)
