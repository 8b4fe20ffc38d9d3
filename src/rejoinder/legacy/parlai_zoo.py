"""Where an older model comes from: a path, an address, or a name of ParlAI's zoo.

    fetch_source("models/mine/model")               stays where it is
    fetch_source("https://example.org/mine/model")  with its .opt, .dict and .dict.codecs
    fetch_source("https://example.org/mine.tgz")    an archive
    fetch_source("zoo:pretrained_transformers/model_poly/model")

What is fetched is kept in a folder of the cache that is named by a hash of the address, so that
files of one name from different places do not meet.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from rejoinder.candidates import cache_folder
from rejoinder.errors import CheckpointError, DownloadError
from rejoinder.fetching import Progress, fetch_once, is_absent, local_file, record_of

logger = logging.getLogger(__name__)

ARCHIVES = (".tar", ".tgz", ".gz", ".bz2", ".xz", ".zip")
NEEDED, OPTIONAL = (".opt", ".dict"), (".dict.codecs",)  # beside a model file
ADDRESS = re.compile(r"(https?|file):|[a-z][a-z0-9+.-]+://", re.IGNORECASE)
ZOO_NAME = re.compile(r"(?:zoo|models):(.*)", re.DOTALL)  # models: as older versions had it
LONGEST_NAME = 120  # bytes, so that what stands behind it in names of our own fits too


@dataclass(frozen=True)
class Packed:
    """A model of an archive on the web."""

    address: str
    inside: str  # the folder of the model in it


@dataclass(frozen=True)
class Fetched:
    """A file or folder on this machine."""

    path: Path  # a model file, a folder, or an archive
    inside: str = ""  # the folder of the model wanted, in an archive of several


# One archive has all of them, version 3.0 of parlai/zoo/pretrained_transformers/build.py.
PRETRAINED = "http://parl.ai/downloads/_models/pretrained_transformers/pretrained_transformers.tgz"
ZOO = {
    f"pretrained_transformers/{name}": Packed(PRETRAINED, name)
    for name in (
        "model_bi",
        "model_poly",
        "bi_model_huge_reddit",
        "bi_model_huge_wikito",
        "cross_model_huge_reddit",
        "cross_model_huge_wikito",
        "poly_model_huge_reddit",
        "poly_model_huge_wikito",
    )
}


def fetch_source(
    source: str | Path,
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
    zoo: Mapping[str, Packed] = ZOO,
    pause: float = 2.0,
) -> Fetched:
    """What a source names, on this machine: fetched at the first call, and kept.

    source: a path; an http, https or file address; or zoo:NAME. A path that exists is one, whatever
    it looks like. folder: where downloads are kept, a folder of the cache if not given. progress,
    pause: those of `fetching.fetch`.

    Raises CheckpointError for an unknown name of the zoo, and DownloadError for what cannot be
    fetched or is not what was fetched first. It says where to put a copy instead.
    """
    if isinstance(source, Path) or os.path.exists(source):
        return Fetched(Path(source))
    named = ZOO_NAME.fullmatch(source)
    if not named and not ADDRESS.match(source):
        return Fetched(Path(source))
    packed = _of_zoo(source, named[1], zoo) if named else Packed(clean_address(source), "")
    if packed.address.startswith("file:"):
        return Fetched(local_file(packed.address), packed.inside)  # where it lies
    target = place_of(packed.address, folder or cache_folder() / "models")
    if target.suffix.lower() not in ARCHIVES:
        _fetch_beside(packed.address, target, progress, pause)
    by_hand = _by_hand(target, packed.inside)
    fetch_once(packed.address, target, by_hand=by_hand, progress=progress, pause=pause)
    return Fetched(target, packed.inside)


def find_inside(folder: Path, fetched: Fetched) -> Path:
    """Where the model wanted is in `folder`, to which the archive that was fetched is unpacked.

    Raises CheckpointError if there is no folder of its name, at any depth, or more than one.
    """
    if not fetched.inside:
        return folder
    folders = sorted(one for one in folder.rglob("*") if one.is_dir())
    found = [one for one in folders if one.name == fetched.inside]
    if len(found) != 1:
        held = ", ".join(one.relative_to(folder).as_posix() for one in folders[:12]) or "none"
        raise CheckpointError(
            f"{fetched.path}: has {len(found)} folders of the name {fetched.inside}, expected one; "
            f"those in it: {held}. Is it another archive? Then put the right one there"
        )
    return found[0]


def clean_address(source: str) -> str:
    """An address as it is asked for: odd letters quoted, without #part.

    Raises DownloadError if it is none.
    """
    try:
        parts = urlsplit(source)
        host = (parts.hostname or "").encode("idna").decode()
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError as error:  # UnicodeError is one
        raise _no_address(source, str(error)) from None
    if "@" in parts.netloc:  # not shown, for there is a password in it
        raise DownloadError(
            f"{parts.scheme}://…@{host}: expected an address without a name and password, which "
            "would be kept beside the file; fetch it otherwise and name the file"
        )
    if parts.scheme == "file":
        return _clean_file(source, parts.netloc, parts.path)
    if parts.scheme not in ("http", "https"):
        raise _no_address(source, f"cannot fetch from {parts.scheme}:")
    if not re.fullmatch(r"[a-z0-9._-]+|[0-9a-f:.]*:[0-9a-f:.]*", host):
        raise _no_address(source, "has no name of a host")
    host = f"[{host}]" if ":" in host else host
    path, query = (quote(part, safe="/%:@!$&'()*+,;=~?") for part in (parts.path, parts.query))
    return urlunsplit((parts.scheme, host + port, path or "/", query, ""))


def place_of(address: str, folder: Path) -> Path:
    """Where the file of an address is kept: folder / hash of the address / harmless name."""
    last = re.split(r"[/\\]", unquote(urlsplit(address).path))[-1]
    name = PurePosixPath(re.sub(r"[^A-Za-z0-9._-]", "_", last).strip(".") or "model")
    suffix = name.suffix[:20]
    stem = name.name.removesuffix(name.suffix)[: LONGEST_NAME - len(suffix)]
    return folder / hashlib.sha256(address.encode()).hexdigest()[:16] / f"{stem}{suffix}"


def _no_address(source: str, reason: str) -> DownloadError:
    return DownloadError(
        f"{source}: {reason}; expected http://, https:// or file:// with host and path, or a path"
    )


def _clean_file(source: str, host: str, path: str) -> str:
    if host.lower() not in ("", "localhost"):
        raise _no_address(source, f"is on {host}, not on this machine")
    if not path.startswith("/"):
        raise _no_address(source, "has no absolute path")
    return f"file://{quote(path, safe='/%:')}"


def _of_zoo(source: str, name: str, zoo: Mapping[str, Packed]) -> Packed:
    wanted = name.strip("/").removesuffix("/model")
    if wanted in zoo:
        return zoo[wanted]
    ends = {known.rpartition("/")[2]: known for known in zoo}
    near = difflib.get_close_matches(wanted.rpartition("/")[2], ends, n=1, cutoff=0.5)
    hint = f"Did you mean zoo:{ends[near[0]]}/model? " if near else ""
    raise CheckpointError(
        f"{source}: not a ranker of ParlAI's zoo that we know. {hint}Known: {', '.join(zoo)}. "
        "Fetch others with ParlAI, and name the folder"
    )


def _by_hand(target: Path, inside: str = "") -> str:
    """What to do with a copy from elsewhere."""
    if target.suffix.lower() not in ARCHIVES:
        names = ", ".join(f"{target.name}{suffix}" for suffix in NEEDED)
        return (
            f"put it at {target}, with {names} and, if there is one, {target.name}{OPTIONAL[0]} "
            "beside it: the same command then takes them from there"
        )
    unpacked = f", or name the folder {inside} that ParlAI unpacked" if inside else ""
    return f"put it at {target}: the same command then takes it from there{unpacked}"


def _fetch_beside(address: str, model: Path, progress: Progress | None, pause: float) -> None:
    """The files beside a model file; before it, because they are small and it needs them."""
    for suffix in (*NEEDED, *OPTIONAL):
        target = model.with_name(model.name + suffix)
        if suffix in OPTIONAL and not target.exists() and record_of(model).exists():
            continue  # when the model came there was none
        parts = urlsplit(address)
        beside = urlunsplit(parts._replace(path=parts.path + suffix))
        try:
            fetch_once(beside, target, by_hand=_by_hand(model), progress=progress, pause=pause)
        except DownloadError as error:
            if suffix in OPTIONAL and (is_absent(error) or model.exists()):
                logger.info("%s; left out", error)
            elif is_absent(error):
                raise DownloadError(
                    f"{beside}: is not there ({error.__cause__}); expected it beside the model "
                    "file, as ParlAI writes it. Name an archive of the model, or get the files "
                    f"elsewhere and {_by_hand(model)}"
                ) from error
            else:
                raise
