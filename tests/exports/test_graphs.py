"""What is written as ONNX, run by torch: the same scores from every kind of ranker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from rejoinder.exports.graphs import CandidateVector, PairScore
from rejoinder.exports.joined import joined
from rejoinder.exports.onnx import graphs_of
from rejoinder.exports.onnx_check import Arrays, Runner
from rejoinder.models.rankers import BiEncoder, CrossEncoder
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue

from .made import CLOSE, imported, learned, said

PARLAI: dict[str, dict[str, Any]] = {
    "maximum": {"kind": "bi", "reduction_type": "max"},
    "mean behind the norm": {"kind": "bi", "variant": "prelayernorm"},
    "two layers": {"kind": "bi", "variant": "aiayn", "share_encoders": True},
    "of length one": {"kind": "bi", "normalize_sent_emb": True, "reduction_type": "first"},
    "codes": {"kind": "poly", "codes_attention_type": "multihead", "codes_attention_num_heads": 2},
    "codes of a root": {"kind": "poly", "codes_attention_type": "sqrt"},
    "first": {"kind": "poly", "polyencoder_type": "n_first", "poly_attention_type": "sqrt"},
    "cross": {"kind": "cross"},
    "cross, maximum": {"kind": "cross", "reduction_type": "max", "variant": "aiayn"},
}


def check_same(ranker: TextRanker, dialogues: list[Dialogue], replies: list[str]) -> None:
    """Assert that the graphs score as the ranker does."""
    graphs = graphs_of(ranker, None)

    def run(name: str, inputs: Arrays) -> Arrays:
        graph = graphs[name]
        assert list(inputs) == list(graph.inputs)
        with torch.inference_mode():
            out = graph.module(*(torch.from_numpy(one) for one in inputs.values()))
        found = out if isinstance(out, tuple) else (out,)
        return {n: one.numpy() for n, one in zip(graph.outputs, found, strict=True)}

    ours = torch.stack(ranker.score_many(dialogues, [replies] * len(dialogues)))
    theirs = Runner(ranker, graphs, run).scores(dialogues, replies)
    assert (ours - theirs).abs().max() <= CLOSE * max(1.0, float(ours.abs().max()))


def test_scores_are_those_of_the_ranker(
    ranker: TextRanker, dialogues: list[Dialogue], replies: list[str]
) -> None:
    check_same(ranker, dialogues, replies)
    check_same(ranker, dialogues[:1], replies[:1])


@pytest.mark.parametrize("options", PARLAI.values(), ids=PARLAI)
def test_scores_are_those_of_an_imported_ranker(options: dict[str, Any]) -> None:
    dialogues = [said("hello , i am back ."), said("a", "b ?", persona=("i like tea .",))]
    check_same(imported(**options), dialogues, ["yes", "", "i am fine . " * 4])


@pytest.mark.parametrize("settings", [{}, {"kind": "poly"}, {"kind": "cross"}])
def test_scores_are_those_of_a_ranker_on_learned_bytes(settings: dict[str, Any]) -> None:
    check_same(learned(**settings), [said("hi", "tea ?"), said("")], ["tea", "", "i like it"])


@pytest.mark.parametrize("head", ["both", "linear", "prefix"])
@pytest.mark.parametrize("padding", [1, 7])
def test_padding_changes_nothing(head: str, padding: int, make: Callable[..., TextRanker]) -> None:
    module = make(kind="cross", head=head).module
    assert isinstance(module, CrossEncoder)
    graph = PairScore(module, None)
    torch.manual_seed(0)
    ids, mask = torch.randint(5, 60, (3, 11)), torch.ones(3, 11, dtype=torch.long)
    types = (torch.arange(11) > torch.tensor([[3], [6], [8]])).long()
    more = torch.full((3, padding), 9)
    with torch.inference_mode():
        plain = graph(ids, mask, types)
        padded = [torch.cat([ids, more], 1), *(torch.cat([x, 0 * more], 1) for x in (mask, types))]
        torch.testing.assert_close(graph(*padded), plain)


def test_ids_beyond_the_dictionary_are_unknown() -> None:
    ranker = imported()
    assert isinstance(ranker.module, BiEncoder)
    text = joined(ranker.tokens)
    ids = torch.tensor([[text.known, 5, text.tokenizer.get_vocab_size() - 1]])
    plain = torch.tensor([[text.unknown, 5, text.unknown]])
    graph, mask = CandidateVector(ranker.module, text), torch.ones_like(ids)
    assert graph(ids, mask).equal(graph(plain, mask))
