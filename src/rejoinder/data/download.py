"""Fetch the ConvAI2 data: resume what was cut off, check it, and unpack only what is expected."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import re
import shutil
import tarfile
import time
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.error import HTTPError

from rejoinder.errors import DownloadError

logger = logging.getLogger(__name__)

Progress = Callable[[int, int | None], None]  # bytes so far, and in all if known

TRIES = 3
TIMEOUT = 30.0  # seconds without a byte
BLOCK = 1 << 16  # bytes
WAIT_STATUS = (408, 429)  # like all from 500 on, these may pass
NEEDED = {"train_self_original.txt", "valid_self_original.txt"}
TEXT_FILE = re.compile(r"(train|valid)_(self|other|both|none)_(original|revised)(_no_cands)?\.txt")


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A file on the web and what its bytes have to be."""

    address: str
    sha256: str

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.address.rpartition("/")[2]


CONVAI2 = Archive(
    address="http://parl.ai/downloads/convai2/convai2_fix_723.tgz",
    sha256="d0ae89defe2fd0b0a4221eaa642a457d7d40cef475f54798119c7f3b8dd9361d",
)


def get_convai2(
    folder: str | os.PathLike[str],
    source: str | os.PathLike[str] | None = None,
    *,
    progress: Progress | None = None,
    archive: Archive = CONVAI2,
    pause: float = 2.0,
) -> list[Path]:
    """Put the ConvAI2 text files into a folder and list them.

    `source` is a copy of the archive, an unpacked text file, or a folder of them; without it the
    archive is downloaded, in up to three tries with `pause` seconds and more between them. What a
    broken download left behind is gone on from. Files that are there already are not fetched again.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if source is not None:
            return _from_source(Path(source), folder, archive)
        packed = folder / archive.name
        if not packed.exists():  # it stays only until all of it is unpacked
            found = _text_files(folder)
            if {path.name for path in found} >= NEEDED:
                return found
            _fetch(archive, packed, progress or _ignore, pause)
        found = _unpack(packed, folder, archive)
        packed.unlink()
        return found
    except OSError as error:
        raise _unusable(Path(error.filename or folder), error) from error


def _unusable(path: Path, error: OSError) -> DownloadError:
    return DownloadError(
        f"{path}: cannot be read or written: {error.strerror or error}; "
        "make room or choose another folder, then run it again"
    )


def _ignore(done: int, total: int | None) -> None:
    pass


def _text_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if TEXT_FILE.fullmatch(path.name))


def _from_source(source: Path, folder: Path, archive: Archive) -> list[Path]:
    if source.is_dir():
        found = _text_files(source)
        if not found:
            raise DownloadError(
                f"{source}: no ConvAI2 text in this folder; expected files like "
                "valid_self_original.txt, so name the folder that holds them"
            )
        return [_copy(path, folder / path.name) for path in found]
    if not source.is_file():
        raise DownloadError(f"{source}: no such file; expected {archive.name} or its text files")
    if TEXT_FILE.fullmatch(source.name):
        return [_copy(source, folder / source.name)]
    if not tarfile.is_tarfile(source):
        raise DownloadError(
            f"{source}: neither a whole archive nor a text file of ConvAI2; expected "
            f"{archive.name} or a name like train_self_original.txt, so get it again or give it "
            "that name"
        )
    return _unpack(source, folder, archive)


def _copy(source: Path, target: Path) -> Path:
    if target.exists() and target.samefile(source):
        return target
    with open(source, "rb") as stream:
        return _save(stream, target)


def _save(stream: IO[bytes], target: Path) -> Path:
    """Write a file that appears only once it is whole."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            shutil.copyfileobj(stream, file)
        os.replace(part, target)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()
    return target


def _unpack(packed: Path, folder: Path, archive: Archive) -> list[Path]:
    """Save the members with expected names; refuse an archive that reaches out of its folder."""
    if _sha256(packed) != archive.sha256:
        logger.warning("%s is not the published archive: it has another checksum", packed)
    try:
        with tarfile.open(packed) as tar:
            found = [_member(tar, member, packed, folder) for member in tar]
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DownloadError(
            f"{packed}: the archive is broken or cut off ({error}); delete it and get it again"
        ) from error
    files = sorted({path for path in found if path is not None})
    if not files:
        raise DownloadError(
            f"{packed}: no ConvAI2 text in this archive; expected files like "
            "valid_self_original.txt. Is it another archive?"
        )
    return files


def _member(
    tar: tarfile.TarFile, member: tarfile.TarInfo, packed: Path, folder: Path
) -> Path | None:
    name = PurePosixPath(member.name.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts or not (member.isfile() or member.isdir()):
        raise DownloadError(
            f"{packed}: refused: it holds {member.name!r}, expected plain files inside its own "
            "folder. Do not unpack this archive by hand either"
        )
    stream = tar.extractfile(member) if TEXT_FILE.fullmatch(name.name) else None
    return _save(stream, folder / name.name) if stream else None


def _fetch(archive: Archive, target: Path, progress: Progress, pause: float) -> None:
    part = target.with_name(target.name + ".part")
    for attempt in range(TRIES):
        time.sleep(pause * attempt)
        try:
            _go_on(archive.address, part, progress)
            break
        except (OSError, http.client.HTTPException) as error:
            passing = not isinstance(error, HTTPError) or (
                error.code >= 500 or error.code in WAIT_STATUS
            )
            if attempt + 1 == TRIES or not passing:
                raise _unreachable(archive, target.parent, error) from error
            logger.info("%s: %s; trying again", archive.address, error)
    found = _sha256(part)
    if found != archive.sha256:
        part.unlink()
        raise DownloadError(
            f"{archive.address}: got a file with the sha256 {found}, expected {archive.sha256}; "
            "it was deleted. Run it again; if that repeats, get the file elsewhere and use "
            "--from FILE"
        )
    os.replace(part, target)


def _unreachable(archive: Archive, folder: Path, error: Exception) -> DownloadError:
    return DownloadError(
        f"{archive.address}: cannot be fetched ({error}); expected {archive.name}. Run it again to "
        f"go on where it stopped, or get the file elsewhere and use --from FILE (what arrived is "
        f"kept in {folder})"
    )


def _go_on(address: str, part: Path, progress: Progress) -> None:
    """Add to `part` what is missing of the file at `address`."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            if have and not _continues(answer, have):
                have = 0
            length = answer.headers["Content-Length"]
            total = have + int(length) if length else None
            _receive(answer, part, have, total, progress)
    except HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        # Nothing is missing: the last run ended between the last byte and the check.


def _continues(answer: http.client.HTTPResponse, have: int) -> bool:
    """Whether a server sends the rest as asked; many send all of the file anew."""
    span = answer.headers.get("Content-Range", "")
    return answer.status == http.client.PARTIAL_CONTENT and span.startswith(f"bytes {have}-")


def _receive(
    answer: http.client.HTTPResponse, part: Path, have: int, total: int | None, progress: Progress
) -> None:
    with ExitStack() as opened:
        with _own_trouble(part):
            file = opened.enter_context(open(part, "ab" if have else "wb"))
        progress(have, total)
        while block := answer.read(BLOCK):
            with _own_trouble(part):
                file.write(block)
                file.flush()
            have += len(block)
            progress(have, total)
    if total is not None and have < total:
        raise ConnectionError(f"the connection ended after {have} of {total} bytes")


@contextmanager
def _own_trouble(path: Path) -> Iterator[None]:
    """Tell a full disk, which no second try mends, from trouble on the line."""
    try:
        yield
    except OSError as error:
        raise _unusable(path, error) from error


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
