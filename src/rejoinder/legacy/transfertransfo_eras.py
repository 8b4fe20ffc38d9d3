"""Which library wrote a folder of transfer-learning-conv-ai, by what its config.json has.

    pytorch_pretrained_bert      nothing but sizes
    pytorch-transformers 1.0, 1.1    output_attentions and the like
    pytorch-transformers 1.2     pruned_heads too
    transformers 2.0 to 2.2      use_bfloat16 too
    transformers 2.3 to 3        model_type
    transformers since 4         its own version

Found by saving models with each of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ONE_TWO = "pytorch-transformers 1.2"
MARKS = {  # the latest first
    "model_type": "transformers 2.3 to 3",
    "use_bfloat16": "transformers 2.0 to 2.2",
    "pruned_heads": ONE_TWO,
    "output_attentions": "pytorch-transformers 1.0 or 1.1",
}


def era_of(config: Mapping[str, Any]) -> str:
    """The library and its version, as far as a config.json tells."""
    version = config.get("transformers_version")
    if isinstance(version, str):
        return f"transformers {version}"
    marks = (library for mark, library in MARKS.items() if mark in config)
    return next(marks, "pytorch_pretrained_bert")


def reads_a_blank(config: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> bool:
    """Whether every text was read with a blank before it, by byte pairs.

    Version 1.2 of pytorch-transformers always did so, no other ever by itself. tokenizer: what
    tokenizer_config.json says.
    """
    return era_of(config) == ONE_TWO or tokenizer.get("add_prefix_space") is True
