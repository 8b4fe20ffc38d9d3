"""Whether the tensors of a file are weights: numbers with a fraction, none of them infinite."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from rejoinder.errors import CheckpointError


def check_sound(file: Path, weights: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError, naming the file and the tensor, for what no model can compute with."""
    for name, tensor in weights.items():
        if not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(
                f"{file}: {name} is of {kind}; expected numbers of 16 or 32 bits with a fraction, "
                "so the file is of something else, or damaged"
            )
        if not tensor.isfinite().all():
            raise CheckpointError(
                f"{file}: {name} holds what is no number (nan or infinite), so no score would be "
                "one; take an earlier checkpoint of that training"
            )
