"""ParlAI's rankers as ours give the token ids, scores and replies that ParlAI itself recorded."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rejoinder import checkpoint
from rejoinder.batching import pad
from rejoinder.errors import ConfigError
from rejoinder.index import Index
from rejoinder.legacy.parlai import Imported, find_files, import_ranker
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue, Message

from . import parlai_reference as reference

GOLDEN = Path(__file__).parents[1] / "golden" / "parlai"
RECORDED = json.loads((GOLDEN / "scores.json").read_text(encoding="utf-8"))
TEXTS: list[str] = RECORDED["contexts"]
CANDIDATES: list[str] = RECORDED["cands"]
SAID = [Dialogue((Message("user", text),)) for text in TEXTS]
NAMES = list(RECORDED["models"])
KEPT = [name for name in NAMES if name != "cross"]
CLOSE = 1e-5  # of the largest score of a row


def imported(model: Path) -> Imported:
    files = find_files(model)
    assert files is not None
    return import_ranker(files)


def same(found: Tensor, expected: Any) -> None:
    """Assert that scores (N,) or (B, N) differ by no more than rounding does."""
    expected = torch.as_tensor(expected).double()
    assert found.shape == expected.shape
    off = (found.double() - expected).abs() / expected.abs().amax(-1, keepdim=True)
    assert off.max() <= CLOSE, f"off by {off.max():.1e} of the largest score"


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_reads_and_scores_as_recorded(name: str) -> None:
    model, recorded = GOLDEN / name / "model", RECORDED["models"][name]
    reader, weights = reference.reader_of(model), reference.weights_of(model)
    contexts = [reference.context_ids([("p1", text)], reader) for text in TEXTS]
    candidates = [reference.candidate_ids(text, reader) for text in CANDIDATES]
    assert contexts == recorded["text_vec"]
    assert candidates == recorded["cand_vecs"]

    def score(rows: reference.Rows) -> Tensor:
        lists = [candidates] * len(rows)
        return reference.inline_scores(weights, reader.options, rows, lists)

    same(torch.cat([score([row]) for row in contexts]), recorded["scores_single"])
    same(score(contexts), recorded["scores_batched"])
    if name in KEPT:
        fixed = [
            reference.fixed_scores(weights, reader.options, [row], candidates) for row in contexts
        ]
        assert reference.padded(candidates).tolist() == recorded["fixed_vecs"]
        same(torch.cat(fixed), recorded["scores_fixed"])
        labels = [candidates[0]] * 2
        batch = reference.fixed_scores(weights, reader.options, contexts, labels)
        same(batch, recorded["scores_batchcands"])


@dataclass(frozen=True)
class Golden:
    """A recorded model as ours, and what was recorded."""

    ranker: TextRanker
    recorded: dict[str, Any]

    @property
    def batch_changed_nothing(self) -> bool:
        """Whether a context scored in ParlAI's padded batch as it did alone."""
        return bool(self.recorded["max_abs_single_vs_batched"] < 1e-6)

    def order(self, place: int) -> list[str]:
        """Of the replies to a context alone; the one that was recorded is of the batch."""
        if self.batch_changed_nothing:
            return list(self.recorded["reply_order"][place])
        scores = dict(zip(CANDIDATES, self.recorded["scores_single"][place], strict=True))
        return sorted(scores, key=lambda text: -scores[text])


@pytest.fixture(scope="module", params=["imported", "saved"])
def take(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The ranker of a golden model, right away or after saving and loading it."""
    folder = tmp_path_factory.mktemp("golden")

    def taken(name: str) -> Golden:
        ranker = imported(GOLDEN / name / "model").ranker
        if request.param == "saved":
            checkpoint.save(ranker, folder / name)
            ranker = checkpoint.load(folder / name)
        return Golden(ranker, RECORDED["models"][name])

    return taken


Take = Callable[[str], Golden]


@pytest.mark.parametrize("name", NAMES)
def test_token_ids_are_those_recorded(take: Take, name: str) -> None:
    golden = take(name)
    rows = golden.ranker.tokens.candidates(CANDIDATES)
    assert golden.ranker.tokens.contexts(SAID) == golden.recorded["text_vec"]
    assert rows == golden.recorded["cand_vecs"]
    if name in KEPT:
        assert pad(rows, golden.ranker.tokens.pad)[0].tolist() == golden.recorded["fixed_vecs"]


@pytest.mark.parametrize("name", NAMES)
def test_scores_and_order_are_those_recorded(take: Take, name: str) -> None:
    golden = take(name)
    single = golden.recorded["scores_single"]
    for dialogue, row in zip(SAID, single, strict=True):
        same(golden.ranker.scores(dialogue, CANDIDATES), row)
    same(torch.stack(golden.ranker.score_many(SAID, [CANDIDATES] * 2)), single)
    if golden.batch_changed_nothing:
        found = golden.ranker.score_many(SAID, [CANDIDATES] * 2)
        same(torch.stack(found), golden.recorded["scores_batched"])
    for place, dialogue in enumerate(SAID):
        ranking = golden.ranker.rank(dialogue, CANDIDATES)
        assert [CANDIDATES[i] for i in ranking.order] == golden.order(place)
        assert CANDIDATES[ranking.order[0]] == golden.recorded["reply"][place]


@pytest.mark.parametrize("name", KEPT)
def test_kept_candidates_score_as_recorded(take: Take, name: str) -> None:
    golden = take(name)
    ranker, fixed = golden.ranker, golden.recorded["scores_fixed"]
    vectors = ranker.encode_candidates(CANDIDATES)
    assert list(vectors.shape) == golden.recorded["fixed_encs_shape"][-2:]
    same(ranker.score(ranker.encode_contexts(SAID), vectors), fixed)
    index = Index.build(ranker, CANDIDATES)
    for place, dialogue in enumerate(SAID):
        found = index.search(dialogue, k=len(CANDIDATES))
        same(torch.tensor(found.scores), [fixed[place][number] for number in found.numbers])
        assert [index.texts[number] for number in found.numbers] == golden.order(place)


def test_a_recorded_cross_encoder_keeps_no_candidates(take: Take) -> None:
    with pytest.raises(ConfigError, match="take a bi- or poly-encoder"):
        take("cross").ranker.encode_candidates(CANDIDATES)


@pytest.mark.parametrize("name", NAMES)
def test_a_persona_is_what_was_typed_with_the_first_message(take: Take, name: str) -> None:
    golden = take(name)
    about = ("i like tea.", "i own a small library.")
    dialogue = Dialogue((Message("user", "hello , how are you today ?"),), about)
    assert golden.ranker.tokens.contexts([dialogue]) == golden.recorded["text_vec"][:1]
    same(golden.ranker.scores(dialogue, CANDIDATES), golden.recorded["scores_single"][0])
