"""Six updates of the weights as ParlAI recorded them: losses, and norms of the gradient.

The batch has three contexts. The bi- and poly-encoder choose among its three replies, the
cross-encoder among an own one and two that all contexts share. Dropout was off, and the learning
rate the one that ParlAI's warm-up of three steps gave.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rejoinder.batching import pad
from rejoinder.config import TrainConfig
from rejoinder.legacy.parlai import find_files, import_ranker
from rejoinder.models.losses import ranking_loss
from rejoinder.models.rankers import CrossEncoder, Encoded
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue, Message
from rejoinder.training.steps import make_optimizer

GOLDEN = Path(__file__).parents[1] / "golden" / "parlai"
RECORDED = json.loads((GOLDEN / "train_steps.json").read_text(encoding="utf-8"))
SCORES = json.loads((GOLDEN / "scores.json").read_text(encoding="utf-8"))
CANDIDATES: list[str] = SCORES["cands"]
CONTEXTS = [*SCORES["contexts"], "what do you drink ?"]
REPLIES = [CANDIDATES[0], CANDIDATES[5], CANDIDATES[1]]
SHARED = [CANDIDATES[2], CANDIDATES[3]]  # beside each context's own, of the cross-encoder
BASE = 5e-5
RATES = [BASE * 1e-4, *RECORDED["bi"]["lr_after"]]  # before each update


@pytest.mark.parametrize("kind", ["bi", "poly", "cross"])
def test_updates_are_those_of_parlai(kind: str) -> None:
    files = find_files(GOLDEN / kind)
    assert files is not None
    ranker = import_ranker(files).ranker
    learned = [p for p in ranker.module.parameters() if p.requires_grad]
    settings = TrainConfig(optimizer="adamax", lr=BASE, weight_decay=0.0)
    optimizer = make_optimizer(learned, settings)
    for step, (losses, norm) in enumerate(
        zip(RECORDED[kind]["losses"], RECORDED[kind]["gnorm"], strict=True)
    ):
        scores = scored(ranker)
        gold = torch.arange(len(scores)) if kind != "cross" else torch.zeros(3, dtype=torch.long)
        found = cross_entropy(scores, gold, reduction="none")
        torch.testing.assert_close(found, torch.tensor(losses), rtol=0, atol=1e-6)
        optimizer.zero_grad()
        whole = torch.ones_like(scores, dtype=torch.bool)
        (ranking_loss(scores, gold, whole) / len(scores)).backward()
        grown = torch.nn.utils.clip_grad_norm_(learned, 0.1)
        assert float(grown) == pytest.approx(norm, rel=1e-4)
        for group in optimizer.param_groups:
            group["lr"] = RATES[step]
        optimizer.step()


def scored(ranker: TextRanker) -> Tensor:
    """Every context with its candidates: (3, 3)"""
    dialogues = [Dialogue((Message("user", text),)) for text in CONTEXTS]
    contexts = Encoded(*pad(ranker.tokens.contexts(dialogues)))
    module = ranker.module
    if not isinstance(module, CrossEncoder):
        candidates = module.encode_candidates(*pad(ranker.tokens.candidates(REPLIES)))
        return module.score(module.encode_context(*contexts), candidates)
    rows = [row for reply in REPLIES for row in ranker.tokens.candidates([reply, *SHARED])]
    owner = torch.arange(3).repeat_interleave(3)
    return module.score_pairs(contexts, Encoded(*pad(rows)), owner).view(3, 3)
