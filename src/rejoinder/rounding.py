"""Weights in fewer bits on disk: halves, or whole numbers from -127 to 127 with a factor a row.

Of int8 only matrices are made; what is small beside them is kept in fp16. In memory all is fp32.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

FACTORS = ".row_factors"  # behind a matrix' name, the (rows,) that its whole numbers are times
LEAST = 4096  # numbers in a matrix that is worth it


def rounded(weights: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Weights as they are written: floats in `dtype`, all as they are if that is None."""
    found: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if dtype is None or not weight.is_floating_point():
            found[name] = weight
        elif dtype == torch.int8 and weight.ndim == 2 and weight.numel() >= LEAST:
            factors = weight.float().abs().amax(1).clamp(min=1e-12) / 127
            found[name] = (weight.float() / factors[:, None]).round().to(torch.int8)
            found[name + FACTORS] = factors
        else:
            found[name] = weight.to(torch.float16 if dtype == torch.int8 else dtype)
    return found


def unrounded(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What was written by `rounded`; whole numbers times their factors are fp32 again."""
    found = {name: weight for name, weight in weights.items() if not name.endswith(FACTORS)}
    for name, factors in weights.items():
        matrix = found.get(name.removesuffix(FACTORS)) if name.endswith(FACTORS) else None
        if matrix is not None:
            found[name.removesuffix(FACTORS)] = matrix.float() * factors.float()[:, None]
    return found
