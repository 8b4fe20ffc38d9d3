"""A generator with word vectors of its own -> one that adds a small product to the base's.

    python tools/low_rank_words.py RUN OUT --rank 32 --data DIALOGUES ...

The difference from the base's vectors is replaced by the nearest matrix of that rank, in which a
token counts as often as the dialogues have it (once more than not at all). Layers stay as they are.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from rejoinder import generators, saved
from rejoinder.data import read
from rejoinder.errors import ConfigError, RejoinderError
from rejoinder.generator import TextGenerator
from rejoinder.models.build import build_generator
from rejoinder.models.pretrained import find_base
from rejoinder.weights import word_names


def low_rank(generator: TextGenerator, rank: int, counts: Tensor) -> TextGenerator:
    """The same generator with `rank` numbers for each word; counts (V,) weigh the tokens."""
    old = generator.config
    if old.lora or old.words_rank or old.freeze_embeddings:
        raise ConfigError("the word vectors are the base's or of low rank already; nothing to do")
    config = replace(old, freeze_embeddings=True, words_rank=rank)
    module = build_generator(config, find_base(old.base, old.base_sha256))
    change = generator.module.body.words - module.body.words
    weight = counts.double().add(1).sqrt()[:, None]
    _, _, right = torch.linalg.svd((change.double() * weight), full_matrices=False)
    kept = right[:rank]  # (r, D), orthonormal rows
    state, words = generator.module.state_dict(), word_names(module)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name in state and name not in words:
                tensor.copy_(state[name])
        assert module.shift_in is not None
        assert module.shift_out is not None
        module.shift_in.copy_(kept)
        module.shift_out.copy_(change.double() @ kept.T)
    made = TextGenerator(module, generator.layout, config)
    made.template = generator.template
    return made


def counted(generator: TextGenerator, files: Iterable[Path]) -> Tensor:
    """How often each token comes in some dialogues: -> (V,)"""
    found: Counter[int] = Counter()
    for file in files:
        for dialogue in read(file):
            texts = [*dialogue.persona, *(message.content for message in dialogue.messages)]
            found.update(i for row in generator.layout.pieces.ids(texts) for i in row)
    counts = torch.zeros(len(generator.module.body.words))
    for token, count in found.items():
        counts[token] = count
    return counts


def main() -> None:
    """Parse, read, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    asked = parser.parse_args()
    generator = generators.load(asked.run)
    made = low_rank(generator, asked.rank, counted(generator, asked.data))
    folder = saved.resolve(asked.run)
    training = saved.read_config(folder).get("training") or {}
    generators.save(made, asked.out, card=saved.card_of(folder), training=training)
    print(asked.out)


if __name__ == "__main__":
    try:
        main()
    except (RejoinderError, OSError) as error:
        sys.exit(f"{Path(__file__).name}: {error}")
