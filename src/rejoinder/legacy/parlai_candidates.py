"""The candidates that a ParlAI ranker answered with, and what it kept of them, as an index of ours.

    FILE                  one candidate a line
    MODEL.FILE.vecs       token ids of every line, (N, L), padded with zeros
    MODEL.FILE.encs       vectors of every line, (N, D), of a poly-encoder (1, N, D)

Both names are without their endings, and both caches lie beside the model. ParlAI takes up whatever
has that name, so they may be of an older file, dictionary or model. Here nothing of them is used
that does not fit: token ids are held against ours line by line, vectors against ours in a sample.
Facts about the files: ParlAI's source at commit a29567f7.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from rejoinder.data.approval import is_table
from rejoinder.data.files import text_blocks
from rejoinder.data.formats import recognise
from rejoinder.errors import CheckpointError, ConfigError, DataError
from rejoinder.files import check_replaceable
from rejoinder.index import FILES, NO_VECTORS, Index
from rejoinder.legacy.torchfiles import read_torch
from rejoinder.ranker import TextRanker
from rejoinder.words import composed

Progress = Callable[[int, int], None]
LINE_END = re.compile(r"\r\n|\r|\n")  # as Python reads a text file, and so ParlAI
SAMPLE = 32  # candidates whose kept vectors are held against ours, besides longest and shortest
# How far a vector may be off, of its largest entry. Twelve trained layers of fp32 round to 1e-6,
# of fp16 to 1.6e-3; one update of 5e-5 in every weight moves vectors of fp32 by 2e-3 at least.
CLOSE = {torch.float32: 1e-5, torch.float16: 4e-3}


@dataclass(frozen=True)
class ImportedCandidates:
    """An index, and what is to be said about where it came from."""

    index: Index
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Lines:
    """The lines of a file, and which of them are candidates: not blank, and not there before."""

    name: str  # of the file
    all: list[str]
    kept: list[int]  # places in `all`
    texts: list[str]  # those that are kept


def import_candidates(
    model_file: Path,
    ranker: TextRanker,
    file: Path,
    *,
    out: Path | None = None,
    vecs: Path | None = None,
    encs: Path | None = None,
    progress: Progress | None = None,
) -> ImportedCandidates:
    """Make an index of ParlAI's fixed candidates, of the vectors kept beside the model if they fit.

    ranker: the imported model; an index that is saved to `out` remembers its fingerprint, so take
    the one that was saved and loaded. vecs, encs: the caches, where they lie elsewhere. Caches that
    do not fit are named in the notes and the candidates encoded. Raises ConfigError for a
    cross-encoder, DataError for a file that holds no lines of text, and CheckpointError for a cache
    that cannot be read or holds something else.
    """
    if ranker.is_cross:
        raise ConfigError(NO_VECTORS)
    if out:
        check_replaceable(out, FILES)
    usual = cache_files(model_file, file)
    vecs = vecs or (usual[0] if usual[0].is_file() else None)
    encs = encs or (usual[1] if usual[1].is_file() else None)
    if not vecs and not encs:
        _check_plain(file)
    notes: list[str] = []
    lines = _read_lines(file, notes)
    vectors = _kept_vectors(ranker, lines, vecs, encs, notes)
    if vectors is None:
        index = Index.build(ranker, lines.texts, out=out, source=file.name, progress=progress)
        reason = "" if encs else f", as there is no {usual[1].name} beside the model"
        notes.append(f"{file.name}: {len(index.texts)} candidates encoded{reason}")
        return ImportedCandidates(index, notes)
    index = Index(ranker, lines.texts, vectors, file.name)
    if out:
        index.save(out)
    return ImportedCandidates(index, notes)


def cache_files(model_file: Path, file: Path) -> tuple[Path, Path]:
    """Where ParlAI keeps token ids and vectors of a file of candidates."""
    name = f"{model_file.stem}.{file.stem}"
    return model_file.with_name(f"{name}.vecs"), model_file.with_name(f"{name}.encs")


def _check_plain(file: Path) -> None:
    """Raise DataError for dialogues or a table: nothing says that ParlAI took it line by line."""
    format = "a table" if is_table(file) else recognise(file)
    if format:
        raise DataError(
            f"{file}: looks like {format}; expected one candidate a line, as ParlAI reads it. Make "
            f"an index of any other file with: rejoinder index build {file} --model MODEL --out DIR"
        )


def _read_lines(file: Path, notes: list[str]) -> _Lines:
    """Every line as ParlAI has it, stripped; which are left out is said in `notes`."""
    every = LINE_END.split("".join(text_blocks(file)))
    every = [line.strip() for line in (every if every[-1] else every[:-1])]
    first: dict[str, int] = {}  # place of a text, by its composed form
    repeated: list[int] = []
    for place, line in enumerate(every):
        if line and first.setdefault(composed(line), place) != place:
            repeated.append(place)
    if not first:
        raise DataError(f"{file}: no candidate in it; expected one a line")
    blank = [place for place, line in enumerate(every) if not line]
    if blank:
        notes.append(
            f"{file.name}: blank lines left out: {len(blank)} (first: line {blank[0] + 1})"
        )
    if repeated:
        before = first[composed(every[repeated[0]])]
        notes.append(
            f"{file.name}: repeated candidates left out: {len(repeated)} (first: line "
            f"{repeated[0] + 1}, as line {before + 1})"
        )
    kept = list(first.values())
    return _Lines(file.name, every, kept, [every[place] for place in kept])


def _kept_vectors(
    ranker: TextRanker, lines: _Lines, vecs: Path | None, encs: Path | None, notes: list[str]
) -> Tensor | None:
    """The vectors of a cache, (N, D) fp32 in the order of the candidates; None if none fit."""
    ids = _read_ids(vecs) if vecs else None
    vectors = _read_vectors(encs) if encs else None
    if vecs and ids is not None:
        reason = _other_tokens(ranker, lines, ids)
        if reason:
            unused = f"; {encs.name}, made of it, is not used either" if encs else ""
            notes.append(f"{vecs.name}: stale, {reason}{unused}")
            return None
        notes.append(f"{vecs.name}: the token ids of every line are ours")
    if not encs or vectors is None:
        return None
    reason = _other_shape(ranker, lines, vectors, None if ids is None else ids.shape[1])
    if reason:
        notes.append(f"{encs.name}: stale, {reason}")
        return None
    found = vectors[lines.kept].float()  # a copy: the file is let go
    places = _sample([len(row) for row in ranker.tokens.candidates(lines.texts)])
    off = _off(ranker, lines.texts, found, places)
    worst = int(off.argmax())
    if not off[worst] <= CLOSE[vectors.dtype]:
        line = lines.kept[places[worst]] + 1
        notes.append(f"{encs.name}: stale, the vector of line {line} is off by {off[worst]:.1e}")
        return None
    bits = 8 * vectors.itemsize
    alone = "" if vecs else "; without .vecs the others are taken on trust"
    notes.append(
        f"{encs.name}: {len(found)} vectors of {bits} bits taken as they are; {len(places)} were "
        f"compared, off by {off[worst]:.1e} at most{alone}"
    )
    return found


def _read_ids(file: Path) -> Tensor:
    """(N, L) int64"""
    found = _read_tensor(file)
    if found.dtype != torch.int64 or found.dim() != 2:
        raise _foreign(file, _told(found), "token ids (N, L) of 64 bits")
    return found


def _read_vectors(file: Path) -> Tensor:
    """(N, D) fp32 or fp16"""
    found = _read_tensor(file)
    whole = found[0] if found.dim() == 3 and len(found) == 1 else found
    if whole.dtype not in CLOSE or whole.dim() != 2:
        raise _foreign(file, _told(found), "vectors (N, D) or (1, N, D) of 32 or 16 bits")
    return whole


def _read_tensor(file: Path) -> Tensor:
    try:
        found: Any = read_torch(file)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}; or move {file.name} elsewhere, and the candidates are encoded anew"
        ) from None
    if not isinstance(found, Tensor):
        raise _foreign(file, f"a {type(found).__name__}", "one tensor")
    return found


def _told(tensor: Tensor) -> str:
    return f"a tensor {tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"


def _foreign(file: Path, came: str, expected: str) -> CheckpointError:
    return CheckpointError(
        f"{file}: holds {came}; expected what ParlAI kept of fixed candidates, {expected}. Move it "
        "elsewhere, and the candidates are encoded anew"
    )


def _other_tokens(ranker: TextRanker, lines: _Lines, ids: Tensor) -> str:
    """Why token ids are not those of all lines; nothing if they are."""
    if len(ids) != len(lines.all):
        return f"it has {len(ids)} candidates, {lines.name} has {len(lines.all)} lines"
    filler = ranker.tokens.pad
    for place, row in enumerate(ranker.tokens.candidates(lines.all)):
        if ids[place].tolist() != [*row, *[filler] * (ids.shape[1] - len(row))]:
            text = lines.all[place][:40]
            return f"the tokens of line {place + 1} ({text!r}) are others now"
    return ""


def _other_shape(ranker: TextRanker, lines: _Lines, vectors: Tensor, padded: int | None) -> str:
    """Why vectors cannot be those of all lines, before any is compared; nothing if they can be.

    padded: tokens of a row when they were made, if that is known.
    """
    if len(vectors) != len(lines.all):
        return f"it has {len(vectors)} candidates, {lines.name} has {len(lines.all)} lines"
    width = ranker.encode_candidates([]).shape[1]
    if vectors.shape[1] != width:
        return f"its vectors have {vectors.shape[1]} entries, those of the model {width}"
    longest = ranker.width_of(lines.texts)
    if longest and padded not in (None, longest):
        return f"made with padding to {padded} tokens, not {longest}, and this model reads padding"
    odd = ~vectors.float().sum(1).isfinite()
    if odd.any():
        return f"the vector of line {int(odd.int().argmax()) + 1} holds what is no number"
    return ""


def _sample(lengths: Sequence[int]) -> list[int]:
    """Places spread over all, drawn the same way every time, with the longest and the shortest."""
    chance, count = Random(0), len(lengths)
    parts = min(SAMPLE, count)
    spread = (chance.randrange(i * count // parts, (i + 1) * count // parts) for i in range(parts))
    ends = (min(range(count), key=lengths.__getitem__), max(range(count), key=lengths.__getitem__))
    return sorted({*spread, *ends})


def _off(
    ranker: TextRanker, texts: Sequence[str], vectors: Tensor, places: Sequence[int]
) -> Tensor:
    """How far the vectors at some places are from ours, of the largest entry: (N, D) -> (places,)

    Where a ranker reads padding, ours are as wide as in an index of all texts.
    """
    some = [texts[place] for place in places]
    fresh = ranker.encode_candidates(some, width=ranker.width_of(texts)).cpu()
    largest = fresh.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny)
    return (vectors[list(places)] - fresh).abs().amax(1) / largest
