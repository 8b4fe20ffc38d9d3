"""Where candidate replies come from, and which of them are allowed.

A source is a file (one candidate a line, or dialogues, whose replies are taken), `sample` (the
corpus that comes with the package: all messages of both sides, and further replies), or `convai2`
(the distinct replies of the downloaded training data, over 100,000).
"""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from rejoinder.data import read
from rejoinder.data.files import numbered_lines
from rejoinder.data.lines import read_candidates
from rejoinder.errors import DataError
from rejoinder.words import any_of, caseless, composed

SAMPLE = Path(__file__).parent / "sample"


@dataclass(frozen=True)
class Collected:
    """Distinct candidates in the order of their first coming, and what was left out."""

    texts: list[str]
    repeated: int
    blocked: int


@dataclass(frozen=True)
class Block:
    """What no candidate may hold: whole words of any case, and expressions."""

    words: re.Pattern[str] | None = None
    expressions: tuple[re.Pattern[str], ...] = ()

    def stops(self, text: str) -> bool:
        """Whether a composed text is blocked."""
        if self.words and self.words.search(caseless(text)):
            return True
        return any(expression.search(text) for expression in self.expressions)


def cache_folder() -> Path:
    """Where downloads and ready indexes are kept: REJOINDER_HOME, else the user's cache folder."""
    home = os.environ.get("REJOINDER_HOME")
    if home:
        return Path(home)
    cache = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(cache) if cache else Path.home() / ".cache") / "rejoinder"
    except RuntimeError as error:
        raise DataError(
            f"no folder to keep downloads and indexes in ({error}); set REJOINDER_HOME to one"
        ) from None


def collect(sources: Iterable[str | Path], block: Path | None = None) -> Collected:
    """All distinct, allowed candidates of some sources."""
    blocked_by = read_block(block) if block else Block()
    texts: dict[str, str] = {}  # as it first came, by its composed form
    repeated = blocked = 0
    for text in chain.from_iterable(candidates_of(source) for source in sources):
        form = composed(text)
        if form in texts:
            repeated += 1
        elif blocked_by.stops(form):
            blocked += 1
        else:
            texts[form] = text
    if not texts:
        raise DataError(
            f"{block}: blocks all {blocked} candidates, so none is left; expected words that few "
            "of them have, so take the widest ones out"
        )
    return Collected(list(texts.values()), repeated, blocked)


def candidates_of(source: str | Path) -> Iterator[str]:
    """Candidates of one source, repeated ones included."""
    if source == "sample":
        return _sample()
    if source == "convai2":
        return read_candidates(convai2_file())
    return read_candidates(source)


def _sample() -> Iterator[str]:
    for name in ("train.jsonl", "dev.jsonl"):
        for dialogue in read(SAMPLE / name):
            for message in dialogue.messages:
                yield message.content
    yield from read_candidates(SAMPLE / "replies.txt")


def convai2_file() -> Path:
    """The downloaded training dialogues. Raises DataError, saying how to get them."""
    folder = cache_folder() / "convai2"
    for name in ("train_self_original.txt", "train_self_original_no_cands.txt"):
        found = next(folder.rglob(name), None) if folder.is_dir() else None
        if found:
            return found
    raise DataError(
        f"{folder}: ConvAI2 is not there yet; fetch it with `rejoinder data get convai2`, or, "
        "without a network, from a copy with `rejoinder data get convai2 --from FILE`"
    )


def source_key(sources: Sequence[str | Path], block: Path | None = None) -> str:
    """A short name for sources as they are now, without reading large files.

    It changes when a file gets another size, time or place.
    """
    digest = hashlib.sha256()
    files = list(chain.from_iterable(_files(source) for source in sources))
    for file in [*files, *([block] if block else [])]:
        try:
            state = file.stat()
        except OSError as error:
            raise DataError(f"{file}: {error.strerror}; expected a file of candidates") from None
        digest.update(f"{file.resolve()} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _files(source: str | Path) -> list[Path]:
    if source == "sample":
        return sorted(SAMPLE.glob("*.*l")) + [SAMPLE / "replies.txt"]
    return [convai2_file()] if source == "convai2" else [Path(source)]


def read_block(path: Path) -> Block:
    """Words (whole ones, any case) or /regular expressions/, one a line; # opens a comment.

    All words are one pattern, each expression is its own, so that their groups do not mix.
    """
    words: list[str] = []
    expressions: list[re.Pattern[str]] = []
    for number, line in numbered_lines(path):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if len(line) > 2 and line.startswith("/") and line.endswith("/"):
            expressions.append(_expression(composed(line[1:-1]), f"{path}:{number}"))
        else:
            words.append(line)
    if not words and not expressions:
        raise DataError(f"{path}: no word to block in it; expected one word or /expression/ a line")
    return Block(any_of(words) if words else None, tuple(expressions))


def _expression(text: str, where: str) -> re.Pattern[str]:
    try:
        with warnings.catch_warnings():  # of what Python may read in another way one day
            warnings.simplefilter("ignore", FutureWarning)
            return re.compile(text, re.IGNORECASE)
    except (re.error, RecursionError, OverflowError) as error:
        raise DataError(
            f"{where}: {f'/{text[:60]}/'!r} is no regular expression ({error}); write words as "
            "they are and expressions as /expression/"
        ) from None
