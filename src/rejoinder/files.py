"""Files that are either whole or not there: write under a temporary name, then rename."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from rejoinder.errors import RejoinderError


@contextmanager
def whole_folder(target: Path, ours: Collection[str] = ()) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its place when the block ends well.

    An old `target` stays as it is until then, and stays for good if the block fails. It is refused
    if it is a file or, where `ours` is given, holds anything of another name: that would be lost.
    """
    check_replaceable(target, ours)
    folder: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        folder.chmod(0o755)
        yield folder
        for file in folder.rglob("*"):
            if file.is_file():
                file.chmod(0o644)  # some libraries write files that only their owner may read
                _to_disk(file)
        _swap(folder, target)
    except (OSError, SafetensorError) as error:  # safetensors has its own error for a full disk
        raise RejoinderError(
            f"{target}: could not be written ({getattr(error, 'strerror', None) or error}); "
            "nothing was changed there. Free some space or choose another place"
        ) from error
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def check_new(target: Path) -> None:
    """Raise RejoinderError if there is anything at `target` that a new folder would replace.

    For what has files of the same names as something that took hours to make.
    """
    check_replaceable(target)
    if target.is_dir() and any(target.iterdir()):
        raise RejoinderError(
            f"{target}: is not empty; expected a new or empty folder, so choose another name"
        )


def check_replaceable(target: Path, ours: Collection[str] = ()) -> None:
    """Raise RejoinderError if `target` is no folder that `whole_folder` may write or replace."""
    if target.name in ("", ".."):  # the folder that we are in, or one above: never to be swapped
        raise RejoinderError(f"{target}: expected the name of a folder in it, such as {target}/new")
    try:
        if target.exists() and not target.is_dir():
            raise RejoinderError(
                f"{target}: is a file; expected a new folder, so choose another name"
            )
        others = sorted({file.name for file in target.iterdir()} - set(ours)) if ours else []
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise RejoinderError(
            f"{target}: cannot be looked into ({error.strerror}); choose another place"
        ) from error
    if others:
        raise RejoinderError(
            f"{target}: holds {others[0]!r}, which is not ours and would be lost; expected a new "
            "or empty folder, so choose another name or move it elsewhere"
        )


def _swap(folder: Path, target: Path) -> None:
    if not target.exists():
        folder.rename(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    target.rename(old / "old")
    try:
        folder.rename(target)
    except OSError:
        (old / "old").rename(target)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def recover(target: Path) -> None:
    """Undo what a process that was killed inside `whole_folder` left: an old folder put aside.

    Only for a folder that nobody else is writing now.
    """
    for file in target.glob(".*"):
        if re.fullmatch(r"\.(config\.json|README\.md)\.[a-z0-9_]{8}", file.name):  # of write_bytes
            file.unlink(missing_ok=True)
    ours = re.compile(rf"\.{re.escape(target.name)}\.(old\.)?[a-z0-9_]{{8}}")  # of mkdtemp
    left = [f for f in target.parent.glob(f".{target.name}.*") if ours.fullmatch(f.name)]
    for folder in left:
        if not target.exists() and (folder / "old").is_dir():
            (folder / "old").rename(target)
    for folder in left:
        shutil.rmtree(folder, ignore_errors=True)


def write_text(target: Path, text: str) -> None:
    """Write a whole text file or none."""
    write_bytes(target, text.encode("utf-8"))


def write_bytes(target: Path, content: bytes) -> None:
    """Write a whole file or none; RejoinderError says why it could not be."""
    temporary = ""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(target)
    except OSError as error:
        with suppress(OSError):
            Path(temporary).unlink(missing_ok=True) if temporary else None
        raise RejoinderError(
            f"{target}: could not be written ({error.strerror or error}); nothing was changed "
            "there. Free some space or choose another place"
        ) from error


def _to_disk(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
