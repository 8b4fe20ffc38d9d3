"""Bi-, poly- and cross-encoder: laws that hold for all, and each against its slow formula."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from transformers import DistilBertConfig, DistilBertModel

from rejoinder.batching import pad
from rejoinder.config import ModelConfig
from rejoinder.errors import ConfigError
from rejoinder.models.build import build
from rejoinder.models.encoder import Encoder, pool
from rejoinder.models.pretrained import Base
from rejoinder.models.rankers import (
    BiEncoder,
    CrossEncoder,
    Encoded,
    Head,
    PolyEncoder,
    Scale,
    dots,
    join,
)
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue

Make = Callable[..., TextRanker]
close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-4)  # of scores around 20
JUNK = 9  # a token id to fill gaps with: what stands in padding must not matter


@pytest.fixture(scope="module")
def texts(
    make: Make, dialogues: list[Dialogue], replies: list[str]
) -> tuple[list[list[int]], list[list[int]]]:
    """Contexts and candidates as rows of token ids, of many lengths."""
    tokens = make().tokens
    return tokens.contexts(dialogues), tokens.candidates(replies)


Texts = tuple[list[list[int]], list[list[int]]]


def padded(rows: list[list[int]], extra: int = 0) -> tuple[Tensor, Tensor]:
    ids, mask = pad(rows, JUNK)
    return F.pad(ids, (0, extra), value=JUNK), F.pad(mask, (0, extra), value=False)


@torch.inference_mode()
def all_scores(ranker: TextRanker, texts: Texts, left: int = 0, right: int = 0) -> Tensor:
    """(B, N), with so many columns of padding more than needed on either side."""
    module = ranker.module
    context = module.encode_context(*padded(texts[0], left))
    return module.score(context, module.encode_candidates(*padded(texts[1], right)))


def test_padding_changes_nothing(ranker: TextRanker, texts: Texts) -> None:
    together = all_scores(ranker, texts)
    assert together.std() > 0.01, "scores all alike would prove nothing"
    close(all_scores(ranker, texts, 5, 3), together)


def test_one_by_one_equals_all_together(ranker: TextRanker, texts: Texts) -> None:
    contexts, candidates = texts[0][1:6], texts[1][:4]
    alone = [[all_scores(ranker, ([a], [b])).item() for b in candidates] for a in contexts]
    close(torch.tensor(alone), all_scores(ranker, (contexts, candidates)))


def test_order_of_contexts_and_candidates_changes_nothing(ranker: TextRanker, texts: Texts) -> None:
    turned = all_scores(ranker, (texts[0][::-1], texts[1][::-1]))
    close(turned, all_scores(ranker, texts).flip(0, 1))


def slow_poly(module: PolyEncoder, context: Encoded, candidates: Encoded) -> Tensor:
    """Section 4.4 of the paper, one context and candidate at a time."""
    scores = torch.empty(len(context.vectors), len(candidates.vectors))
    for b, (codes, mask) in enumerate(zip(*context, strict=True)):
        real = codes[mask]
        for n, candidate in enumerate(candidates.vectors):
            if module.multihead is not None:
                seen = module.multihead(
                    candidate[None, None], real[None], torch.ones(1, len(real)) > 0
                )
                scores[b, n] = seen[0, 0] @ candidate
            else:
                weights = (module.attention_scale() * (real @ candidate)).softmax(0)
                scores[b, n] = (weights @ real) @ candidate
    scale: Tensor = module.scale()
    return scale * scores


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("attention", ["basic", "sqrt", "multihead"])
@pytest.mark.parametrize("poly", ["codes", "n_first", "all"])
@torch.inference_mode()
def test_poly_equals_the_papers_formula(
    make: Make, texts: Texts, poly: str, attention: str, normalise: bool
) -> None:
    ranker = make(kind="poly", poly=poly, attention=attention, normalise=normalise)
    module = cast("PolyEncoder", ranker.module)
    context = module.encode_context(*padded(texts[0]))
    candidates = module.encode_candidates(*padded(texts[1]))
    close(module.score(context, candidates), slow_poly(module, context, candidates))


@torch.inference_mode()
def test_codes_attend_over_real_tokens_only(make: Make, texts: Texts) -> None:
    module = cast("PolyEncoder", make(kind="poly", poly="codes").module)
    assert module.codes is not None
    found = module.encode_context(*padded(texts[0]))
    assert found.mask.all()
    for row, vectors in zip(texts[0], found.vectors, strict=True):
        states = module.context_encoder(*padded([row]))[0]  # (T, D)
        wanted = (module.codes @ states.T).softmax(-1) @ states
        close(vectors, F.normalize(wanted, dim=-1))


@pytest.mark.parametrize("codes", [1, 4, 1000])
@torch.inference_mode()
def test_n_first_are_the_first_states_or_all_there_are(
    make: Make, texts: Texts, codes: int
) -> None:
    module = make(kind="poly", poly="n_first", codes=codes, normalise=False).module
    ids, mask = padded(texts[0])
    found = cast("PolyEncoder", module).encode_context(ids, mask)
    states = cast("PolyEncoder", module).context_encoder(ids, mask)
    for row, vectors, real, state in zip(texts[0], *found, states, strict=True):
        count = min(len(row), codes)
        assert real.tolist() == [True] * count + [False] * (len(real) - count)
        assert vectors[:count].equal(state[:count])


def test_more_codes_than_tokens_equal_all(make: Make, texts: Texts) -> None:
    first = all_scores(make(kind="poly", poly="n_first", codes=1000), texts)
    close(first, all_scores(make(kind="poly", poly="all"), texts))


@pytest.mark.parametrize("attention", ["basic", "sqrt"])
@torch.inference_mode()
def test_one_code_is_the_plain_product(make: Make, texts: Texts, attention: str) -> None:
    module = make(kind="poly", poly="n_first", codes=1, attention=attention).module
    context = module.encode_context(*padded(texts[0]))
    candidates = module.encode_candidates(*padded(texts[1]))
    plain = context.vectors[:, 0] @ candidates.vectors.T
    close(module.score(context, candidates), module.scale() * plain)


@pytest.mark.parametrize("pooling", ["mean", "first", "max"])
@torch.inference_mode()
def test_bi_is_the_scaled_cosine_of_pooled_states(make: Make, texts: Texts, pooling: str) -> None:
    module = cast("BiEncoder", make(kind="bi", towers="separate", pooling=pooling).module)
    left, right = padded(texts[0]), padded(texts[1])
    a = pool(module.context_encoder(*left), left[1], module.pooling)
    b = pool(module.candidate_encoder(*right), right[1], module.pooling)
    wanted = module.scale() * F.cosine_similarity(a[:, None], b[None], dim=-1)
    close(module.score(module.encode_context(*left), module.encode_candidates(*right)), wanted)


@torch.inference_mode()
@pytest.mark.parametrize(("scale", "factor"), [(0.0, 1.0), (0.25, 0.25)])
def test_raw_vectors_are_scaled_as_asked_only(
    make: Make, texts: Texts, scale: float, factor: float
) -> None:
    module = cast("BiEncoder", make(kind="bi", normalise=False, scale=scale).module)
    left, right = padded(texts[0]), padded(texts[1])
    a = pool(module.context_encoder(*left), left[1], "mean")
    b = pool(module.candidate_encoder(*right), right[1], "mean")
    scores = module.score(module.encode_context(*left), module.encode_candidates(*right))
    close(scores, factor * (a @ b.T))
    assert not list(module.scale.parameters())


@torch.inference_mode()
def test_dots_take_candidates_for_all_or_for_each(make: Make, texts: Texts) -> None:
    module = make(kind="poly").module
    context = module.encode_context(*padded(texts[0]))
    shared = module.encode_candidates(*padded(texts[1]))
    own = Encoded(shared.vectors.expand(len(texts[0]), -1, -1), shared.mask)
    close(dots(context, own), dots(context, shared))


rows = st.lists(st.integers(1, 9), max_size=6)


@given(st.lists(st.tuples(rows, rows), min_size=1, max_size=5), st.integers(0, 3))
def test_join_equals_putting_rows_together_by_hand(
    pairs: list[tuple[list[int], list[int]]], extra: int
) -> None:
    left, right = zip(*pairs, strict=True)
    ids, mask, second = join(Encoded(*padded(list(left), extra)), Encoded(*padded(list(right))))
    assert ids.shape[1] == max(len(a) + len(b) for a, b in pairs)
    for (a, b), line, real, behind in zip(pairs, ids, mask, second, strict=True):
        assert line[real].tolist() == a + b
        assert real.tolist() == [True] * len(a + b) + [False] * (len(real) - len(a + b))
        assert behind.tolist() == [len(a) <= i < len(a + b) for i in range(len(behind))]


@torch.inference_mode()
def test_cross_reads_both_in_one_row(make: Make, texts: Texts) -> None:
    """By hand for the paper's head: tokens in one list, no padding, first state, linear layer."""
    ranker = make(kind="cross", head="linear", pooling="first")
    module = cast("CrossEncoder", ranker.module)
    wanted = [
        [module.linear(module.encoder(*padded([a + b]))[:, 0]).item() for b in texts[1]]
        for a in texts[0]
    ]
    close(all_scores(ranker, texts), torch.tensor(wanted))


@pytest.mark.parametrize("towers", ["shared", "separate"])
@torch.inference_mode()
def test_cross_adds_the_poly_score_of_its_sides_read_apart(
    make: Make, texts: Texts, towers: str
) -> None:
    ranker = make(kind="cross", head="both", pooling="mean", towers=towers)
    module = cast("CrossEncoder", ranker.module)

    def read(row: list[int]) -> Tensor:
        states: Tensor = module.encoder(*padded([row]))[0]
        return states  # (T, D)

    wanted = torch.empty(len(texts[0]), len(texts[1]))
    for i, a in enumerate(texts[0]):
        for j, b in enumerate(texts[1]):
            together = read(a + b)
            left, right = (F.normalize(x.mean(0), dim=0) for x in together.split([len(a), len(b)]))
            seen = torch.cat([together.mean(0), left * right * len(left) ** 0.5])
            wanted[i, j] = module.linear(seen) + module.scale() * by_hand(module, a, b)
    close(all_scores(ranker, texts), wanted)


@pytest.mark.parametrize("towers", ["shared", "separate"])
@torch.inference_mode()
def test_a_prefix_is_read_without_the_candidate_and_seen_by_it(
    make: Make, texts: Texts, towers: str
) -> None:
    """By hand, pair by pair: a row of both in which the first part does not see the second."""
    ranker = make(kind="cross", head="prefix", towers=towers)
    module = cast("CrossEncoder", ranker.module)

    def read(a: list[int], b: list[int]) -> Tensor:
        size = len(a) + len(b)
        seen = torch.ones(1, size, size, dtype=torch.bool)
        seen[:, : len(a), len(a) :] = False
        places = torch.tensor([[*range(len(a)), *range(len(b))]])
        states: Tensor = module.encoder(torch.tensor([a + b]), seen, places)[0]
        return states

    wanted = torch.empty(len(texts[0]), len(texts[1]))
    for i, a in enumerate(texts[0]):
        for j, b in enumerate(texts[1]):
            left, right = read(a, b).split([len(a), len(b)])
            close(left, module.encoder(*padded([a]))[0])
            states, mean = F.normalize(left, dim=-1), F.normalize(right.mean(0), dim=0)
            attended = (module.sharpness() * (states @ mean)).softmax(0) @ states
            seen = torch.cat([right.mean(0), attended * mean * left.shape[1] ** 0.5])
            wanted[i, j] = module.linear(seen) + module.scale() * by_hand(module, a, b)
    close(all_scores(ranker, texts), wanted)


def by_hand(module: CrossEncoder, a: list[int], b: list[int]) -> Tensor:
    """What the tower that reads apart says of a pair, before the scale."""
    left, right = (module.apart_encoder(*padded([x]))[0] for x in (a, b))
    products = F.cosine_similarity(left, right.mean(0), dim=-1)
    score: Tensor = (module.sharpness() * products).softmax(0) @ products
    return score


def test_a_prefix_needs_a_base_that_can_be_told_what_to_see(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"vocab_size": 50, "dim": 16, "n_layers": 2, "n_heads": 2}
    DistilBertModel(DistilBertConfig(**sizes)).save_pretrained(tmp_path)
    base = Base("other", tmp_path, "")
    with pytest.raises(ConfigError, match="head is 'prefix' and the base 'other' is no BERT"):
        build(ModelConfig(kind="cross", head="prefix"), base)


def test_a_linear_head_reads_nothing_apart(make: Make) -> None:
    with pytest.raises(ConfigError, match="towers is 'separate', but head = linear reads"):
        make(kind="cross", head="linear", towers="separate")


@pytest.mark.parametrize("head", ["both", "prefix"])
def test_a_fresh_cross_encoder_scores_as_the_poly_encoder_of_its_tower(
    make: Make, texts: Texts, head: Head
) -> None:
    poly, cross = make(kind="poly", poly="all"), make(kind="cross")
    old = cast("PolyEncoder", poly.module)
    new = CrossEncoder(old.context_encoder, head=head).eval()
    new.scale, new.sharpness, cross.module = old.scale, old.sharpness, new
    close(all_scores(cross, texts), all_scores(poly, texts))
    assert CrossEncoder(old.context_encoder, head="linear").linear.weight.any()


@pytest.mark.parametrize("head", ["both", "linear", "prefix"])
@torch.inference_mode()
def test_pairs_find_the_context_that_they_belong_to(make: Make, texts: Texts, head: str) -> None:
    module = cast("CrossEncoder", make(kind="cross", head=head).module)
    context, candidates = Encoded(*padded(texts[0])), Encoded(*padded(texts[1]))
    whole = module.score(context, candidates)
    owner = torch.arange(len(texts[1])) % len(texts[0])
    close(module.score_pairs(context, candidates, owner), whole[owner, torch.arange(len(owner))])


def test_a_scale_is_learned_up_to_a_hundred() -> None:
    scale = Scale(20.0, learned=True)
    assert scale().item() == pytest.approx(20)
    with torch.no_grad():
        scale.log.fill_(50.0)
    assert scale().item() == pytest.approx(100)


def test_a_fixed_scale_is_saved_but_not_trained() -> None:
    scale = Scale(20.0, learned=False)
    assert not list(scale.parameters())
    assert scale.state_dict()["log"].item() == pytest.approx(math.log(20))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "last"}, "poly-encoder type is 'last'; expected codes, n_first or all"),
        ({"attention": "soft"}, "attention is 'soft'; expected basic, sqrt or multihead"),
    ],
)
def test_a_poly_encoder_that_cannot_be(make: Make, settings: dict[str, Any], message: str) -> None:
    tower: Encoder = cast("BiEncoder", make().module).context_encoder
    with pytest.raises(ConfigError, match=message):
        PolyEncoder(tower, tower, **settings)
