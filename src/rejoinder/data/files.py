"""Text files in and out: plain, .gz or .xz, read line by line, written whole or not at all.

Reading looks at the first bytes, not at the name, to see how a file is packed. Whatever is wrong
with a file as such (missing, a folder, empty, binary, cut off) raises `DataError`. What is wrong
with one line goes to a `Report` (see reports.py).
"""

from __future__ import annotations

import codecs
import gzip
import lzma
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader, BufferedWriter, TextIOWrapper
from pathlib import Path
from typing import TextIO

from rejoinder.data.reports import Report, stop
from rejoinder.errors import DataError

Stream = BufferedReader | gzip.GzipFile | lzma.LZMAFile

BLOCK = 1 << 16  # bytes read at once
LONGEST = 1 << 26  # bytes; a longer line or JSON value is taken for a mistake (64 MiB)
TEXT = "UTF-8 text, plain or packed as .gz or .xz"


@contextmanager
def reading(path: Path) -> Iterator[Stream]:
    """Give the unpacked bytes of a file that is known to hold some text."""
    try:
        with open(path, "rb") as raw:
            stream = _unpacked(raw)
            start = stream.peek(1)
            if not start:
                raise DataError(f"{path}: the file is empty; expected {TEXT}")
            if b"\0" in start:
                line = start[: start.index(b"\0")].count(b"\n") + 1
                raise DataError(
                    f"{path}:{line}: the file is binary (it has zero bytes); expected {TEXT}. "
                    "Save UTF-16 as UTF-8, and unpack archives first"
                )
            yield stream
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; looked from the folder {Path.cwd()}") from error
    except IsADirectoryError as error:
        raise DataError(f"{path}: is a folder; expected a file, so name one file in it") from error
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path}: the packed file is broken or cut off ({error}); copy or download it again"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _unpacked(raw: BufferedReader) -> Stream:
    start = raw.peek(6)[:6]
    if start[:2] == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=raw)
    if start == b"\xfd7zXZ\0":
        return lzma.LZMAFile(raw)
    return raw


def numbered_lines(path: Path, report: Report = stop) -> Iterator[tuple[int, str]]:
    """Every line with its number, from 1, without its line end; a mark for UTF-8 is dropped.

    A line that is not UTF-8 is reported and left out.
    """
    with reading(path) as stream:
        number = 0
        while raw := stream.readline(LONGEST):
            number += 1
            if len(raw) == LONGEST:
                raise DataError(
                    f"{path}:{number}: a line of more than {LONGEST >> 20} MiB; "
                    "expected one record a line, so check the format of the file"
                )
            try:
                text = raw.decode()
            except UnicodeDecodeError as error:
                report(_undecodable(path, number, error))
                continue
            yield number, (text.removeprefix("\ufeff") if number == 1 else text).rstrip("\r\n")


def text_blocks(path: Path) -> Iterator[str]:
    """Read a file in blocks of text of any size, for formats that do not go by lines."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    line = 1
    with reading(path) as stream:
        while raw := stream.read(BLOCK):
            try:
                text = decoder.decode(raw)
            except UnicodeDecodeError as error:
                line += error.object[: error.start].count(b"\n")
                raise _undecodable(path, line, error) from error
            line += text.count("\n")
            yield text
        if decoder.getstate()[0]:
            raise DataError(f"{path}:{line}: the text ends inside a character; is it cut off?")


def head(path: Path, size: int = BLOCK) -> str:
    """Read the first `size` bytes as text, to look at; what is not UTF-8 shows as U+FFFD."""
    with reading(path) as stream:
        return stream.read(size).decode("utf-8-sig", errors="replace")


def _undecodable(path: Path, line: int, error: UnicodeDecodeError) -> DataError:
    byte = error.object[error.start]
    return DataError(
        f"{path}:{line}: byte 0x{byte:02x} is not UTF-8; expected {TEXT}. "
        "Save the file as UTF-8 (Latin-1 and Windows files: iconv -f cp1252 -t utf-8)"
    )


@contextmanager
def writing(path: Path) -> Iterator[TextIO]:
    """Text that appears at `path` only once all of it is on disk; .gz and .xz are packed.

    Until then it grows under a hidden name in the same folder, which goes away on any failure.
    Equal text gives equal bytes, packed or not.
    """
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: is not a plain file; expected the name of a file to write")
    path = path.resolve()  # a link keeps pointing to what is written
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as raw:
            with (
                _packed(raw, path.suffix) as packed,
                TextIOWrapper(packed, encoding="utf-8", newline="\n") as text,
            ):
                yield text
            raw.flush()
            os.fsync(raw.fileno())
        os.replace(part, path)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(
            f"{path}: cannot be written: {reason}; nothing was changed. "
            f"Check the folder {path.parent} and its free space"
        ) from error
    finally:
        with suppress(OSError):
            part.unlink()


@contextmanager
def _packed(
    raw: BufferedWriter, suffix: str
) -> Iterator[BufferedWriter | gzip.GzipFile | lzma.LZMAFile]:
    """Pack what is written into `raw`, which stays open for its owner."""
    if suffix == ".gz":
        with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed:
            yield packed
    elif suffix == ".xz":
        with lzma.LZMAFile(raw, "wb") as packed:
            yield packed
    else:
        with open(raw.fileno(), "wb", closefd=False) as plain:
            yield plain
