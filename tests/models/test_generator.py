"""Two heads on a causal base: against the library's double heads, and pair by pair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from rejoinder.batching import pad
from rejoinder.models.causal import load_causal
from rejoinder.models.generator import Generator, Rows, last, log_likelihood
from rejoinder.models.pretrained import find_base

from .test_causal import KINDS, SIZE, written

ADDED = 5
CONTEXTS = [[50, 7, 8, 9, 53, 4, 6], [50, 3], [50, 53, 9, 9, 2]]
REPLIES = [[52, 5, 51], [52, 6, 7, 8, 51], [52, 51], [52, 9, 51], [52, 9, 9, 9, 51], [52, 4, 51]]
OWNERS = torch.tensor([0, 1, 0, 2, 1, 2])


def made(folder: Path, kind: str = "gpt2", *, speakers: bool = True) -> Generator:
    written(kind, folder)
    torch.manual_seed(1)
    body = load_causal(find_base(str(folder)))
    generator = Generator(body, added=ADDED, speakers=(52, 53) if speakers else None)
    for weight in (generator.added, generator.choice.weight, generator.choice.bias):
        nn.init.normal_(weight, std=0.5)
    return generator.eval()


def rows(texts: list[list[int]]) -> Rows:
    return Rows(*pad(texts))


def typed(texts: list[list[int]]) -> Rows:
    """The same, with types that have nothing to do with who speaks."""
    ids, mask = pad(texts)
    return Rows(ids, mask, types(ids))


def types(ids: Tensor) -> Tensor:
    return torch.where(ids % 2 == 0, 52, 53)


@pytest.mark.parametrize("family", ["OpenAIGPT", "GPT2"])
@torch.no_grad()
def test_both_heads_equal_the_library_s_double_heads(family: str, tmp_path: Path) -> None:
    import transformers

    sizes: dict[str, Any] = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 40}
    config = getattr(transformers, f"{family}Config")(
        vocab_size=SIZE + ADDED, num_labels=1, **sizes
    )
    model = getattr(transformers, f"{family}DoubleHeadsModel")(config).eval()
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.3)
    model.save_pretrained(tmp_path)
    generator = Generator(load_causal(find_base(str(tmp_path)))).eval()
    summary = model.multiple_choice_head.summary
    generator.choice.load_state_dict(summary.state_dict())
    whole = typed([[50, 7, 8, 52, 4, 6, 51], [50, 3, 52, 51], [50, 52, 9, 9, 51]])
    ends = whole.mask.sum(1) - 1
    expected = model(
        input_ids=whole.ids[None], token_type_ids=types(whole.ids)[None], mc_token_ids=ends[None]
    )
    states = generator(whole)
    found = generator.next_tokens(states)[whole.mask]
    assert_close(found, expected.logits[0][whole.mask], rtol=1e-5, atol=1e-5)
    choice = generator.follows(last(states, whole.mask))
    assert_close(choice, expected.mc_logits[0], rtol=1e-5, atol=1e-5)


def test_both_losses_and_their_gradients_equal_the_library_s(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2DoubleHeadsModel

    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop", "summary_first_dropout"), 0.0)
    sizes: dict[str, Any] = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 40}
    config = GPT2Config(**sizes | rates | {"vocab_size": SIZE + ADDED, "num_labels": 1})
    model = GPT2DoubleHeadsModel(config)
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.3)
    model.save_pretrained(tmp_path)
    generator = Generator(load_causal(find_base(str(tmp_path))))
    generator.choice.load_state_dict(model.multiple_choice_head.summary.state_dict())
    context, replies = [50, 7, 8, 9], [[52, 5, 6, 51], [52, 9, 51]]
    whole = typed([context + reply for reply in replies])
    labels = torch.full_like(whole.ids, -100)
    labels[0, 5:8] = whole.ids[0, 5:8]  # the gold reply and its end, not what opens it
    theirs = model(
        input_ids=whole.ids[None],
        token_type_ids=types(whole.ids)[None],
        mc_token_ids=(whole.mask.sum(1) - 1)[None],
        labels=labels[None],
        mc_labels=torch.tensor([0]),
    )
    behind = typed(replies)
    states = generator.behind(typed([context]), behind, torch.tensor([0, 0]))
    likely = log_likelihood(generator, states[:1], behind.part(slice(1)))
    lm = -likely.sum() / behind.mask[0, 1:].sum()
    choice = F.cross_entropy(generator.follows(last(states, behind.mask))[None], torch.tensor([0]))
    assert_close(lm, theirs.loss, rtol=1e-5, atol=1e-5)
    assert_close(choice, theirs.mc_loss, rtol=1e-5, atol=1e-5)
    (2 * lm + choice).backward()
    (2 * theirs.loss + theirs.mc_loss).backward()
    expected = model.transformer.wte.weight.grad
    assert_close(generator.body.words.grad, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_losses_by_hand() -> None:
    """States that are unit vectors and an output layer of ones and zeros: all in one's head."""

    class Body(nn.Module):
        width = 2
        words = out = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])

    generator = Generator(Body())  # type: ignore[arg-type]
    states = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [5.0, 5.0]]])
    replies = Rows(torch.tensor([[0, 1, 2]]), torch.tensor([[True, True, True]]))
    e = torch.e
    # the scores are 1, 0, 1 where token 1 follows, and 0, 2, 2 where token 2 does
    expected = torch.tensor([[1 / (2 * e + 1), e**2 / (2 * e**2 + 1)]]).log()
    assert_close(log_likelihood(generator, states, replies), expected)
    generator.choice.weight.copy_(torch.tensor([[3.0, -1.0]]))
    generator.choice.bias.fill_(0.5)
    assert_close(generator.follows(states[0]), torch.tensor([3.5, -1.5, 10.5]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("speakers", [True, False])
@torch.no_grad()
def test_replies_behind_one_context_are_as_each_alone(
    kind: str, speakers: bool, tmp_path: Path
) -> None:
    generator = made(tmp_path, kind, speakers=speakers)
    replies = rows(REPLIES)
    found = generator.behind(rows(CONTEXTS), replies, OWNERS)
    for p, (owner, reply) in enumerate(zip(OWNERS.tolist(), REPLIES, strict=True)):
        alone = generator(rows([CONTEXTS[owner] + reply]))[0, -len(reply) :]
        assert_close(found[p, : len(reply)], alone, rtol=1e-4, atol=1e-4)
    likely = log_likelihood(generator, found, replies)
    for p, reply in enumerate(REPLIES):
        scores = generator.next_tokens(found[p]).log_softmax(-1)
        wanted = [scores[i, reply[i + 1]] for i in range(len(reply) - 1)]
        assert_close(likely[p, : len(reply) - 1], torch.stack(wanted))
        assert not likely[p, len(reply) - 1 :].any()


@torch.no_grad()
def test_padding_changes_nothing(tmp_path: Path) -> None:
    generator = made(tmp_path)
    found = generator.behind(rows(CONTEXTS), rows(REPLIES), OWNERS)

    def wider(given: Rows) -> Rows:
        return Rows(F.pad(given.ids, (0, 3), value=7), F.pad(given.mask, (0, 3), value=False))

    again = generator.behind(wider(rows(CONTEXTS)), wider(rows(REPLIES)), OWNERS)
    mask = rows(REPLIES).mask
    assert_close(again[:, : mask.shape[1]][mask], found[mask], rtol=1e-5, atol=1e-5)
    ends = last(again, wider(rows(REPLIES)).mask)
    assert_close(ends, last(found, mask), rtol=1e-5, atol=1e-5)


def test_added_tokens_have_vectors_and_scores_of_their_own(tmp_path: Path) -> None:
    generator = made(tmp_path, speakers=False)
    read = generator.embed(rows([[3, 51]]))
    assert_close(read[0], torch.stack([generator.body.words[3], generator.added[1]]))
    states: Tensor = torch.randn(2, 16)
    scores = generator.next_tokens(states)
    assert scores.shape == (2, SIZE + ADDED)
    assert_close(scores[:, 51], states @ generator.added[1])


def test_the_type_of_a_token_is_the_speaker_that_came_last(tmp_path: Path) -> None:
    ids = rows([[50, 7, 53, 4, 52, 6], [52, 53, 9]]).ids
    expected = [[52, 52, 53, 53, 52, 52], [52, 53, 53, 53, 53, 53]]
    found = made(tmp_path).types(ids)
    assert found is not None
    assert found.tolist() == expected
    assert made(tmp_path, speakers=False).types(ids) is None
