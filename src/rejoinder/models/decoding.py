"""From scores to tokens: greedy, sampled (top-k, top-p, temperature), or by beams.

Every row has a random state of its own, so what is written does not hang on the other rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rejoinder.decoding import Decoding
from rejoinder.models.generator import Generator, Rows, last


@dataclass(frozen=True)
class Meaning:
    """Which ids have a meaning in writing."""

    stop: frozenset[int]  # end the reply, and are no part of it
    never: frozenset[int]  # are never written
    not_first: frozenset[int] = frozenset()  # say nothing on their own, such as a space

    def banned(self, written: int, least: int) -> list[int]:
        """What may not come next, when so many tokens are written."""
        found = set(self.never)
        if written < least:
            found |= self.stop
        if written == 0:
            found |= self.not_first
        return sorted(found)


@torch.inference_mode()
def write(
    generator: Generator, contexts: Rows, meaning: Meaning, how: Decoding, seeds: Sequence[int]
) -> Iterator[dict[int, int]]:
    """One more token for every row that goes on, until none does: row -> token, step by step.

    contexts: (B, T) with the token that opens the reply as last. seeds: one for each row.
    """
    past = generator.body.cache()
    state = last(generator.read(contexts, past), contexts.mask)
    chances = [torch.Generator().manual_seed(seed) for seed in seeds]
    rows = list(range(len(contexts.ids)))  # which row of the caller each row is
    texts: list[list[int]] = [[] for _ in rows]
    mask, types = contexts.mask, _last_types(generator, contexts)
    for written in range(how.max_length):
        scores = generator.next_tokens(state).float().cpu()
        scores[:, meaning.banned(written, how.min_length)] = -torch.inf
        for row, text in enumerate(texts):
            scores[row, repeated(text, how.no_repeat)] = -torch.inf
        chosen = _choose(scores, how, [chances[row] for row in rows])
        goes_on = [i for i, token in enumerate(chosen) if token not in meaning.stop]
        if not goes_on:
            return
        yield {rows[i]: chosen[i] for i in goes_on}
        if written + 1 == how.max_length:
            return
        if len(goes_on) < len(rows):
            keep = torch.tensor(goes_on, device=mask.device)
            past.select(keep)
            mask, rows = mask[keep], [rows[i] for i in goes_on]
            texts, chosen = [texts[i] for i in goes_on], [chosen[i] for i in goes_on]
            types = None if types is None else types[keep]
        for text, token in zip(texts, chosen, strict=True):
            text.append(token)
        ids = torch.tensor(chosen, device=mask.device)[:, None]
        new = Rows(ids, torch.ones_like(ids, dtype=torch.bool), types)
        state = generator.read(new, past, mask)[:, -1]
        mask = torch.cat([mask, new.mask], 1)


def _last_types(generator: Generator, rows: Rows) -> Tensor | None:
    """(B, 1) the type of each row's last token, which the reply goes on with."""
    types = generator.types(rows.ids) if rows.types is None else rows.types
    return None if types is None else last(types[..., None], rows.mask)


def _choose(scores: Tensor, how: Decoding, chances: list[torch.Generator]) -> list[int]:
    if how.greedy:
        best: list[int] = scores.argmax(-1).tolist()
        return best
    shares = filtered(scores / how.temperature, how.top_k, how.top_p).softmax(-1)
    return [
        int(torch.multinomial(share, 1, generator=chance))
        for share, chance in zip(shares, chances, strict=True)
    ]


def filtered(scores: Tensor, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Scores (B, V) with all but the most likely tokens at minus infinity.

    top_k keeps the k best and what equals the last of them; then top_p keeps, best first, as many
    as it takes to have that share (the one that reaches it included; Holtzman et al. 2020,
    arXiv:1904.09751).
    """
    if 0 < top_k < scores.shape[-1]:
        least = scores.topk(top_k, -1).values[:, -1:]
        scores = scores.masked_fill(scores < least, -torch.inf)
    if top_p < 1:
        ordered, places = scores.sort(dim=-1, descending=True, stable=True)
        shares = ordered.softmax(-1)
        beyond = shares.cumsum(-1) - shares > top_p
        scores = scores.masked_fill(beyond.scatter(-1, places, beyond), -torch.inf)
    return scores


def repeated(text: Sequence[int], size: int) -> list[int]:
    """Tokens that would end a sequence of `size` tokens that the text already has."""
    if size == 0 or len(text) < size:
        return []
    head = list(text[len(text) - size + 1 :]) if size > 1 else []
    starts = range(len(text) - size + 1)
    return [text[i + size - 1] for i in starts if list(text[i : i + size - 1]) == head]


@torch.inference_mode()
def beam(
    generator: Generator, context: Rows, meaning: Meaning, how: Decoding
) -> tuple[list[int], float]:
    """The likeliest reply to one context (1, T) that `how.beams` beginnings lead to.

    -> its tokens, and the mean log-likelihood of them and the stop, by which replies compare.
    """
    past = generator.body.cache()
    width = how.beams
    state = last(generator.read(context, past), context.mask)
    types, mask = _last_types(generator, context), context.mask
    texts: list[list[int]] = [[]]
    totals = torch.zeros(1)
    done: list[tuple[float, list[int]]] = []
    for written in range(how.max_length):
        scores = generator.next_tokens(state).float().cpu()
        scores[:, meaning.banned(written, how.min_length)] = -torch.inf
        for row, text in enumerate(texts):
            scores[row, repeated(text, how.no_repeat)] = -torch.inf
        sums = totals[:, None] + scores.log_softmax(-1)  # (beams, V)
        values, flat = sums.flatten().topk(min(2 * width + len(meaning.stop), sums.numel()))
        grown: list[tuple[float, int, int]] = []
        for place, (value, at) in enumerate(zip(values.tolist(), flat.tolist(), strict=True)):
            row, token = divmod(at, sums.shape[1])
            if value == -torch.inf or len(grown) == width:
                break
            if token not in meaning.stop:
                grown.append((value, row, token))
            elif place < width:  # an end that is no likelier than what goes on does not count
                done.append((value / (written + 1), texts[row]))
        if not grown or _settled(done, grown[0][0], how):
            break
        texts = [[*texts[row], token] for _, row, token in grown]
        totals = torch.tensor([value for value, _, _ in grown])
        keep = torch.tensor([row for _, row, _ in grown], device=mask.device)
        past.select(keep)
        mask = mask[keep]
        types = None if types is None else types[keep]
        ids = torch.tensor([token for _, _, token in grown], device=mask.device)[:, None]
        new = Rows(ids, torch.ones_like(ids, dtype=torch.bool), types)
        state = generator.read(new, past, mask)[:, -1]
        mask = torch.cat([mask, new.mask], 1)
    else:
        done += [(v / how.max_length, t) for v, t in zip(totals.tolist(), texts, strict=True)]
    value, text = max(done, key=lambda one: one[0], default=(-torch.inf, texts[0]))
    return text, value


def _settled(done: Collection[tuple[float, list[int]]], best: float, how: Decoding) -> bool:
    """Whether no beginning can still become likelier on average than the replies that are done."""
    if len(done) < how.beams:
        return False
    return sorted(value for value, _ in done)[-how.beams] >= best / how.max_length
