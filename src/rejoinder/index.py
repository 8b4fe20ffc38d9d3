"""Many candidates, encoded once and kept: exact top-k for any context.

A bi- or poly-encoder's candidate vector does not depend on the context, so an index is one matrix
(N, D) beside N texts. A poly score is a softmax-weighted mean of dot products (models.attention),
so one matrix product per block of candidates gives all scores, and no vector per context and
candidate is ever made.

An index remembers the fingerprint of the model (its weights and text format) and of its own texts;
it refuses to work with another model.

    DIR/index.json           fingerprints, sizes, precision, where the candidates came from
    DIR/candidates.jsonl     one JSON string a line
    DIR/vectors.safetensors  (N, D) fp32 or bf16
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rejoinder.confidence import Crowd
from rejoinder.errors import ConfigError, IndexStale, RejoinderError
from rejoinder.files import check_replaceable, whole_folder
from rejoinder.models.rankers import Encoded
from rejoinder.ranker import Precision, TextRanker
from rejoinder.schema import Dialogue
from rejoinder.weighing import views, weighted

Progress = Callable[[int, int], None]
BLOCK = 2048  # candidates scored at once: their products with all codes stay in the cache
ROUNDED = 256  # of a bf16 index, candidates that are scored again in fp32
PART = 16384  # candidates encoded between two saves of an interrupted build
FILES = ("index.json", "candidates.jsonl", "vectors.safetensors")
NO_VECTORS = (
    "a cross-encoder reads candidate and context together, so nothing can be kept; build the index "
    "with a bi- or poly-encoder and use the cross-encoder to --rerank"
)


@dataclass(frozen=True)
class Found:
    """The best candidates of one search, best first, and what the whole pool's scores were like."""

    numbers: tuple[int, ...]
    scores: tuple[float, ...]
    crowd: Crowd


class CandidateIndex(Protocol):
    """What an agent needs of an index, whichever engine is behind it."""

    @property
    def texts(self) -> Sequence[str]: ...

    def add(self, candidates: Sequence[str]) -> None: ...
    def search(self, dialogue: Dialogue, k: int, persona_weight: float = 1.0) -> Found: ...


class Index:
    """All candidates scored, none left out: the truth that any faster engine is measured by."""

    def __init__(
        self, ranker: TextRanker, texts: Sequence[str], vectors: Tensor, source: str = ""
    ) -> None:
        self.ranker = ranker
        self.texts = list(texts)
        self.vectors = vectors.to(ranker.device)  # (N, D) fp32 or bf16
        self.source = source
        self._known = set(self.texts)

    @classmethod
    def build(
        cls,
        ranker: TextRanker,
        candidates: Iterable[str],
        *,
        precision: Precision = "fp32",
        out: Path | None = None,
        source: str = "",
        progress: Progress | None = None,
    ) -> Index:
        """Encode distinct candidates; with `out`, save there, and go on where a build broke off.

        Raises ConfigError for a cross-encoder, which has no candidate vectors, or no candidates.
        """
        if ranker.is_cross:
            raise ConfigError(NO_VECTORS)
        if out:
            check_replaceable(out, FILES)  # now, not after an hour of encoding
        texts = list(dict.fromkeys(candidates))
        if not texts:
            raise ConfigError("no candidates to build an index of")
        parts = _Parts(out, ranker, texts, precision)
        vectors = torch.cat(list(parts.encode(progress)))
        index = cls(ranker, texts, vectors, source)
        if out:
            index.save(out)
            parts.discard()
        return index

    @classmethod
    def load(cls, folder: Path, ranker: TextRanker) -> Index:
        """Read a saved index; IndexStale if it was built with another model or text format."""
        if ranker.is_cross:
            raise ConfigError(NO_VECTORS)
        info = read_info(folder)
        if info["model"] != ranker.fingerprint:
            raise IndexStale(
                f"{folder}: built with {info['model_name']} ({info['model'][:8]}), not with "
                f"{ranker.name} as it is now ({ranker.fingerprint[:8]}); name the model that it "
                f"was built with, or {_again(folder)}"
            )
        texts = _read_texts(folder / "candidates.jsonl")
        vectors = _read_vectors(folder / "vectors.safetensors", info["width"])
        if len(texts) != len(vectors) or hash_texts(texts) != info["candidates"]:
            raise IndexStale(
                f"{folder / 'candidates.jsonl'}: changed after the index was built ({len(texts)} "
                f"texts for {len(vectors)} vectors); restore the file, or {_again(folder)}"
            )
        return cls(ranker, texts, vectors, str(info.get("source", "")))

    def save(self, folder: Path) -> None:
        """Write the folder, whole or not at all."""
        info = {
            "format": 1,
            "model": self.ranker.fingerprint,
            "model_name": self.ranker.name,
            "candidates": hash_texts(self.texts),
            "size": len(self.texts),
            "width": self.vectors.shape[1],
            "precision": "bf16" if self.vectors.dtype == torch.bfloat16 else "fp32",
            "source": self.source,
        }
        with whole_folder(folder, FILES) as new:
            (new / "index.json").write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")
            lines = "".join(json.dumps(text, ensure_ascii=False) + "\n" for text in self.texts)
            (new / "candidates.jsonl").write_text(lines, encoding="utf-8")
            save_file({"vectors": self.vectors.cpu().contiguous()}, new / "vectors.safetensors")

    def add(self, candidates: Sequence[str]) -> None:
        """Encode and append those that are not there yet."""
        new = [text for text in dict.fromkeys(candidates) if text not in self._known]
        if not new:
            return
        halved = self.vectors.dtype == torch.bfloat16
        encoder = self.ranker.halved() if halved else self.ranker
        width = encoder.width_of([*self.texts, *new])  # as wide as if all were encoded now
        vectors = encoder.encode_candidates(new, width=width).to(self.vectors)
        self.vectors = torch.cat([self.vectors, vectors])
        self.texts += new
        self._known.update(new)

    def search(self, dialogue: Dialogue, k: int = 10, persona_weight: float = 1.0) -> Found:
        """The k best candidates for a dialogue, best first; fewer if there are fewer.

        persona_weight: share of the score that knows the persona (see `weighing`).
        """
        seen = views(dialogue, persona_weight)
        contexts = [self.ranker.encode_contexts([view]) for view, _ in seen]
        return self.search_encoded(contexts, [share for _, share in seen], k)

    @torch.inference_mode()
    def search_encoded(
        self, contexts: Sequence[Encoded], shares: Sequence[float] = (1.0,), k: int = 10
    ) -> Found:
        """The k best by the weighted sum of some contexts' scores, their codes each (1, M, D).

        The earlier of two equal candidates comes first.
        """
        scores = weighted([self.scores(context) for context in contexts], shares)
        rounded = self.vectors.dtype == torch.bfloat16
        most = max(8 * k, ROUNDED) if rounded else max(k, 2)
        best = scores.topk(min(most, len(scores)), sorted=True)
        numbers = best.indices
        exact = best.values
        if rounded:  # products in bf16 are near, not exact: score the best again
            again = self.vectors[numbers.to(self.vectors.device)].float()
            exact = weighted([self._score(context, again) for context in contexts], shares)
        order = sorted(range(len(numbers)), key=lambda i: (-float(exact[i]), int(numbers[i])))
        second = order[1] if len(order) > 1 else order[0]
        crowd = Crowd(
            float(exact[order[0]]), float(exact[second]), float(scores.mean()), _spread(scores)
        )
        chosen = order[:k]
        return Found(
            tuple(int(numbers[i]) for i in chosen), tuple(float(exact[i]) for i in chosen), crowd
        )

    @torch.inference_mode()
    def scores(self, context: Encoded) -> Tensor:
        """Scores of all candidates for one context: (1, M, D) -> (N,) fp32"""
        blocks = self.vectors.split(BLOCK)
        return torch.cat([self._score(context, block) for block in blocks])

    def _score(self, context: Encoded, block: Tensor) -> Tensor:
        everywhere = torch.ones(len(block), 1, dtype=torch.bool, device=block.device)
        cast = Encoded(context.vectors.to(block.dtype), context.mask)
        return self.ranker.module.score(cast, Encoded(block, everywhere))[0].float().cpu()


class _Parts:
    """The parts of a build: each is saved when done, so that a broken build goes on."""

    def __init__(
        self, out: Path | None, ranker: TextRanker, texts: list[str], precision: Precision
    ) -> None:
        self.encoder = ranker.halved() if precision == "bf16" else ranker
        self.texts = texts
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.folder = out.with_name(f".{out.name}.building") if out else None
        if self.folder:
            self._claim(f"{ranker.fingerprint} {hash_texts(texts)} {precision}")

    def encode(self, progress: Progress | None) -> Iterable[Tensor]:
        """Vectors of all candidates, part by part."""
        width = self.encoder.width_of(self.texts)
        for start in range(0, len(self.texts), PART):
            texts = self.texts[start : start + PART]
            file = self.folder / f"{start}.safetensors" if self.folder else None
            vectors = _kept(file, len(texts), self.encoder.device)
            if vectors is None:
                vectors = self.encoder.encode_candidates(
                    texts, _shifted(progress, start, len(self.texts)), width
                ).to(self.dtype)
                if file:
                    _keep(vectors, file)
            yield vectors

    def discard(self) -> None:
        """The index is saved: the parts are not needed any more."""
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _claim(self, what: str) -> None:
        assert self.folder is not None
        mark = self.folder / "of"
        try:
            if not mark.is_file() or mark.read_text(encoding="utf-8") != what:
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder.mkdir(parents=True)
                mark.write_text(what, encoding="utf-8")
        except OSError as error:
            raise _unwritable(self.folder, error) from None


def _keep(vectors: Tensor, file: Path) -> None:
    temporary = file.with_suffix(".tmp")
    try:
        save_file({"vectors": vectors.cpu()}, temporary)
        temporary.replace(file)
    except (OSError, SafetensorError) as error:  # safetensors has its own error for a full disk
        temporary.unlink(missing_ok=True)
        raise _unwritable(file, error) from None


def _unwritable(file: Path, error: Exception) -> RejoinderError:
    return RejoinderError(
        f"{file}: could not be written ({getattr(error, 'strerror', None) or error}); free some "
        "space and run the same command again, which goes on from there, or choose another place"
    )


def _kept(file: Path | None, size: int, device: torch.device) -> Tensor | None:
    if file is None or not file.is_file():
        return None
    try:
        vectors = load_file(file)["vectors"]
    except (SafetensorError, KeyError, OSError):
        return None
    return vectors.to(device) if len(vectors) == size else None


def _read_texts(file: Path) -> list[str]:
    """Candidates, one JSON string a line; only a line feed ends a line, not U+2028."""
    texts: list[str] = []
    try:
        for line in file.read_text(encoding="utf-8").removesuffix("\n").split("\n"):
            text = json.loads(line)
            if not isinstance(text, str):
                raise ValueError(f"expected one text in quotes a line, got {line[:40]!r}")
            texts.append(text)
    except (OSError, ValueError, RecursionError) as error:
        what = getattr(error, "strerror", None) or error
        raise RejoinderError(
            f"{file}:{len(texts) + 1}: broken index ({what}); restore the file, or "
            f"{_again(file.parent)}"
        ) from None
    return texts


def _read_vectors(file: Path, width: int) -> Tensor:
    try:
        vectors = load_file(file)["vectors"]
        if vectors.dim() != 2 or vectors.shape[1] != width:
            raise ValueError(f"shape {tuple(vectors.shape)}, expected {width} columns")
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        what = getattr(error, "strerror", None) or error
        raise RejoinderError(
            f"{file}: broken index ({what}); restore the file, or {_again(file.parent)}"
        ) from None
    return vectors


def _again(folder: Path) -> str:
    return f"build it again: rejoinder index build CANDIDATES --model MODEL --out {folder}"


def _shifted(progress: Progress | None, start: int, total: int) -> Progress | None:
    return (lambda done, _: progress(start + done, total)) if progress else None


def _spread(scores: Tensor) -> float:
    return float(scores.std(correction=0))


def hash_texts(texts: Iterable[str]) -> str:
    """A hash of the candidates and their order."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()[:32]


def read_info(folder: Path) -> dict[str, Any]:
    """What `index.json` says. Raises RejoinderError if the folder is no index."""
    file = folder / "index.json"
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(info, dict):
            raise ValueError(f"expected an object, got {str(info)[:40]!r}")
        if info["format"] != 1:
            raise ValueError(f"format {info['format']}, expected 1")
        kinds = {"model": str, "model_name": str, "candidates": str, "width": int}
        for name, kind in kinds.items():
            if not isinstance(info[name], kind):
                raise ValueError(f"{name} is {info[name]!r}, expected {kind.__name__}")
    except KeyError as error:
        raise _no_index(file, f"{error} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise _no_index(file, getattr(error, "strerror", None) or error) from None
    return info


def _no_index(file: Path, why: object) -> RejoinderError:
    return RejoinderError(
        f"{file}: not an index ({why}); make one with: rejoinder index build CANDIDATES --model "
        "MODEL --out DIR"
    )
