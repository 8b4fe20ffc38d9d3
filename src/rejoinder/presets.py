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

# ParlAI's rankers as its projects/polyencoder trains them on ConvAI2 (Humeau et al. 2020).
# The shape of the encoder comes with --init-model, but for output_scaling, which they set anew; a
# pretrained base has no such factor. 362 tokens are 360 between a start and an end.
_PARLAI: dict[str, Any] = {
    "lora": 0,
    "normalise": False,
    "scale": 1.0,
    "learn_scale": False,
    "output_scaling": 0.06,
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "activation_dropout": 0.0,
    "optimizer": "adamax",
    "lr": 5e-5,
    "betas": (0.9, 0.999),
    "eps": 1e-8,
    "weight_decay": 0.0,
    "clip": 0.1,
    "schedule": "plateau",
    "patience": 0,
    "decay": 0.4,
    "warmup": 100,
    "drop_persona": 0.0,
    "shuffle_persona": False,
    "eval_epochs": 0.5,
    "eval_limit": 8000,
    "metric": "hits@1",
    "stop_after": 10,
    "max_time": 3333.0,  # minutes: 200,000 seconds
    "max_history": 20,
    "max_context": 362,
    "max_reply": 72,
    "keep": "newest",
}
PARLAI_BI: dict[str, Any] = {
    **_PARLAI,
    "towers": "separate",
    "pooling": "mean",
    "candidates": "batch",
    "batch_size": 512,
    "epochs": 10.0,
}
PARLAI_POLY: dict[str, Any] = {
    **PARLAI_BI,
    "poly": "codes",
    "codes": 64,
    "attention": "basic",
    "batch_size": 256,
    "epochs": 8.0,
}
PARLAI_CROSS: dict[str, Any] = {
    **_PARLAI,
    "head": "linear",
    "pooling": "first",
    "candidates": "inline",
    "batch_size": 16,
    "warmup": 1000,
    "eval_limit": 2500,
    "epochs": 12.0,
}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "transfertransfo": TRANSFERTRANSFO,
    "parlai-bi": PARLAI_BI,
    "parlai-poly": PARLAI_POLY,
    "parlai-cross": PARLAI_CROSS,
}
KIND_OF = {
    "transfertransfo": "generator",
    "parlai-bi": "bi",
    "parlai-poly": "poly",
    "parlai-cross": "cross",
}
