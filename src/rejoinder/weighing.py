"""How much a persona weighs in the choice of a reply.

Over twenty candidates the persona is the best hint there is. Over a hundred thousand something
always shares a word with it, whether it answers or not. So an agent takes the weighted mean of two
scores, of the dialogue as it is and of the same without its persona; scores are log-probabilities
up to a constant, so this is a geometric mean of two probabilities (a product of experts, Hinton
2002, doi:10.1162/089976602760128018). Weight 1 is the model as trained, 0 one that has no persona.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rejoinder.errors import ConfigError
from rejoinder.schema import Dialogue

if TYPE_CHECKING:
    from torch import Tensor

PERSONA_WEIGHT = 0.7  # of an agent; docs/experiments.md has what others give


def check_weight(persona_weight: float) -> None:
    """Raise ConfigError for a weight outside of 0 to 1."""
    if not 0 <= persona_weight <= 1:
        raise ConfigError(
            f"persona_weight is {persona_weight}; expected 0 (the persona has no say) to 1 "
            f"(it counts in full), so give one between, or leave it at {PERSONA_WEIGHT}"
        )


def views(dialogue: Dialogue, persona_weight: float) -> list[tuple[Dialogue, float]]:
    """The dialogues to score, with their shares, which sum to one.

    Raises ConfigError for a weight outside of 0 to 1.
    """
    check_weight(persona_weight)
    plain = replace(dialogue, persona=(), partner_persona=())
    both = [(dialogue, persona_weight), (plain, 1 - persona_weight)]
    if plain == dialogue:
        return [(dialogue, 1.0)]
    return [(seen, share) for seen, share in both if share]


def weighted(scores: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """The sum of each view's scores times its share: several (N,) -> (N,)"""
    parts = [share * one for share, one in zip(shares, scores, strict=True)]
    return sum(parts[1:], parts[0])
