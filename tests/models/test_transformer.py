"""The native transformer: laws of padding, order and gradients, and what fresh weights are like."""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from rejoinder.errors import ConfigError
from rejoinder.models.bert import Dropout
from rejoinder.models.encoder import Encoder, Pooling
from rejoinder.models.transformer import Transformer, sinusoids
from rejoinder.shape import Shape

Variant = Literal["xlm", "aiayn", "prelayernorm"]
VARIANTS: list[Variant] = ["xlm", "aiayn", "prelayernorm"]
POOLINGS: list[Pooling] = ["mean", "first", "max"]
READS_PADDING = {("prelayernorm", "mean"), *((variant, "max") for variant in VARIANTS)}
JUNK = 3  # a token id that stands in padding: it must not matter
close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)


def shape(variant: Variant = "xlm", *, learned: bool = True, segments: int = 2) -> Shape:
    return Shape(
        n_layers=2,
        n_heads=2,
        embedding_size=8,
        ffn_size=12,
        n_positions=20,
        n_segments=segments,
        vocabulary=30,
        variant=variant,
        activation="gelu" if variant == "xlm" else "relu",
        learn_positional_embeddings=learned,
        embeddings_scale=variant == "aiayn",
        output_scaling=0.5,
    )


def stirred(own: Shape, *, seed: int = 0) -> Transformer:
    """No weight is left at the zero or one that it starts with."""
    torch.manual_seed(seed)
    model = Transformer(own).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return model


def batch(*lengths: int, width: int = 0) -> tuple[Tensor, Tensor]:
    """Rows of random ids and their mask, JUNK in what is padding."""
    torch.manual_seed(sum(lengths))
    ids = torch.randint(4, 30, (len(lengths), max(*lengths, width)))
    mask = torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]
    return ids.masked_fill(~mask, JUNK), mask


def states(model: Transformer, ids: Tensor, mask: Tensor, kinds: Tensor | None = None) -> Tensor:
    with torch.inference_mode():
        found: Tensor = model(ids, mask, kinds).last_hidden_state
    return found


# -------------------------------------------------------------------------------- padding and order


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("how", POOLINGS)
@torch.inference_mode()
def test_padding_counts_only_where_it_is_said_to(variant: Variant, how: Pooling) -> None:
    encoder = Encoder(stirred(shape(variant)))
    assert encoder.reads_padding(how) == ((variant, how) in READS_PADDING)
    ids, mask = batch(5, 5)
    ids, mask = torch.cat([ids, ids]), torch.cat([mask, mask])
    narrow = encoder.pooled(encoder(ids, mask), mask, how)
    wider = torch.cat([ids, torch.full((4, 6), JUNK)], 1), torch.cat([mask, torch.zeros(4, 6)], 1)
    there = wider[1].bool()
    wide = encoder.pooled(encoder(wider[0], there), there, how)
    assert torch.allclose(narrow, wide, rtol=1e-5, atol=1e-5) != encoder.reads_padding(how)


@pytest.mark.parametrize("variant", VARIANTS)
def test_states_of_tokens_do_not_know_of_padding(variant: Variant) -> None:
    model = stirred(shape(variant))
    ids, mask = batch(6, 3, 1)
    together = states(model, ids, mask)
    for row, length in enumerate((6, 3, 1)):
        alone = states(model, ids[row : row + 1, :length], mask[row : row + 1, :length])
        close(together[row, :length], alone[0])


@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_in_front_or_between_moves_no_place(variant: Variant) -> None:
    model = stirred(shape(variant))
    ids, mask = batch(4)
    gaps = torch.tensor([[False, False, True, True, False, True, False, True, False]])
    spread = torch.full((1, 9), JUNK).masked_scatter(gaps, ids)
    close(states(model, spread, gaps)[gaps], states(model, ids, mask)[0])


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_comes_out_for_padding(variant: Variant) -> None:
    model = stirred(shape(variant))
    ids, mask = batch(2, 5)
    found = states(model, ids, mask)[~mask]
    expected = torch.zeros(8)
    if variant == "prelayernorm":  # the last norm of zeros is its bias
        assert model.norm_embeddings is not None
        expected = 0.5 * model.norm_embeddings.bias.detach()
    close(found, expected.expand(3, 8))


@pytest.mark.parametrize("variant", VARIANTS)
def test_order_of_a_batch_changes_nothing(variant: Variant) -> None:
    model = stirred(shape(variant))
    ids, mask = batch(6, 2, 4, 1)
    order = torch.tensor([2, 0, 3, 1])
    close(states(model, ids[order], mask[order]), states(model, ids, mask)[order])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("how", POOLINGS)
def test_rows_of_nothing_but_padding_are_finite(variant: Variant, how: Pooling) -> None:
    encoder = Encoder(stirred(shape(variant)))
    ids, mask = batch(4, 4, 4)
    mask[1] = False
    found = encoder(ids, mask)
    pooled = encoder.pooled(found, mask, how)
    assert found.isfinite().all()
    assert pooled.isfinite().all()
    pooled.sum().backward()  # and so are their gradients
    for weight in encoder.parameters():
        assert weight.grad is None or weight.grad.isfinite().all()
    alone = encoder(ids[1:2], mask[1:2])
    close(alone, found[1:2])


def test_segments_are_the_first_where_none_are_given() -> None:
    model = stirred(shape())
    ids, mask = batch(5, 3)
    first = torch.zeros_like(ids)
    close(states(model, ids, mask), states(model, ids, mask, first))
    assert not torch.allclose(states(model, ids, mask), states(model, ids, mask, first + 1))


@pytest.mark.parametrize("variant", VARIANTS)
def test_order_of_tokens_matters(variant: Variant) -> None:
    model = stirred(shape(variant, segments=0))
    ids, mask = batch(5)
    assert not torch.allclose(states(model, ids, mask), states(model, ids.flip(1), mask).flip(1))


# ----------------------------------------------------------------------------- learning and weights


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("learned", [True, False])
def test_gradients_reach_every_weight_but_fixed_places(variant: Variant, learned: bool) -> None:
    model = stirred(shape(variant, learned=learned)).train()
    ids, mask = batch(6, 20)
    kinds = (torch.arange(20) % 2).expand(2, 20)
    out = model(ids, mask, kinds).last_hidden_state
    (out * torch.randn_like(out)).sum().backward()
    without = {name for name, weight in model.named_parameters() if weight.grad is None}
    assert without == (set() if learned else {"position_embeddings.weight"})
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            assert weight.grad.isfinite().all(), name
            # what is added to all keys alike changes no softmax: that gradient is all rounding
            assert name.endswith("k_lin.bias") or (weight.grad != 0).any(), name
    assert "position_embeddings.weight" in model.state_dict()  # saved in either case


@pytest.mark.parametrize("rates", [(0.5, 0.0, 0.0), (0.0, 0.5, 0.0), (0.0, 0.0, 0.5)])
def test_each_dropout_is_felt_in_learning_only(rates: tuple[float, float, float]) -> None:
    torch.manual_seed(0)
    model = Transformer(shape(), Dropout(*rates))
    ids, mask = batch(6, 3)
    learning = model.train()(ids, mask).last_hidden_state
    assert not torch.allclose(learning, model(ids, mask).last_hidden_state)
    assert (learning[~mask] == 0).all()
    close(states(model.eval(), ids, mask), states(model, ids, mask), rtol=0, atol=0)


def test_sinusoids_by_hand() -> None:
    table = sinusoids(3, 4)
    second = 1 / 10000**0.5  # rate of columns 2 and 3
    expected = [
        [math.sin(place), math.cos(place), math.sin(place * second), math.cos(place * second)]
        for place in (0, 1, 2)
    ]
    close(table, torch.tensor(expected))
    assert table[0].tolist() == [0, 1, 0, 1]
    assert sinusoids(1024, 6)[1000, 4].item() == pytest.approx(math.sin(1000 / 10000 ** (4 / 6)))
    model = Transformer(shape(learned=False))
    close(model.position_embeddings.weight.detach(), sinusoids(20, 8))


@pytest.fixture(scope="module")
def fresh() -> Transformer:
    """Large enough to see what weights are drawn from."""
    torch.manual_seed(0)
    return Transformer(
        Shape(
            n_layers=2,
            n_heads=4,
            embedding_size=64,
            ffn_size=256,
            n_positions=300,
            n_segments=60,
            vocabulary=400,
        )
    )


@pytest.mark.parametrize("name", ["embeddings", "position_embeddings", "segment_embeddings"])
def test_fresh_tables_are_normal(fresh: Transformer, name: str) -> None:
    weight = getattr(fresh, name).weight.detach()
    assert weight.std().item() == pytest.approx(64**-0.5, rel=0.05)
    assert abs(weight.mean().item()) < 0.01
    assert weight.abs().max() > 3 * 64**-0.5  # no bound, as a uniform one would have


def test_fresh_attention_is_xavier_normal(fresh: Transformer) -> None:
    for layer in fresh.layers:
        for linear in layer.attention.children():  # type: ignore[union-attr]
            assert isinstance(linear, nn.Linear)
            spread = math.sqrt(2 / (64 + 64))
            assert linear.weight.std().item() == pytest.approx(spread, rel=0.05)
            assert linear.weight.abs().max() > 2.8 * spread
            check_bias(linear)


def test_fresh_feed_forward_is_xavier_uniform(fresh: Transformer) -> None:
    for layer in fresh.layers:
        for linear in (layer.ffn.lin1, layer.ffn.lin2):  # type: ignore[union-attr]
            assert isinstance(linear, nn.Linear)
            bound = math.sqrt(6 / (64 + 256))
            assert 0.99 * bound < linear.weight.abs().max().item() <= bound
            assert linear.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
            check_bias(linear)


def check_bias(linear: nn.Linear) -> None:
    """Torch's own: uniform up to one over the root of what goes in."""
    bound = linear.in_features**-0.5
    assert 0.85 * bound < linear.bias.abs().max().item() <= bound


def test_fresh_norms_do_nothing(fresh: Transformer) -> None:
    norms = [module for module in fresh.modules() if isinstance(module, nn.LayerNorm)]
    assert len(norms) == 5
    for norm in norms:
        assert (norm.weight == 1).all()
        assert (norm.bias == 0).all()
        assert norm.eps == 1e-5


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"n_heads": 5}, "n_heads is 5; expected a number that divides embedding_size, 384"),
        ({"n_layers": 0}, "n_layers is 0; expected at least 1"),
        ({"n_segments": -1}, "n_segments is -1; expected at least 0"),
        ({"output_scaling": math.nan}, "output_scaling"),
        ({"variant": "bart"}, "variant is 'bart'"),
        (
            {"embedding_size": 9, "n_heads": 3, "learn_positional_embeddings": False},
            "embedding_size is 9; sines and cosines need an even one",
        ),
    ],
)
def test_a_shape_that_cannot_be(wrong: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        Shape(**wrong)  # type: ignore[arg-type]
