"""How a reply is written: the settings; `models.decoding` follows them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rejoinder.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How a reply is written."""

    max_length: int = 40
    """Tokens of a reply, at most."""
    min_length: int = 1
    """Tokens of a reply, at least."""
    temperature: float = 0.7
    """Scores are divided by it before sampling: less is safer, more is livelier."""
    top_k: int = 0
    """Sample among the k most likely tokens; 0 = all."""
    top_p: float = 0.9
    """Sample among the most likely tokens that have this share together; 1 = all."""
    greedy: bool = False
    """Always the most likely token."""
    beams: int = 1
    """Keep so many beginnings and end with the likeliest reply; more than 1 does not sample."""
    no_repeat: int = 0
    """No sequence of so many tokens twice in a reply; 0 = whatever comes."""
    seed: int = 0
    """Of sampling; the same seed gives the same reply."""

    def __post_init__(self) -> None:
        for name, least in (("max_length", 1), ("min_length", 1), ("beams", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected at least {least}")
        for name in ("top_k", "no_repeat"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 0 or more")
        if self.min_length > self.max_length:
            raise ConfigError(
                f"min_length is {self.min_length}, more than max_length, {self.max_length}"
            )
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}; expected more than 0, at most 1")
        if not 0 < self.temperature < math.inf:
            raise ConfigError(
                f"temperature is {self.temperature}; expected a number above 0 (or take greedy)"
            )
        if not 0 <= self.seed < 2**48:
            raise ConfigError(f"seed is {self.seed}; expected 0 up to (not including) 2**48")
