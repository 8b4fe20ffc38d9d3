"""Files from the network: gone on from where they were cut off, tried again, checked, and kept.

`fetch` gets one file. `fetch_once` keeps it: the sha256 of what came first is recorded beside it,
in NAME.sha256.json, and from then on no other file is taken for it. Start with `fetch_once`.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import os
import re
import stat
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from rejoinder.errors import DownloadError
from rejoinder.files import write_text

logger = logging.getLogger(__name__)

Progress = Callable[[int, int | None], None]  # bytes so far, and in all if known

TRIES = 3
TIMEOUT = 30.0  # seconds without a byte
BLOCK = 1 << 16  # bytes
WAIT_STATUS = (408, 429)  # like all from 500 on, these may pass
ABSENT_STATUS = (403, 404, 410)  # 403: what stores of files say of a name that they do not have
SPAN = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)")  # Content-Range


def fetch_once(
    address: str,
    target: Path,
    *,
    by_hand: str = "",
    progress: Progress | None = None,
    pause: float = 2.0,
) -> Path:
    """The file of an address, at `target`: fetched at the first call, and the same ever after.

    Address, sha256, bytes and time are recorded beside it. A file that somebody put there without
    a record is taken, and recorded then. `by_hand` says what to do with a copy from elsewhere; it
    is named `target` if that is not told. Raises DownloadError for a file that is not the recorded
    one, and all that `fetch` raises.
    """
    by_hand = by_hand or f"put it at {target}: the same command then takes it from there"
    file = record_of(target)
    record = _read_record(file)
    with own_trouble(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        there = target.exists()
    if not there:
        if record is not None:
            by_hand += f"; if it was renewed at its address, delete {file}"
        sha256 = record["sha256"] if record else ""
        fetch(address, target, by_hand=by_hand, sha256=sha256, progress=progress, pause=pause)
    with own_trouble(target):
        found = {"sha256": sha256_of(target), "bytes": target.stat().st_size}
    if record is None:
        when = datetime.now(UTC).isoformat(timespec="seconds")
        write_text(file, json.dumps({"address": address, **found, "when": when}, indent=1) + "\n")
    elif found != {name: record[name] for name in found}:
        raise DownloadError(
            f"{target}: has {found['bytes']} bytes and the sha256 {found['sha256']}, expected "
            f"{record['bytes']} and {record['sha256']} as {file.name} says; it was changed since. "
            "Delete both to fetch it again, or only the record to take the file as it is now"
        )
    return target


def record_of(target: Path) -> Path:
    """Where the checksum of a file is recorded that `fetch_once` keeps."""
    return target.with_name(f"{target.name}.sha256.json")


def fetch(
    address: str,
    target: Path,
    *,
    by_hand: str,
    sha256: str = "",
    progress: Progress | None = None,
    pause: float = 2.0,
) -> None:
    """Get the file of an address, in up to three tries with `pause` seconds and more between them.

    What a broken download left behind is gone on from. `target` appears once it is whole and has
    the `sha256`, if one is given; its folder has to be there. `by_hand` goes into the message,
    behind "get the file elsewhere and".

    Raises DownloadError if the file cannot be fetched or written, or has another checksum.
    """
    part = target.with_name(target.name + ".part")
    for attempt in range(TRIES):
        time.sleep(pause * attempt)
        try:
            _go_on(address, part, progress or _ignore, checked=bool(sha256))
            break
        except (OSError, http.client.HTTPException, OverflowError, ValueError) as error:
            if attempt + 1 == TRIES or not _may_pass(error):
                raise DownloadError(
                    f"{address}: cannot be fetched ({error}); expected {target.name}. Run it again "
                    f"to go on where it stopped, or get the file elsewhere and {by_hand} (what "
                    f"arrived is kept in {target.parent})"
                ) from error
            logger.info("%s: %s; trying again", address, error)
    with own_trouble(part):
        found = sha256_of(part) if sha256 else ""
        _about(part).unlink(missing_ok=True)
        if found != sha256:
            part.unlink()
            raise DownloadError(
                f"{address}: got a file with the sha256 {found}, expected {sha256}; it was "
                "deleted. Run it again; if that repeats, get the file elsewhere and "
                f"{by_hand}"
            )
        os.replace(part, target)


def is_absent(error: DownloadError) -> bool:
    """Whether a download failed because there is no such file at its address."""
    cause = error.__cause__
    if isinstance(cause, HTTPError):
        return cause.code in ABSENT_STATUS
    return isinstance(cause, FileNotFoundError)


def local_file(address: str) -> Path:
    """The file that a file: address names.

    Raises DownloadError if it is not there, or is a folder, a pipe or a device.
    """
    file = Path(urllib.request.url2pathname(urlsplit(address).path))
    try:
        plain = stat.S_ISREG(file.stat().st_mode)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DownloadError(
            f"{address}: cannot be read ({reason}); look at its name and place"
        ) from error
    if not plain:
        raise DownloadError(
            f"{address}: is not a plain file; expected an archive or a model file. Name a folder "
            "by its path"
        )
    return file


def unusable(path: Path, error: OSError) -> DownloadError:
    """What to raise for a file or folder of ours that cannot be read or written."""
    return DownloadError(
        f"{path}: cannot be read or written: {error.strerror or error}; "
        "make room or choose another folder, then run it again"
    )


@contextmanager
def own_trouble(path: Path) -> Iterator[None]:
    """Tell a full disk, which no second try mends, from trouble on the line: DownloadError."""
    try:
        yield
    except OSError as error:
        raise unusable(path, error) from error


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _ignore(done: int, total: int | None) -> None:
    pass


def _read_record(file: Path) -> dict[str, Any] | None:
    with own_trouble(file):
        try:
            told = json.loads(file.read_bytes())
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError):
            told = None
    if (
        not isinstance(told, dict)
        or not re.fullmatch("[0-9a-f]{64}", str(told.get("sha256")))
        or type(told.get("bytes")) is not int
    ):
        raise DownloadError(
            f"{file}: is no record of a download; expected JSON with sha256 and bytes. Delete it "
            "to take the file beside it as it is, or both to fetch it again"
        )
    return told


def _may_pass(error: Exception) -> bool:
    """Whether a second try may do better."""
    if isinstance(error, HTTPError):
        return error.code >= 500 or error.code in WAIT_STATUS
    reason = error.reason if isinstance(error, URLError) else error
    # An address that cannot be, also as the target of a redirect; a certificate that is not right.
    never = str | ValueError | OverflowError | http.client.InvalidURL | PermissionError
    return not isinstance(reason, never)


def _opener(address: str) -> urllib.request.OpenerDirector:
    """What opens an address through the proxies of the environment, and follows few redirects.

    A server can send us on to http and https only, not to files of this machine.
    """
    opener = urllib.request.OpenerDirector()
    handlers = [
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ]
    if address.startswith("file:"):
        handlers = [urllib.request.FileHandler()]
    for handler in handlers:
        opener.add_handler(handler)
    return opener


@dataclass(frozen=True)
class _Began:
    """Which file a part is the beginning of, as far as the server said."""

    tag: str = ""  # ETag or Last-Modified
    total: int | None = None  # bytes


def _about(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_began(part: Path) -> _Began | None:
    try:
        tag, total = json.loads(_about(part).read_bytes())
    except (FileNotFoundError, TypeError, ValueError):
        return None
    return _Began(str(tag), total if type(total) is int else None)


def _go_on(address: str, part: Path, progress: Progress, *, checked: bool) -> None:
    """Add to `part` what is missing of the file at `address`.

    `checked`: a checksum will tell whether all of it is from one file; else the server has to say.
    """
    with own_trouble(part):
        began = _Began() if checked else _read_began(part)
        have = part.stat().st_size if began and part.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    if have and began and began.tag:
        headers["If-Range"] = began.tag
    request = urllib.request.Request(address, headers=headers)
    if request.type == "file":
        local_file(address)
    try:
        with _opener(address).open(request, timeout=TIMEOUT) as answer:
            if not checked:
                _refuse_page(address, answer)
            if have and not _continues(answer, part, have, began or _Began()):
                have = 0
            length = answer.headers["Content-Length"] or ""
            total = have + int(length) if re.fullmatch("[0-9]{1,18}", length) else None
            if not have and not checked:
                write_text(_about(part), json.dumps([_tag(answer), total]))
            _receive(answer, part, have, total, progress)
    except HTTPError as error:
        error.close()
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE or not have:
            raise
        # Nothing is missing: the last run ended between the last byte and the check.
        if began and not checked and began.total != have:
            raise _anew(part, f"has no more than {have} bytes now") from error


def _refuse_page(address: str, answer: Any) -> None:
    kind = answer.headers.get_content_type()
    if kind in ("text/html", "application/xhtml+xml"):
        raise DownloadError(
            f"{address}: answered with a page ({kind}), expected a file; look at it in a browser: "
            "it may want a login, or tell of an error"
        )


def _tag(answer: Any) -> str:
    """What the server calls this state of the file; nothing if it has no exact name for it."""
    tag = answer.headers["ETag"] or ""
    return tag if tag and not tag.startswith("W/") else answer.headers["Last-Modified"] or ""


def _continues(answer: Any, part: Path, have: int, began: _Began) -> bool:
    """Whether a server sends the rest as asked; many send all of the file anew.

    Raises ConnectionError, and deletes the part, if it sends the rest of something else.
    """
    if answer.status != http.client.PARTIAL_CONTENT:
        return False
    span = SPAN.fullmatch(answer.headers.get("Content-Range", ""))
    if span is None or int(span[1]) != have:
        raise _anew(part, "sent another part than the one asked for")
    tag, total = _tag(answer), span[2]
    if (began.tag and tag not in ("", began.tag)) or (
        began.total is not None and total not in ("*", str(began.total))
    ):
        raise _anew(part, "has another file now than the one that began to arrive")
    return True


def _anew(part: Path, reason: str) -> ConnectionError:
    with own_trouble(part):
        part.unlink(missing_ok=True)
    return ConnectionError(f"the server {reason}")


def _receive(answer: Any, part: Path, have: int, total: int | None, progress: Progress) -> None:
    with ExitStack() as opened:
        with own_trouble(part):
            file = opened.enter_context(open(part, "ab" if have else "wb"))
        progress(have, total)
        while block := answer.read(BLOCK):
            with own_trouble(part):
                file.write(block)
                file.flush()
            have += len(block)
            progress(have, total)
    if total is not None and have < total:
        raise ConnectionError(f"the connection ended after {have} of {total} bytes")
    with own_trouble(part):
        size = part.stat().st_size
    if size != have:
        raise _anew(part, f"sent {have} bytes, but {part} has {size}: is it fetched twice at once?")
