"""Fetch the ConvAI2 data: resume what was cut off, check it, and unpack only what is expected."""

from __future__ import annotations

import logging
import os
import re
import shutil
import tarfile
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from rejoinder.errors import DownloadError
from rejoinder.fetching import Progress, fetch, sha256_of, unusable

logger = logging.getLogger(__name__)

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
            fetch(
                archive.address,
                packed,
                by_hand="use --from FILE",
                sha256=archive.sha256,
                progress=progress,
                pause=pause,
            )
        found = _unpack(packed, folder, archive)
        packed.unlink()
        return found
    except OSError as error:
        raise unusable(Path(error.filename or folder), error) from error


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
    if sha256_of(packed) != archive.sha256:
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
