"""The shape of an encoder that is built here and not fetched: sizes, and how it is wired.

Rankers from scratch (`--base native`) have one, and those that come from ParlAI, whose names of
options its fields have. What each one does stands in `models.transformer`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rejoinder.config import check_choices, check_finite
from rejoinder.errors import ConfigError

NATIVE = "native"  # the name of the base


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A transformer encoder of our own. The lines under the fields are the command line's help."""

    n_layers: int = 6
    """Layers."""
    n_heads: int = 0
    """Heads of attention in each; 0 = one for every 64 of the width."""
    embedding_size: int = 384
    """Width of all states."""
    ffn_size: int = 0
    """Width between the two linear layers of a layer; 0 = four times the width."""
    n_positions: int = 1024
    """The longest text in tokens."""
    n_segments: int = 2
    """Kinds of tokens; a cross-encoder tells its two sides by them, 0 = none."""
    vocabulary: int = 0
    """Word vectors; of a tokenizer that is learned from the data at most, 0 = 8,000."""
    variant: Literal["xlm", "aiayn", "prelayernorm"] = "xlm"
    """Normalise word vectors and after each part; only after each part; before each part."""
    activation: Literal["gelu", "relu"] = "gelu"
    """Between the two linear layers."""
    learn_positional_embeddings: bool = True
    """Learned vectors of places, or sines and cosines."""
    embeddings_scale: bool = False
    """Multiply word vectors by the root of their width."""
    output_scaling: float = 1.0
    """Factor on all states that come out."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_finite(self)
        for name in ("n_layers", "embedding_size", "n_positions"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected at least 1")
        for name in ("n_heads", "ffn_size", "n_segments", "vocabulary"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected at least 0")
        # What is not said follows the width, and is written down as what it is.
        object.__setattr__(self, "n_heads", self.n_heads or _heads(self.embedding_size))
        object.__setattr__(self, "ffn_size", self.ffn_size or 4 * self.embedding_size)
        if self.embedding_size % self.n_heads:
            raise ConfigError(
                f"n_heads is {self.n_heads}; expected a number that divides embedding_size, "
                f"{self.embedding_size}"
            )
        if self.embedding_size % 2 and not self.learn_positional_embeddings:
            raise ConfigError(
                f"embedding_size is {self.embedding_size}; sines and cosines need an even one"
            )


def _heads(width: int) -> int:
    """One for every 64 of a width, or the next fewer that divide it."""
    return next(count for count in range(max(1, width // 64), 0, -1) if width % count == 0)
