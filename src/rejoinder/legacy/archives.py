"""Archives from the network, unpacked so that nothing lands outside of the folder asked for.

All members are looked at before the first is written: plain files and folders of harmless names, in
bounded number and size. They are then written into a new folder, which gets its name at the end; an
archive that turns out to be cut leaves nothing behind.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, cast

from rejoinder.errors import CheckpointError
from rejoinder.files import whole_folder

MOST_BYTES = 64 * 2**30  # of all files of an archive
MOST_MEMBERS = 10_000  # files and folders
MOST_READ = 16 * 2**20  # bytes that a library may read at once: the list of a zip's members
MOST_HEADER = 256 * 2**10  # the same for a tar, where a name or comment may ask for any length
MOST_AFTER = 64 * 2**20  # bytes behind the end of a tar; 10 KB of zeros are usual
LONGEST_NAME = 1000  # bytes of a path; 255 of each part
CHUNK = 64 * 2**10
PACKED: dict[bytes, Callable[[Path], IO[bytes]]] = {  # by what such a file begins with
    b"\x1f\x8b": cast("Callable[[Path], IO[bytes]]", gzip.open),
    b"BZh": cast("Callable[[Path], IO[bytes]]", bz2.open),
    b"\xfd7zXZ\0": cast("Callable[[Path], IO[bytes]]", lzma.open),
}


@dataclass(frozen=True)
class Member:
    """A file or folder of an archive."""

    name: str
    size: int  # bytes
    kind: str  # "file", "folder", or what else it is
    open: Callable[[], IO[bytes]]


def unpack(
    archive: Path,
    into: Path,
    *,
    only: Collection[str] = (),
    most_bytes: int = MOST_BYTES,
    most_members: int = MOST_MEMBERS,
) -> Path:
    """Unpack a tar (plain, gzip, bzip2, xz) or zip into the new or empty folder `into`; `into`.

    only: names of folders and files; all else is checked but not written, if any of them is there.

    Raises CheckpointError if it is no such archive, is cut, holds anything but files and folders
    with harmless names, or more than the limits allow; RejoinderError if `into` cannot be written.
    Then nothing was written.
    """
    with _members(archive) as members:
        checked = _check(archive, members, most_bytes, most_members)
        checked = [pair for pair in checked if set(only) & set(pair[0].parts)] or checked
        # No file can have the name "", so a folder that holds anything is refused.
        with whole_folder(into, ours={""}) as folder, readable(archive):
            for path, member in checked:
                _write(member, folder / path)
    return into


def _write(member: Member, target: Path) -> None:
    if member.kind == "folder":
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with member.open() as source, target.open("xb") as file:
        shutil.copyfileobj(source, file, CHUNK)
    if target.stat().st_size != member.size:
        raise ValueError(f"{member.name} ends too early")


@contextmanager
def readable(archive: Path) -> Iterator[None]:
    """Turn all that libraries raise for a broken archive into CheckpointError."""
    broken = (
        *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError),
        *(ArithmeticError, LookupError, NotImplementedError, RecursionError, ValueError),
    )
    try:
        yield
    except (*broken, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk, not of gzip, bz2
            raise
        raise CheckpointError(
            f"{archive}: is cut or broken ({str(error)[:200] or type(error).__name__}); fetch it "
            "again"
        ) from None


@contextmanager
def _members(archive: Path) -> Iterator[Iterable[Member]]:
    """The archive, opened: its members in order, as long as the block lasts."""
    try:
        with archive.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise CheckpointError(
            f"{archive}: cannot be read ({error.strerror or error}); expected an archive"
        ) from error
    if head.startswith(b"PK"):
        with open_zip(archive) as opened:
            yield _zip_members(opened)
        return
    opener = next((PACKED[start] for start in PACKED if head.startswith(start)), None)
    with opener(archive) if opener else archive.open("rb") as stream:
        bounded = _Bounded(stream)
        with readable(archive), _open_tar(archive, bounded, packed=opener is not None) as tar:
            yield _tar_members(tar, bounded)


class _ShortReads(io.FileIO):
    """A file of which nobody reads much at once.

    zipfile reads the list of all members in one go, and makes ten times its size of objects.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MOST_READ:
            raise ValueError(f"a list of members of {size:,} bytes")
        return super().read(size) or b""

    def seek(self, place: int, whence: int = 0, /) -> int:
        return super().seek(_place(place, whence), whence)


def _place(place: int, whence: int) -> int:
    """A place to go to; ValueError if it is before the file, which the system calls its own error.

    It would be told as one of the disk that is written to.
    """
    if place < 0 and whence == 0:
        raise ValueError("a member before the first byte")
    return place


@contextmanager
def open_zip(archive: Path) -> Iterator[zipfile.ZipFile]:
    """A zip, opened; CheckpointError for all that is wrong with it, inside of the block too."""
    with readable(archive), _ShortReads(archive) as file, zipfile.ZipFile(file) as opened:
        yield opened


def _zip_members(opened: zipfile.ZipFile) -> Iterator[Member]:
    for info in opened.infolist():
        mode = info.external_attr >> 16
        if info.flag_bits & 0x2041:  # encrypted, strongly encrypted, or with a masked header
            kind = "encrypted"
        elif stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            kind = "a link" if stat.S_ISLNK(mode) else "a device"
        else:
            kind = "folder" if info.is_dir() else "file"
        # The original name still has what zipfile drops, such as all behind a zero byte.
        yield Member(info.orig_filename, info.file_size, kind, partial(opened.open, info))


class _Bounded:
    """A stream of which nobody reads much at once, and that knows what was read last."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.last = b""
        self.tell = stream.tell
        self.close = stream.close

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MOST_HEADER:
            raise ValueError(f"a header of {size:,} bytes")
        self.last = self.stream.read(size)
        return self.last

    def seek(self, place: int, whence: int = 0) -> int:
        return self.stream.seek(_place(place, whence), whence)


def _open_tar(archive: Path, stream: _Bounded, *, packed: bool) -> tarfile.TarFile:
    try:
        return tarfile.TarFile(fileobj=cast(IO[bytes], stream), encoding="utf-8")
    except tarfile.ReadError:
        if packed:
            raise
        raise CheckpointError(
            f"{archive}: is no archive; expected .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz. If it "
            "came from the network, look whether it is a page that tells of an error"
        ) from None


def _tar_members(tar: tarfile.TarFile, stream: _Bounded) -> Iterator[Member]:
    for info in tar:
        if info.issparse() or info.size < 0:
            kind = "a sparse file"
        elif info.isreg() or info.isdir():
            kind = "file" if info.isreg() else "folder"
        else:
            kind = "a link" if info.islnk() or info.issym() else "a device"
        yield Member(info.name, info.size, kind, partial(_opened, tar, info))
        # Python's own opinion comes second, because its errors do not name the archive.
        if hasattr(tarfile, "data_filter"):  # from Python 3.11.4
            tarfile.data_filter(info, "/nowhere")
    # tarfile takes a cut between two members for the end; a whole tar ends with a block of zeros.
    if stream.last != bytes(tarfile.BLOCKSIZE):
        raise ValueError("no end mark")
    left = MOST_AFTER
    while chunk := stream.stream.read(CHUNK):  # only at its end gzip looks at its checksum
        left -= len(chunk)
        if left < 0:
            raise ValueError(f"more than {MOST_AFTER:,} bytes behind the end mark")


def _opened(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    found = tar.extractfile(info)
    if found is None:
        raise ValueError(f"{info.name} has no content")
    return found


def _check(
    archive: Path, members: Iterable[Member], most_bytes: int, most_members: int
) -> list[tuple[Path, Member]]:
    """All members with the path that each goes to; CheckpointError if one of them may not be."""
    found: list[tuple[Path, Member]] = []
    taken: dict[str, tuple[str, str]] = {}  # as a disk that ignores case has it -> path, kind
    total = 0
    for number, member in enumerate(members, 1):
        total += member.size
        if number > most_members or total > most_bytes:
            raise CheckpointError(
                f"{archive}: holds more than {most_members:,} files or {most_bytes:,} bytes, at "
                f"{_shown(member)}; nothing was unpacked. Expected a model: is it another archive?"
            )
        reason = _refused(member)
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        if not reason and not parts:
            if member.kind == "folder":  # ./ itself
                continue
            reason = "has no name"
        reason = reason or _collides(parts, member.kind, taken)
        if reason:
            raise CheckpointError(
                f"{archive}: {_shown(member)} {reason}; expected plain files and folders. Nothing "
                "was unpacked. Take the archive from elsewhere, or unpack by hand what you trust"
            )
        found.append((Path(*parts), member))
    if not found:
        raise CheckpointError(f"{archive}: holds no files; expected a model. Fetch it again")
    return found


def _shown(member: Member) -> str:
    return ascii(member.name[:200])


def _refused(member: Member) -> str:
    """Why a member may not be unpacked, or nothing."""
    name = member.name
    parts = name.split("/")
    if member.kind not in ("file", "folder"):
        return f"is {member.kind}"
    if name.startswith(("/", "\\")) or any(re.match("[A-Za-z]:", part) for part in parts):
        return "has an absolute name"
    if ".." in parts or "\\" in name:
        return "has a name that leads elsewhere"
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        return "has a name with control characters or broken letters"
    sizes = [len(part.encode()) for part in parts]
    if sum(sizes) > LONGEST_NAME or max(sizes) > 255:
        return "has too long a name"
    return ""


def _collides(parts: list[str], kind: str, taken: dict[str, tuple[str, str]]) -> str:
    """Why there may be no such path beside those taken, or nothing; takes it and its folders."""
    for end in range(1, len(parts) + 1):
        path = "/".join(parts[:end])
        want = (path, kind if end == len(parts) else "folder")
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
        there = taken.setdefault(folded, want)
        if there != want or (end == len(parts) and kind == "file" and there is not want):
            return f"collides with {ascii(there[0][:200])}"
    return ""
