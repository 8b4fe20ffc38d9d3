"""Answer: build and search indexes, rank lists."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rejoinder import candidates as sources_of
from rejoinder import zoo
from rejoinder.data import parse_dialogue
from rejoinder.data.files import numbered_lines
from rejoinder.data.messages import texts as as_texts
from rejoinder.diversity import diverse, vector_likeness, word_likeness
from rejoinder.errors import DataError, RejoinderError
from rejoinder.index import Index
from rejoinder.ranker import Precision, TextRanker
from rejoinder.schema import Dialogue, Message
from rejoinder.tasks.machine import fast_precision

Progress = Callable[[int, int], None]
STDIN = "standard input"  # its name in messages


def build_index(
    sources: Sequence[str | Path],
    model: str | Path,
    out: Path,
    *,
    block: Path | None = None,
    precision: Precision | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> tuple[Index, sources_of.Collected]:
    """Collect candidates, encode them, save the index in OUT."""
    collected = sources_of.collect(sources, block)
    ranker = zoo.load_ranker(model, device)
    index = Index.build(
        ranker,
        collected.texts,
        precision=precision or fast_precision(),
        out=out,
        source=", ".join(Path(source).name for source in sources),
        progress=progress,
    )
    return index, collected


def cached_index(
    sources: Sequence[str | Path],
    ranker: TextRanker,
    *,
    progress: Progress | None = None,
) -> Index:
    """The index of some sources from the cache folder, built and kept there the first time."""
    key = sources_of.source_key(sources)
    folder = sources_of.cache_folder() / "indexes" / f"{ranker.fingerprint[:16]}-{key}"
    if (folder / "index.json").is_file():
        with suppress(RejoinderError):  # damaged: it is only a cache, so it is built anew
            return Index.load(folder, ranker)
    texts = sources_of.collect(sources).texts
    name = ", ".join(Path(source).name for source in sources)

    def build(out: Path | None) -> Index:
        return Index.build(
            ranker, texts, precision=fast_precision(), out=out, source=name, progress=progress
        )

    try:
        return build(folder)
    except RejoinderError:  # no room for it there: it will do in memory
        return build(None)


def rank_lines(
    ranker: TextRanker, lines: Iterable[str], where: str, *, top: int = 0, spread: bool = False
) -> Iterator[dict[str, Any]]:
    """One answer for each JSON line of `persona`, `messages` and `candidates`.

    scores: raw fp32, in the order given. ranking: candidate numbers, best first, at most `top`;
    with `spread` each unlike those before it.
    """
    where = STDIN if where == "-" else where
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            asked = json.loads(line)
            dialogue = parse_dialogue(asked)
            listed = as_texts(asked.get("candidates"), "candidates")
            if not listed:
                raise DataError("candidates: expected a list of at least one text, got none")
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{where}:{number}: not JSON ({error}): {line[:60]!r}; expected one object a line "
                "with messages and candidates"
            ) from None
        except DataError as error:
            raise DataError(f"{where}:{number}: {error}") from None
        ranking = ranker.rank(dialogue, listed)
        order = list(ranking.order)
        if spread:
            order = _diverse(ranker, listed, ranking.scores, top or len(listed))
        yield {
            "scores": list(ranking.scores),
            "ranking": order[: top or None],
            "confidence": ranking.confidence,
        }


def _diverse(
    ranker: TextRanker, listed: Sequence[str], scores: Sequence[float], count: int
) -> list[int]:
    import torch

    likeness = (
        word_likeness(listed)
        if ranker.is_cross
        else vector_likeness(ranker.encode_candidates(listed))
    )
    return diverse(torch.tensor(scores), likeness, count)


def search(
    folder: Path, text: str, model: str, persona: tuple[str, ...] = (), k: int = 10
) -> list[dict[str, Any]]:
    """The best candidates of a saved index for one message."""
    index = Index.load(folder, zoo.load_ranker(model))
    found = index.search(Dialogue((Message("user", text),), persona), k)
    return [
        {"text": index.texts[number], "score": score}
        for number, score in zip(found.numbers, found.scores, strict=True)
    ]


@contextmanager
def lines_of(file: str) -> Iterator[Iterable[str]]:
    """Lines of a file, or of standard input for `-`."""
    if file == "-":
        yield _typed_lines()
    else:
        yield (line for _, line in numbered_lines(Path(file)))


def _typed_lines() -> Iterator[str]:
    for number, raw in enumerate(sys.stdin.buffer, 1):
        try:
            line = raw.decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{STDIN}:{number}: byte 0x{raw[error.start]:02x} is not UTF-8; expected one JSON "
                "object a line. Convert the text first (Latin-1: iconv -f cp1252 -t utf-8)"
            ) from None
        yield line.removeprefix("\ufeff") if number == 1 else line
