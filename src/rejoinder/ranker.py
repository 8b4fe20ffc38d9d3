"""A ranker that reads text: module, tokens and confidence as one thing to hold.

    ranker = rejoinder.load("persona-poly")
    ranking = ranker.rank(dialogue, candidates)
    candidates[ranking.order[0]]

Everything goes through `encode_contexts`, `encode_candidates` and `score`; what they return may be
kept. Rows of like length are encoded together and come back in the order given.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rejoinder.batching import by_length, pad
from rejoinder.confidence import Confidence, Crowd
from rejoinder.config import ModelConfig
from rejoinder.devices import move
from rejoinder.errors import ConfigError, RejoinderError
from rejoinder.models.rankers import BiEncoder, CrossEncoder, Encoded, PolyEncoder
from rejoinder.schema import Dialogue, Ranking
from rejoinder.tokens import Rows

Precision = Literal["fp32", "bf16", "fp16"]
BUDGET = 4096  # tokens of one forward pass, padding included
Progress = Callable[[int, int], None]  # done, all


class TextRanker:
    """Scores candidate replies to a dialogue.

    `precision` bf16 halves the time of encoding on processors that have it; scores then differ in
    the third digit. The default gives fp32.
    """

    def __init__(
        self,
        module: BiEncoder | PolyEncoder | CrossEncoder,
        tokens: Rows,
        config: ModelConfig,
        *,
        name: str = "",
        fingerprint: str = "",
        card: str = "",
        confidence: Confidence | None = None,
        precision: Precision = "fp32",
    ) -> None:
        self.module = module.eval()
        self.tokens = tokens
        self.config = config
        self.name = name
        self.fingerprint = fingerprint  # of weights and text format; an index remembers it
        self.training: dict[str, Any] = {}  # how it was made, as its folder says
        self.card = card  # Markdown: data, command, scores
        self.adapters: dict[str, Tensor] = {}  # merged into the base on loading, kept for saving
        self.confidence = confidence
        self.precision: Precision = precision
        self.most = 0  # texts encoded at once; 0 = as many as BUDGET allows

    @classmethod
    def from_pretrained(cls, name: str | Path, device: str = "cpu") -> TextRanker:
        """A ranker from a folder, a model of the zoo, or a Hugging Face repository `owner/name`."""
        from rejoinder import zoo  # the one import that points up: models are found by name there

        return zoo.load_ranker(name, device)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the self-describing folder that `from_pretrained` reads."""
        from rejoinder import checkpoint

        checkpoint.save(self, Path(folder), card=self.card, training=self.training)

    def push_to_hub(self, repository: str, *, private: bool = False) -> str:
        """Upload to the Hugging Face hub, with the token of `hf auth login`; -> its address.

        Raises RejoinderError if the hub refuses or is out of reach.
        """
        from huggingface_hub import HfApi

        hub = HfApi()
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(Path(folder) / "model")
            try:
                address = hub.create_repo(repository, private=private, exist_ok=True)
                hub.upload_folder(repo_id=address.repo_id, folder_path=Path(folder) / "model")
            # The hub client raises a dozen unrelated kinds of errors, all with a text.
            except Exception as error:
                reason = str(error).split("\n")[0][:200]
                raise RejoinderError(
                    f"{repository}: could not be uploaded ({reason}); log in with `hf auth login`, "
                    "and check the name and the network"
                ) from None
        return str(address)

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @property
    def is_cross(self) -> bool:
        """Whether a candidate can only be encoded together with its context."""
        return isinstance(self.module, CrossEncoder)

    def to(self, device: str) -> TextRanker:
        """Move the weights, e.g. to "cuda". ConfigError if this machine has no such device."""
        move(self.module, device)
        return self

    def halved(self) -> TextRanker:
        """A copy with bf16 weights, the fastest to encode with; for inference only."""
        other = copy.copy(self)
        other.module = copy.deepcopy(self.module).to(torch.bfloat16)
        other.precision = "fp32"  # nothing is left to cast
        return other

    def scores(self, dialogue: Dialogue, candidates: Sequence[str]) -> Tensor:
        """One fp32 score for each candidate, in the order given: -> (N,) on the CPU."""
        return self.score_many([dialogue], [candidates])[0]

    def rank(self, dialogue: Dialogue, candidates: Sequence[str]) -> Ranking:
        """Scores, candidate numbers best first (of two equal ones the earlier), confidence."""
        scores = self.scores(dialogue, candidates)
        order = scores.argsort(descending=True, stable=True)
        sure = None
        if self.confidence and len(scores):
            sure = self.confidence.of(Crowd.of(scores.numpy()))
        return Ranking(tuple(scores.tolist()), tuple(order.tolist()), sure)

    def score_many(
        self,
        dialogues: Sequence[Dialogue],
        lists: Sequence[Sequence[str]],
        progress: Progress | None = None,
    ) -> list[Tensor]:
        """Scores of every dialogue's own candidates: -> one (N_i,) each, fp32, on the CPU.

        A text that a list has twice is scored once: equal texts get equal scores, to the last bit.
        """
        once = [_distinct(texts) for texts in lists]
        score = self._score_pairs if self.is_cross else self._score_apart
        found = score(dialogues, [texts for texts, _ in once], progress)
        return [scores[place] for scores, (_, place) in zip(found, once, strict=True)]

    def _score_apart(
        self,
        dialogues: Sequence[Dialogue],
        lists: Sequence[Sequence[str]],
        progress: Progress | None,
    ) -> list[Tensor]:
        texts = list(dict.fromkeys(text for texts in lists for text in texts))
        number = {text: i for i, text in enumerate(texts)}
        alone = self.module.reads_padding  # then a list is padded to its own longest
        vectors = self.encode_candidates([] if alone else texts)
        found: list[Tensor] = [torch.empty(0)] * len(dialogues)
        rows = self.tokens.contexts(dialogues)
        done = 0
        for batch in by_length([len(row) for row in rows], BUDGET, self.most, equal=alone):
            context = self._encode_rows([rows[i] for i in batch], "context")
            for place, i in enumerate(batch):
                if alone:
                    wanted = self.encode_candidates(lists[i])
                else:
                    wanted = vectors[[number[text] for text in lists[i]]]
                found[i] = self.score(Encoded(*(x[place : place + 1] for x in context)), wanted)[0]
            done += len(batch)
            if progress:
                progress(done, len(dialogues))
        return found

    def encode_contexts(self, dialogues: Sequence[Dialogue]) -> Encoded:
        """Vectors of a few contexts: (B, M, D) and their mask (B, M)."""
        rows = self.tokens.contexts(dialogues)
        if not self.module.reads_padding:
            return self._encode_rows(rows, "context")
        each = [self._encode_rows([row], "context") for row in rows]
        vectors = pad_sequence([one.vectors[0] for one in each], batch_first=True)
        return Encoded(vectors, pad_sequence([one.mask[0] for one in each], batch_first=True))

    def encode_candidates(
        self, replies: Sequence[str], progress: Progress | None = None, width: int = 0
    ) -> Tensor:
        """One fp32 vector per reply, in the order given: -> (N, D) on the ranker's device.

        Where a ranker reads padding, all are padded to the longest of them, or to `width`.
        """
        if isinstance(self.module, CrossEncoder):
            raise ConfigError(
                "a cross-encoder reads candidate and context together, so a candidate has no "
                "vector of its own; take a bi- or poly-encoder"
            )
        rows = self.tokens.candidates(replies)
        vectors = torch.empty(len(rows), self.module.candidate_encoder.width, device=self.device)
        done = 0
        lengths = [len(row) for row in rows]
        width = max([width, *lengths]) if self.module.reads_padding else 0
        for batch in by_length([max(width, n) for n in lengths], BUDGET, self.most):
            some = [rows[i] for i in batch]
            vectors[batch] = self._encode_rows(some, "candidates", width).vectors
            done += len(batch)
            if progress:
                progress(done, len(rows))
        return vectors

    def width_of(self, replies: Sequence[str]) -> int:
        """The tokens of the longest one, where a ranker reads padding; else 0, as nobody asks."""
        if not self.module.reads_padding:
            return 0
        return max(map(len, self.tokens.candidates(replies)), default=0)

    @torch.inference_mode()
    def score(self, context: Encoded, vectors: Tensor) -> Tensor:
        """(B, M, D), (N, D) -> (B, N), fp32 on the CPU"""
        everywhere = torch.ones(len(vectors), 1, dtype=torch.bool, device=vectors.device)
        return self.module.score(context, Encoded(vectors, everywhere)).float().cpu()

    @torch.inference_mode()
    def _encode_rows(self, rows: list[list[int]], side: str, width: int = 0) -> Encoded:
        ids, mask = (x.to(self.device) for x in pad(rows, self.tokens.pad, width))
        with self._cast():
            encode = getattr(self.module, f"encode_{side}")
            encoded: Encoded = encode(ids, mask)
        return Encoded(encoded.vectors.float(), encoded.mask)

    @torch.inference_mode()
    def _score_pairs(
        self,
        dialogues: Sequence[Dialogue],
        lists: Sequence[Sequence[str]],
        progress: Progress | None,
    ) -> list[Tensor]:
        assert isinstance(self.module, CrossEncoder)
        if self.module.reads_padding and len(dialogues) > 1:  # every request by itself
            each = zip(dialogues, lists, strict=True)
            return [self._score_pairs([one], [texts], None)[0] for one, texts in each]
        left = self.tokens.contexts(dialogues)
        right = [self.tokens.candidates(texts) for texts in lists]
        pairs = [(i, j) for i, rows in enumerate(right) for j in range(len(rows))]
        found = [torch.empty(len(rows)) for rows in right]
        done = 0
        longest = [max(map(len, rows), default=0) for rows in right]
        tokens = [
            self.module.tokens(len(left[i]), longest[i], len(rows)) // max(1, len(rows))
            for i, rows in enumerate(right)
        ]
        # pairs of one context stay together, so that it is read alone but once or twice
        for batch in by_length([tokens[i] for i, _ in pairs], BUDGET, self.most):
            chosen = [pairs[b] for b in batch]
            place = {i: row for row, i in enumerate(dict.fromkeys(i for i, _ in chosen))}
            context = Encoded(*self._padded([left[i] for i in place]))
            width = max(longest) if self.module.reads_padding else 0
            candidates = Encoded(*self._padded([right[i][j] for i, j in chosen], width))
            owner = torch.tensor([place[i] for i, _ in chosen], device=self.device)
            with self._cast():
                scores = self.module.score_pairs(context, candidates, owner).float().cpu()
            for (i, j), score in zip(chosen, scores, strict=True):
                found[i][j] = score
            done += len(batch)
            if progress:
                progress(done, len(pairs))
        return found

    def _padded(self, rows: list[list[int]], width: int = 0) -> tuple[Tensor, Tensor]:
        ids, mask = pad(rows, self.tokens.pad, width)
        return ids.to(self.device), mask.to(self.device)

    def _cast(self) -> AbstractContextManager[object]:
        if self.precision == "fp32":
            return nullcontext()
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype)


def _distinct(texts: Sequence[str]) -> tuple[list[str], Tensor]:
    """Every text once, in order of appearance, and where each given one stands among them."""
    places: dict[str, int] = {}
    where = [places.setdefault(text, len(places)) for text in texts]
    return list(places), torch.tensor(where, dtype=torch.long)
