"""Rankers that read text: what must not change a score, and what a ranking holds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from rejoinder.confidence import Confidence, Crowd
from rejoinder.errors import ConfigError, RejoinderError
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue, Message

Make = Callable[..., TextRanker]
close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-4)  # of scores around 20


def test_many_at_once_equal_one_at_a_time(
    ranker: TextRanker, dialogues: list[Dialogue], replies: list[str]
) -> None:
    lists = [replies[i : i + 3] for i in range(len(dialogues))]
    together = ranker.score_many(dialogues, lists)
    for dialogue, texts, scores in zip(dialogues, lists, together, strict=True):
        assert scores.dtype == torch.float32
        close(scores, torch.stack([ranker.scores(dialogue, [text])[0] for text in texts]))


def test_order_and_size_of_batches_change_nothing(
    ranker: TextRanker,
    dialogues: list[Dialogue],
    replies: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = ranker.score_many(dialogues, [replies] * len(dialogues))
    turned = ranker.score_many(dialogues[::-1], [replies] * len(dialogues))
    close(torch.stack(turned[::-1]), torch.stack(wanted))
    monkeypatch.setattr("rejoinder.ranker.BUDGET", 60)  # tokens: one to five rows in a batch
    small = ranker.score_many(dialogues, [replies] * len(dialogues))
    close(torch.stack(small), torch.stack(wanted))


def test_permuting_candidates_permutes_scores(
    ranker: TextRanker, dialogues: list[Dialogue], replies: list[str]
) -> None:
    order = torch.randperm(len(replies), generator=torch.Generator().manual_seed(0))
    mixed = ranker.scores(dialogues[1], [replies[i] for i in order])
    close(mixed, ranker.scores(dialogues[1], replies)[order])


def test_a_candidate_named_twice_has_one_score(
    ranker: TextRanker, dialogues: list[Dialogue]
) -> None:
    scores = ranker.scores(dialogues[1], ["rain", "yes", *["no"] * 20, "rain"])
    assert scores[0] == scores[-1]  # to the last bit, so that ties are ties
    assert len(set(scores.tolist())) == 3


@pytest.mark.parametrize("kind", ["bi", "poly"])
def test_kept_candidates_score_like_fresh_ones(
    make: Make, kind: str, dialogues: list[Dialogue], replies: list[str]
) -> None:
    ranker = make(kind=kind)
    kept = torch.cat([ranker.encode_candidates(replies[:4]), ranker.encode_candidates(replies[4:])])
    for dialogue in dialogues:
        close(
            ranker.score(ranker.encode_contexts([dialogue]), kept)[0],
            ranker.scores(dialogue, replies),
        )
    together = ranker.score(ranker.encode_contexts(dialogues), kept)
    close(together, torch.stack([ranker.scores(dialogue, replies) for dialogue in dialogues]))


def test_a_cross_encoder_has_no_candidate_vectors(make: Make) -> None:
    ranker = make(kind="cross")
    assert ranker.is_cross
    with pytest.raises(ConfigError, match="cross-encoder .* has no vector of its own"):
        ranker.encode_candidates(["yes"])


def test_what_is_cut_off_has_no_say(make: Make, dialogues: list[Dialogue]) -> None:
    """A context longer than the room, with and without its oldest message."""
    ranker = make(kind="poly")
    long = dialogues[2]
    shorter = Dialogue(long.messages[1:], long.persona)
    assert ranker.scores(long, ["yes", "no"]).equal(ranker.scores(shorter, ["yes", "no"]))
    newest = Dialogue(long.messages[:-1], long.persona)
    assert not ranker.scores(long, ["yes", "no"]).equal(ranker.scores(newest, ["yes", "no"]))


def test_who_speaks_and_who_one_is_have_a_say(make: Make) -> None:
    ranker = make(kind="bi")
    asked = Dialogue((Message("user", "hi"),))
    scores = ranker.scores(asked, ["yes", "no"])
    for other in (
        Dialogue((Message("assistant", "hi"),)),
        Dialogue(asked.messages, ("i like tea",)),
    ):
        assert not ranker.scores(other, ["yes", "no"]).equal(scores)


def test_nothing_to_score(ranker: TextRanker, dialogues: list[Dialogue]) -> None:
    assert ranker.score_many([], []) == []
    assert ranker.scores(dialogues[0], []).shape == (0,)
    none, one, again = ranker.score_many(dialogues[:3], [[], ["yes"], []])
    assert (len(none), len(one), len(again)) == (0, 1, 0)
    ranking = ranker.rank(dialogues[0], [])
    assert (ranking.scores, ranking.order, ranking.confidence) == ((), (), None)


def test_a_ranking_is_best_first_and_the_earlier_of_equal_ones(
    make: Make, dialogues: list[Dialogue], replies: list[str]
) -> None:
    ranker = make(kind="poly")
    listed = [*replies, *replies[::-1]]
    ranking = ranker.rank(dialogues[1], listed)
    assert ranking.scores == tuple(ranker.scores(dialogues[1], listed).tolist())
    slow = sorted(range(len(listed)), key=lambda i: (-ranking.scores[i], i))
    assert list(ranking.order) == slow
    for first, second in zip(slow[::2], slow[1::2], strict=True):
        assert listed[first] == listed[second]
        assert first < second


def test_a_calibrated_ranker_says_how_sure_it_is(
    make: Make, dialogues: list[Dialogue], replies: list[str]
) -> None:
    ranker = make(kind="bi")
    assert ranker.rank(dialogues[1], replies).confidence is None
    ranker.confidence = Confidence(-1.0, (0.1, 0.5, 0.3))
    ranking = ranker.rank(dialogues[1], replies)
    crowd = Crowd.of(ranker.scores(dialogues[1], replies).numpy())
    assert ranking.confidence == ranker.confidence.of(crowd)
    assert ranker.rank(dialogues[1], []).confidence is None


@pytest.mark.parametrize("kind", ["bi", "poly", "cross"])
def test_bf16_is_near_fp32(
    make: Make, kind: str, dialogues: list[Dialogue], replies: list[str]
) -> None:
    ranker = make(kind=kind)
    exact = torch.stack(ranker.score_many(dialogues, [replies] * len(dialogues)))
    ranker.precision = "bf16"
    rough = torch.stack(ranker.score_many(dialogues, [replies] * len(dialogues)))
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 0.03 * exact.abs().max()


@pytest.mark.parametrize("shape", ["bi", "poly", "multihead", "cross"])
def test_a_halved_copy_is_near_and_leaves_the_original(
    make: Make, shape: str, dialogues: list[Dialogue], replies: list[str]
) -> None:
    multihead = {"kind": "poly", "poly": "codes", "attention": "multihead"}
    ranker = make(**(multihead if shape == "multihead" else {"kind": shape}))
    exact = ranker.scores(dialogues[1], replies)
    rough = ranker.halved().scores(dialogues[1], replies)
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 0.05 * exact.abs().max()
    assert ranker.scores(dialogues[1], replies).equal(exact)


def test_dropout_is_off_when_scoring(
    make: Make, dialogues: list[Dialogue], replies: list[str]
) -> None:
    ranker = make(kind="bi", dropout=0.5)
    assert not ranker.module.training
    assert ranker.scores(dialogues[1], replies).equal(ranker.scores(dialogues[1], replies))


@pytest.mark.parametrize("kind", ["bi", "cross"])
def test_progress_counts_to_the_end(
    make: Make,
    kind: str,
    dialogues: list[Dialogue],
    replies: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rejoinder.ranker.BUDGET", 100)
    seen: list[tuple[int, int]] = []
    make(kind=kind).score_many(
        dialogues, [replies] * len(dialogues), lambda done, total: seen.append((done, total))
    )
    total = len(dialogues) * (len(replies) if kind == "cross" else 1)
    assert len(seen) > 2
    assert seen == sorted(set(seen))
    assert seen[-1] == (total, total)
    assert {whole for _, whole in seen} == {total}


@pytest.mark.parametrize("device", ["meta", "nonsense"])
def test_a_device_that_is_not_there(make: Make, device: str) -> None:
    ranker = make()
    with pytest.raises(ConfigError, match=f"--device {device}: torch finds no such device here"):
        ranker.to(device)
    assert ranker.device == torch.device("cpu")


@pytest.mark.parametrize("lora", [0, 4])
def test_pretrained_in_and_out(
    make: Make, dialogues: list[Dialogue], replies: list[str], tmp_path: Path, lora: int
) -> None:
    """As other libraries call it: whatever was loaded can be saved, and is the same again."""
    first = make(kind="poly", lora=lora)
    first.card, first.confidence = "# mine\n", Confidence(-1.0, (0.1, 0.5, 0.3))
    first.save_pretrained(tmp_path / "one")
    one = TextRanker.from_pretrained(tmp_path / "one")
    one.save_pretrained(str(tmp_path / "two"))
    two = TextRanker.from_pretrained(str(tmp_path / "two"))
    assert two.rank(dialogues[1], replies) == one.rank(dialogues[1], replies)
    assert (two.fingerprint, two.card) == (one.fingerprint, "# mine\n")
    close(two.scores(dialogues[1], replies), first.scores(dialogues[1], replies))


def test_a_hub_that_cannot_be_reached(make: Make) -> None:
    with pytest.raises(RejoinderError, match="me/mine: could not be uploaded .* `hf auth login`"):
        make().push_to_hub("me/mine")


def test_a_ranker_knows_where_its_weights_are(make: Make) -> None:
    ranker = make()
    assert ranker.to("cpu") is ranker
    assert ranker.device == torch.device("cpu")
