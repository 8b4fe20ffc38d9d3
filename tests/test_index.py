"""An index gives what scoring everything afresh gives, and never what another model gave."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rejoinder.errors import ConfigError, IndexStale, RejoinderError
from rejoinder.index import PART, Index, read_info
from rejoinder.ranker import Precision, TextRanker
from rejoinder.schema import Dialogue, Message

Make = Callable[..., TextRanker]
THINGS = ("tea", "dogs", "rain", "chess", "music", "snow", "books")
TEXTS = [f"i like {a} more than {b} ." for a in THINGS for b in THINGS if a != b]
ASKED = Dialogue((Message("user", "do you like dogs ?"),), ("i love tea .",))


def with_vectors(ranker: TextRanker) -> TextRanker:
    if ranker.is_cross:
        pytest.skip("a cross-encoder keeps no vectors")
    return ranker


def test_search_is_scoring_everything(ranker: TextRanker) -> None:
    index = Index.build(with_vectors(ranker), TEXTS)
    fresh = ranker.scores(ASKED, TEXTS)
    found = index.search(ASKED, 7)
    order = fresh.argsort(descending=True, stable=True)
    torch.testing.assert_close(torch.tensor(found.scores), fresh[order[:7]], rtol=1e-5, atol=1e-5)
    assert set(found.numbers) == set(order[:7].tolist())
    assert found.crowd.best == pytest.approx(float(fresh.max()), rel=1e-5, abs=1e-5)
    assert found.crowd.mean == pytest.approx(float(fresh.mean()), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_search_may_know_the_persona_in_part(make: Make, precision: Precision) -> None:
    index = Index.build(make(kind="poly"), TEXTS, precision=precision)
    plain = Dialogue(ASKED.messages)
    both = index.ranker.scores(ASKED, TEXTS), index.ranker.scores(plain, TEXTS)
    wanted = 0.3 * both[0] + 0.7 * both[1]
    found = index.search(ASKED, 5, persona_weight=0.3)
    near = 1e-5 if precision == "fp32" else 0.05
    close = wanted[list(found.numbers)]
    torch.testing.assert_close(torch.tensor(found.scores), close, rtol=near, atol=near)
    assert found.crowd.mean == pytest.approx(float(wanted.mean()), rel=0.02, abs=0.02)
    spread = float(wanted.std(correction=0))
    assert found.crowd.spread == pytest.approx(spread, rel=0.05, abs=near)


def test_blocks_change_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index.build(make(kind="poly", poly="all"), TEXTS)
    context = index.ranker.encode_contexts([ASKED])
    whole = index.scores(context)
    monkeypatch.setattr("rejoinder.index.BLOCK", 5)
    torch.testing.assert_close(index.scores(context), whole)


@pytest.mark.parametrize(
    "shape",
    [{"poly": "codes"}, {"poly": "all"}, {"poly": "codes", "attention": "multihead"}],
    ids=["codes", "all", "multihead"],
)
def test_bf16_stays_near_and_its_best_are_put_in_exact_order(
    make: Make, shape: dict[str, str]
) -> None:
    ranker = make(kind="poly", **shape)
    rough = Index.build(ranker, TEXTS, precision="bf16")
    exact = ranker.scores(ASKED, TEXTS)
    context = ranker.encode_contexts([ASKED])
    scale = float(exact.abs().max())
    near = 0.1 if "attention" in shape else 0.03  # projections round once more
    torch.testing.assert_close(rough.scores(context), exact, atol=near * scale, rtol=0)
    scores = rough.search(ASKED, 10).scores
    assert list(scores) == sorted(scores, reverse=True)


def test_saved_and_loaded_is_the_same(make: Make, tmp_path: Path) -> None:
    ranker = make(kind="bi")
    ranker.fingerprint = "one"
    index = Index.build(ranker, TEXTS, out=tmp_path / "index", source="test")
    again = Index.load(tmp_path / "index", ranker)
    assert again.texts == index.texts
    assert again.search(ASKED, 5) == index.search(ASKED, 5)
    assert read_info(tmp_path / "index")["size"] == len(TEXTS)
    assert not list(tmp_path.glob(".*")), "a finished build leaves nothing behind"


def test_another_model_is_refused(make: Make, tmp_path: Path) -> None:
    ranker, other = make(kind="bi"), make(kind="bi", seed=1)
    ranker.fingerprint, other.fingerprint = "one", "two"
    Index.build(ranker, TEXTS, out=tmp_path / "index")
    with pytest.raises(IndexStale, match="build it again"):
        Index.load(tmp_path / "index", other)


def test_edited_candidates_are_refused(make: Make, tmp_path: Path) -> None:
    ranker = make(kind="bi")
    Index.build(ranker, TEXTS, out=tmp_path / "index")
    file = tmp_path / "index" / "candidates.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([json.dumps("something else"), *lines[1:]]) + "\n")
    with pytest.raises(IndexStale, match="changed after the index was built"):
        Index.load(tmp_path / "index", ranker)


def test_a_folder_that_is_no_index(tmp_path: Path) -> None:
    with pytest.raises(RejoinderError, match="rejoinder index build"):
        read_info(tmp_path)


def test_added_later_is_built_at_once(make: Make) -> None:
    ranker = make(kind="poly")
    grown = Index.build(ranker, TEXTS[:20])
    grown.add([*TEXTS[10:], TEXTS[0]])
    whole = Index.build(ranker, TEXTS)
    assert grown.texts == whole.texts
    torch.testing.assert_close(grown.vectors, whole.vectors, rtol=1e-5, atol=1e-6)


def test_repeated_candidates_are_one(make: Make) -> None:
    assert Index.build(make(kind="bi"), [*TEXTS, *TEXTS]).texts == TEXTS


def test_a_broken_build_goes_on(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranker = make(kind="bi")
    monkeypatch.setattr("rejoinder.index.PART", 10)
    encoded: list[int] = []
    encode = TextRanker.encode_candidates

    def breaks(
        self: TextRanker, texts: list[str], progress: object = None, width: int = 0
    ) -> torch.Tensor:
        if len(encoded) == 2:
            raise KeyboardInterrupt
        encoded.append(len(texts))
        return encode(self, texts, width=width)

    with monkeypatch.context() as broken:
        broken.setattr(TextRanker, "encode_candidates", breaks)
        with pytest.raises(KeyboardInterrupt):
            Index.build(ranker, TEXTS, out=tmp_path / "index")
    seen: list[int] = []

    def counts(
        self: TextRanker, texts: list[str], progress: object = None, width: int = 0
    ) -> torch.Tensor:
        seen.append(len(texts))
        return encode(self, texts, width=width)

    monkeypatch.setattr(TextRanker, "encode_candidates", counts)
    index = Index.build(ranker, TEXTS, out=tmp_path / "index")
    assert sum(seen) == len(TEXTS) - 20, "what was encoded before is not encoded again"
    monkeypatch.undo()
    fresh = Index.build(ranker, TEXTS)
    torch.testing.assert_close(index.vectors, fresh.vectors, rtol=1e-5, atol=1e-6)
    assert PART > 10


def test_nothing_to_index_and_no_vectors(make: Make) -> None:
    with pytest.raises(ConfigError, match="no candidates"):
        Index.build(make(kind="bi"), [])
    with pytest.raises(ConfigError, match="cross-encoder"):
        Index.build(make(kind="cross"), TEXTS)


def test_missing_vectors_are_a_broken_index(make: Make, tmp_path: Path) -> None:
    ranker = make(kind="bi")
    Index.build(ranker, TEXTS, out=tmp_path / "index")
    (tmp_path / "index" / "vectors.safetensors").unlink()
    with pytest.raises(RejoinderError, match="build it again"):
        Index.load(tmp_path / "index", ranker)
    shutil.rmtree(tmp_path / "index")
