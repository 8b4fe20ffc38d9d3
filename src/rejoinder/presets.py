"""Settings of published recipes, as a whole, to begin with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# TransferTransfo as its README trains it (Wolf et al. 2019, huggingface/transfer-learning-conv-ai):
# 8 processes of 2 dialogues, 4 of them summed up; 2 orders of the persona make 1 epoch 2 of ours;
# a history of 2 exchanges and the last message is 5 messages. The base is left to --base.
TRANSFERTRANSFO: dict[str, Any] = {
    "layout": "speakers",
    "lora": 0,
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "choice_dropout": 0.1,
    "lm_coef": 2.0,
    "mc_coef": 1.0,
    "epochs": 2.0,
    "batch_size": 64,
    "candidates": "inline",
    "negatives": 3,
    "lr": 6.25e-5,
    "optimizer": "adamw",
    "betas": (0.9, 0.999),
    "eps": 1e-6,
    "weight_decay": 0.0,
    "clip": 1.0,
    "schedule": "linear",
    "warmup": 0,
    "drop_persona": 0.0,
    "shuffle_persona": True,
    "max_history": 5,
    "max_context": 256,
    "max_reply": 64,
}

PRESETS: Mapping[str, Mapping[str, Any]] = {"transfertransfo": TRANSFERTRANSFO}
