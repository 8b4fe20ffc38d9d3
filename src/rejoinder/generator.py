"""A generator that reads and writes text: module and layout as one thing to hold.

    replies = generator.write([dialogue], Decoding(greedy=True))
    scores = generator.scores(dialogue, candidates)

Rows of like length are read together and come back in the order given.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rejoinder.batching import by_length, pad
from rejoinder.config import GeneratorConfig
from rejoinder.decoding import Decoding
from rejoinder.devices import move
from rejoinder.errors import ConfigError
from rejoinder.layouts import Layout
from rejoinder.models.decoding import Meaning, beam, write
from rejoinder.models.generator import Generator, Rows, last, log_likelihood
from rejoinder.ranker import BUDGET, Precision, Progress
from rejoinder.schema import Dialogue, Ranking

UNFINISHED = "\ufffd"  # what half a character is decoded to
MIDDLE = "##"  # opens a WordPiece token that goes on with a word
Judge = Callable[[Generator, Tensor, Rows], Tensor]  # states of replies, replies -> (P,)


class TextGenerator:
    """Writes replies to a dialogue, and scores given ones in two ways."""

    def __init__(
        self,
        module: Generator,
        layout: Layout,
        config: GeneratorConfig,
        *,
        name: str = "",
        precision: Precision = "fp32",
    ) -> None:
        self.module = module.eval()
        self.layout = layout
        self.config = config
        self.name = name
        self.card = ""  # Markdown: data, command, scores
        self.training: dict[str, Any] = {}  # how it was made, as its folder says
        self.adapters: dict[str, Tensor] = {}  # merged into the base on loading, kept for saving
        self.template: dict[str, str] | None = None  # of the base, where the layout is one
        self.precision: Precision = precision
        self.most = 0  # contexts read at once; 0 = as many as BUDGET allows
        self._silent: frozenset[int] | None = None

    @property
    def tokens(self) -> Layout:
        """What makes rows of texts."""
        return self.layout

    @property
    def is_cross(self) -> bool:
        """A reply is only read behind its context."""
        return True

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    def to(self, device: str) -> TextGenerator:
        """Move the weights, e.g. to "cuda". ConfigError if this machine has no such device."""
        move(self.module, device)
        return self

    def halved(self) -> TextGenerator:
        """A copy with bf16 weights, the fastest to read and write with; for inference only."""
        other = copy.copy(self)
        other.module = copy.deepcopy(self.module).to(torch.bfloat16)
        other.precision = "fp32"  # nothing is left to cast
        return other

    def scores(self, dialogue: Dialogue, candidates: Sequence[str]) -> Tensor:
        """What the next-utterance head says of each candidate, in the order given: -> (N,) fp32"""
        return self.score_many([dialogue], [candidates])[0]

    def rank(self, dialogue: Dialogue, candidates: Sequence[str]) -> Ranking:
        """Scores and candidate numbers, best first; of two equal ones the earlier."""
        scores = self.scores(dialogue, candidates)
        order = scores.argsort(descending=True, stable=True)
        return Ranking(tuple(scores.tolist()), tuple(order.tolist()))

    def score_many(
        self,
        dialogues: Sequence[Dialogue],
        lists: Sequence[Sequence[str]],
        progress: Progress | None = None,
    ) -> list[Tensor]:
        """`scores` of every dialogue's own candidates: -> one (N_i,) each, on the CPU."""
        return self.judged(dialogues, lists, _follows, progress)

    def likelihoods(
        self,
        dialogues: Sequence[Dialogue],
        lists: Sequence[Sequence[str]],
        progress: Progress | None = None,
    ) -> list[Tensor]:
        """Mean log-likelihood of the tokens of each candidate, its end included: -> (N_i,) each."""
        return self.judged(dialogues, lists, _likelihood, progress)

    def surprise(
        self,
        dialogues: Sequence[Dialogue],
        replies: Sequence[str],
        progress: Progress | None = None,
    ) -> list[tuple[float, int]]:
        """Of each dialogue's reply, what all its tokens cost (-log likelihood) and their number."""
        means = self.likelihoods(dialogues, [[reply] for reply in replies], progress)
        counts = [len(self.layout.reply(reply)) for reply in replies]
        return [(-float(mean) * n, n) for mean, n in zip(means, counts, strict=True)]

    @torch.inference_mode()
    def judged(
        self,
        dialogues: Sequence[Dialogue],
        lists: Sequence[Sequence[str]],
        judge: Judge,
        progress: Progress | None = None,
    ) -> list[Tensor]:
        """What `judge` makes of every candidate: -> one (N_i,) each, on the CPU."""
        contexts = self.layout.contexts(dialogues)
        replies = [self.layout.candidates(texts) for texts in lists]
        found = [torch.empty(len(texts)) for texts in lists]
        parts = [(i, part) for i, rows in enumerate(replies) for part in _parts(rows)]
        sizes = [len(contexts[i]) + sum(map(len, replies[i][part])) for i, part in parts]
        done = 0
        for batch in by_length(sizes, BUDGET, self.most):
            chosen = [parts[number] for number in batch]
            scores = self._read(
                [contexts[i] for i, _ in chosen], [replies[i][part] for i, part in chosen], judge
            )
            for (i, part), some in zip(chosen, scores, strict=True):
                found[i][part] = some
            done += len(batch)
            if progress:
                progress(done * len(dialogues) // len(parts), len(dialogues))
        return found

    def _read(
        self, contexts: list[list[int]], replies: list[list[list[int]]], judge: Judge
    ) -> tuple[Tensor, ...]:
        """Scores of each context's replies."""
        left, right = self._rows(contexts), self._rows([row for own in replies for row in own])
        counts = [len(own) for own in replies]
        owner = torch.arange(len(counts), device=self.device)
        owner = owner.repeat_interleave(torch.tensor(counts, device=self.device))
        with self._cast():
            states = self.module.behind(left, right, owner)
            found = judge(self.module, states, right)
        parts: tuple[Tensor, ...] = found.float().cpu().split(counts)
        return parts

    @torch.no_grad()
    def logits(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        mc_token_ids: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Raw scores in fp32: of every next token, and of each row as the reply that follows.

        input_ids (..., L), padded on the right. token_type_ids (..., L): the speaker of each token;
        by default the one that came last, of <pad> <pad>. mc_token_ids (...): the place of each
        reply's last token; by default the last one that is not <pad>. -> (..., L, V) and (...), on
        the CPU. Raises ConfigError for shapes or ids that the model cannot read.
        """
        size = len(self.module.body.words) + len(self.module.added)
        ids = _numbers("input_ids", input_ids, size)
        length = ids.shape[-1] if ids.dim() else 0
        if not 0 < length <= self.module.body.limit:
            raise ConfigError(
                f"input_ids has shape {tuple(ids.shape)}; expected (..., L) with L from 1 to "
                f"{self.module.body.limit}, which is what the model has positions for"
            )
        rows = ids.reshape(-1, length)
        types = self._types_of(rows)
        if token_type_ids is not None and types is None:
            raise ConfigError(
                "token_type_ids are given, but this generator's layout is the chat template of its "
                "base, which has no types; leave them out"
            )
        if token_type_ids is not None:
            given = _numbers("token_type_ids", token_type_ids, size, ids.shape)
            types = given.reshape(-1, length)
        real = (rows != self.layout.pad) * torch.arange(length)
        ends = real.amax(-1)
        if mc_token_ids is not None:
            ends = _numbers("mc_token_ids", mc_token_ids, length, ids.shape[:-1]).reshape(-1)
        every = torch.ones_like(rows, dtype=torch.bool)
        moved = (None if one is None else one.to(self.device) for one in (rows, every, types))
        states = self.module(Rows(*moved))  # type: ignore[arg-type]
        scores = self.module.next_tokens(states).float().cpu()
        at = states[torch.arange(len(rows)), ends.to(self.device)]
        follows = self.module.follows(at).float().cpu()
        return scores.reshape(*ids.shape, -1), follows.reshape(ids.shape[:-1])

    def _types_of(self, rows: Tensor) -> Tensor | None:
        """(B, L) -> (B, L) the types that rows have where none are given."""
        found = self.module.types(rows)
        return None if found is None else found.where(rows != self.layout.pad, self.layout.pad)

    def write(
        self, dialogues: Sequence[Dialogue], how: Decoding, progress: Progress | None = None
    ) -> list[str]:
        """A reply to each dialogue; never empty, never with a special token in it.

        Number i is drawn with the seed `how.seed` + i, whatever the others are. No reply is longer
        than the base has positions for behind the longest context.
        """
        replies = [""] * len(dialogues)
        contexts = [self.layout.context(dialogue) for dialogue in dialogues]
        done = 0
        for batch in by_length([len(row) for row in contexts], BUDGET, self.most):
            rows = [contexts[i] for i in batch]
            seeds = [how.seed + i for i in batch]
            for i, ids in zip(batch, self._written(rows, how, seeds), strict=True):
                replies[i] = self.layout.text(ids)
            done += len(batch)
            if progress:
                progress(done, len(dialogues))
        return replies

    def several(self, dialogue: Dialogue, how: Decoding, count: int) -> list[str]:
        """So many replies to one dialogue, of consecutive seeds; equal ones stay."""
        context = self.layout.context(dialogue)
        seeds = [how.seed + i for i in range(count)]
        longest = len(context) + how.max_length
        replies: list[str] = []
        for batch in by_length([longest] * count, BUDGET, self.most):
            some = self._written([context] * len(batch), how, [seeds[i] for i in batch])
            replies += map(self.layout.text, some)
        return replies

    def stream(self, dialogue: Dialogue, how: Decoding) -> Iterator[str]:
        """The reply of `write`, piece by piece as it comes.

        Half a character waits for its other half, and half of a word like "i'm" for the rest.
        """
        ids: list[int] = []
        said = ""
        contexts, how = [self.layout.context(dialogue)], self._within_reach(how)
        for step in self._steps(contexts, how, [how.seed]):
            ids.append(step[0])
            text = self.layout.settled(self.layout.text(ids))
            if text.startswith(said) and text != said and not text.endswith(UNFINISHED):
                yield text[len(said) :]
                said = text
        text = self.layout.text(ids)
        if text.startswith(said) and text != said:
            yield text[len(said) :]

    def _written(
        self, contexts: list[list[int]], how: Decoding, seeds: list[int]
    ) -> list[list[int]]:
        how = self._within_reach(how)
        if how.beams > 1:
            rows = [self._rows([context]) for context in contexts]
            with self._cast():
                return [beam(self.module, row, self.meaning(), how)[0] for row in rows]
        found: list[list[int]] = [[] for _ in contexts]
        for step in self._steps(contexts, how, seeds):
            for row, token in step.items():
                found[row].append(token)
        return found

    def _within_reach(self, how: Decoding) -> Decoding:
        """No longer than fits behind any context, so that it does not hang on the one at hand."""
        room = self.module.body.limit - self.layout.style.max_context
        return replace(
            how, max_length=min(how.max_length, room), min_length=min(how.min_length, room)
        )

    def _steps(
        self, contexts: list[list[int]], how: Decoding, seeds: list[int]
    ) -> Iterator[dict[int, int]]:
        steps = write(self.module, self._rows(contexts), self.meaning(), how, seeds)
        while True:
            with self._cast():  # not around what the caller does between two tokens
                step = next(steps, None)
            if step is None:
                return
            yield step

    def meaning(self) -> Meaning:
        """Which tokens end a reply, are never written, or show nothing when they stand alone."""
        if self._silent is None:
            size = len(self.module.body.words)
            shown = [self.layout.text([i]) for i in range(size)]
            self._silent = frozenset(
                i for i, text in enumerate(shown) if not text or text.startswith(MIDDLE)
            )
        return Meaning(self.layout.stop, self.layout.never, self._silent - self.layout.stop)

    def _rows(self, rows: list[list[int]]) -> Rows:
        ids, mask = pad(rows)
        return Rows(ids.to(self.device), mask.to(self.device))

    def _cast(self) -> AbstractContextManager[object]:
        if self.precision == "fp32":
            return nullcontext()
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype)


def _numbers(name: str, given: Tensor, most: int, shape: Sequence[int] | None = None) -> Tensor:
    """Whole numbers below `most`, of a shape if it is known, on the CPU. ConfigError otherwise."""
    given = torch.as_tensor(given)  # lists do as well
    if given.is_floating_point() or given.is_complex():
        raise ConfigError(f"{name} is of {given.dtype}; expected whole numbers")
    if shape is not None and given.shape != shape:
        raise ConfigError(f"{name} has shape {tuple(given.shape)}; expected {tuple(shape)}")
    if given.numel() and not 0 <= int(given.min()) <= int(given.max()) < most:
        raise ConfigError(
            f"{name} goes from {int(given.min())} to {int(given.max())}; expected 0 up to (not "
            f"including) {most}"
        )
    return given.long().cpu()


def _follows(module: Generator, states: Tensor, replies: Rows) -> Tensor:
    return module.follows(last(states, replies.mask))


def _likelihood(module: Generator, states: Tensor, replies: Rows) -> Tensor:
    return log_likelihood(module, states, replies).sum(1) / replies.mask[:, 1:].sum(1)


def _parts(rows: list[list[int]]) -> list[slice]:
    """Candidates of one context in parts of at most BUDGET tokens, as all are read together."""
    found, begin, size = [], 0, 0
    for i, row in enumerate(rows):
        if i > begin and size + len(row) > BUDGET:
            found.append(slice(begin, i))
            begin, size = i, 0
        size += len(row)
    return [*found, slice(begin, len(rows))] if rows else found
