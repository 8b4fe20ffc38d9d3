"""A file is fetched once, whole, and is the same ever after; the server is a real one."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path

import pytest
from legacy.served import Site, nobody, serving

from rejoinder.errors import DownloadError, RejoinderError
from rejoinder.fetching import fetch, fetch_once, is_absent, local_file, record_of, sha256_of

BODY = bytes(range(256)) * 1000
OTHER = BODY[::-1]
SHA256 = hashlib.sha256(BODY).hexdigest()
FullDisk = Callable[[int], AbstractContextManager[None]]


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as running:
        running.files["/a.tgz"] = BODY
        yield running


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "a.tgz"


def once(site: Site, target: Path) -> Path:
    return fetch_once(site.address("/a.tgz"), target, pause=0)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_file_is_fetched_once_and_recorded(site: Site, target: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    address = site.address("/a.tgz")
    fetch_once(address, target, progress=lambda done, total: seen.append((done, total)))
    assert target.read_bytes() == BODY
    assert names(target.parent) == ["a.tgz", "a.tgz.sha256.json"]
    record = json.loads(record_of(target).read_text())
    assert datetime.fromisoformat(record.pop("when")).utcoffset() is not None
    assert record == {"address": address, "sha256": SHA256, "bytes": len(BODY)}
    assert seen[0] == (0, len(BODY))
    assert seen[-1] == (len(BODY), len(BODY))
    before = record_of(target).read_bytes()
    assert once(site, target) == target
    assert record_of(target).read_bytes() == before
    assert len(site.asked) == 1


@pytest.mark.parametrize("headers", [{}, {"ETag": '"one"'}, {"ETag": 'W/"weak"'}])
def test_a_cut_connection_is_gone_on_from(
    site: Site, target: Path, headers: dict[str, str]
) -> None:
    site.headers = headers
    site.plan = [("cut", 1000), ("cut", 5000)]
    assert once(site, target).read_bytes() == BODY
    assert [span for _, span in site.asked] == [None, "bytes=1000-", "bytes=5000-"]
    tag = headers.get("ETag") if headers.get("ETag") == '"one"' else None
    assert site.conditions == [None, tag, tag]


def test_a_later_call_goes_on_where_the_first_gave_up(site: Site, target: Path) -> None:
    site.plan = [("cut", 1000)] * 3
    with pytest.raises(DownloadError, match=r"ended after 1000 of \d+ bytes\).*Run it again to go"):
        once(site, target)
    assert names(target.parent) == ["a.tgz.part", "a.tgz.part.json"]
    once(site, target)
    assert site.asked[-1] == ("/a.tgz", "bytes=1000-")
    assert names(target.parent) == ["a.tgz", "a.tgz.sha256.json"]


def test_a_server_that_always_sends_all(site: Site, target: Path) -> None:
    site.ranges = False
    site.plan = [("cut", 1000)]
    assert once(site, target).read_bytes() == BODY


@pytest.mark.parametrize(
    ("tagged", "new"),
    [
        (True, OTHER),  # of the same size: only a server that names states of a file can tell
        *((False, new) for new in (OTHER[:-5], OTHER + b"more", BODY[:700], BODY[:1000])),
        *((True, new) for new in (OTHER[:-5], OTHER + b"more", BODY[:700], BODY[:1000])),
    ],
)
def test_the_rest_of_another_file_is_never_added(
    site: Site, target: Path, tagged: bool, new: bytes
) -> None:
    if tagged:
        site.headers = {"ETag": '"one"'}
    site.plan = [("cut", 1000)] * 3
    with pytest.raises(DownloadError):
        once(site, target)
    site.files["/a.tgz"] = new
    if tagged:
        site.headers = {"ETag": '"two"'}
    assert once(site, target).read_bytes() == new


def test_a_server_that_sends_the_rest_of_another_file_unasked(site: Site, target: Path) -> None:
    site.plan = [("cut", 1000), ("span", f"bytes 1000-9999/{len(BODY) + 1}")]
    assert once(site, target).read_bytes() == BODY
    assert [span for _, span in site.asked] == [None, "bytes=1000-", None]


@pytest.mark.parametrize("span", ["bytes 0-9/10", "", "bytes x", f"bytes {'9' * 5000}-1/2"])
def test_another_part_than_asked_for_is_not_added(site: Site, target: Path, span: str) -> None:
    site.plan = [("cut", 1000), ("span", span)]
    assert once(site, target).read_bytes() == BODY


def test_a_part_of_unknown_origin_is_not_gone_on_from(site: Site, target: Path) -> None:
    target.parent.mkdir()
    (target.parent / "a.tgz.part").write_bytes(OTHER[:1000])
    assert once(site, target).read_bytes() == BODY
    assert site.asked == [("/a.tgz", None)]


@pytest.mark.parametrize("about", ["", "{", "[]", "3", '["", "x"]'])
def test_a_broken_note_on_a_part(site: Site, target: Path, about: str) -> None:
    target.parent.mkdir()
    (target.parent / "a.tgz.part").write_bytes(BODY[:1000])
    (target.parent / "a.tgz.part.json").write_text(about)
    assert once(site, target).read_bytes() == BODY


def test_a_part_that_is_all_is_only_named(site: Site, target: Path) -> None:
    target.parent.mkdir()
    (target.parent / "a.tgz.part").write_bytes(BODY)
    (target.parent / "a.tgz.part.json").write_text(json.dumps(["", len(BODY)]))
    assert once(site, target).read_bytes() == BODY
    assert site.asked == [("/a.tgz", f"bytes={len(BODY)}-")]


@pytest.mark.parametrize("length", ["", "x", "-5", "9" * 5000])
def test_a_length_that_is_none(site: Site, target: Path, length: str) -> None:
    site.plan = [("length", length)]
    assert once(site, target).read_bytes() == BODY


def test_a_file_put_there_by_hand_is_taken_and_recorded(target: Path) -> None:
    address = nobody() + "/a.tgz"
    with pytest.raises(DownloadError) as told:
        fetch_once(address, target, pause=0)
    assert str(told.value).startswith(f"{address}: cannot be fetched (")
    assert "expected a.tgz" in str(told.value)
    place = re.search(r"put it at (\S+): the same command", str(told.value))
    assert place
    Path(place[1]).write_bytes(BODY)
    assert fetch_once(address, target, pause=0) == target
    assert json.loads(record_of(target).read_text())["sha256"] == SHA256
    fetch_once(address, target, pause=0)


@pytest.mark.parametrize("change", [OTHER, BODY[:-1], b""])
def test_a_changed_file_is_refused_and_left(site: Site, target: Path, change: bytes) -> None:
    once(site, target)
    target.write_bytes(change)
    with pytest.raises(
        DownloadError,
        match=rf"a\.tgz: has {len(change)} bytes and the sha256 \w{{64}}, expected {len(BODY)} and "
        rf"{SHA256} as a\.tgz\.sha256\.json says; .*Delete both to fetch it again",
    ):
        once(site, target)
    assert target.read_bytes() == change
    record_of(target).unlink()
    once(site, target)
    target.unlink()
    record_of(target).unlink()
    assert once(site, target).read_bytes() == BODY


def test_the_first_checksum_holds_when_the_file_is_fetched_again(site: Site, target: Path) -> None:
    once(site, target)
    target.unlink()
    site.files["/a.tgz"] = OTHER
    with pytest.raises(
        DownloadError,
        match=rf"got a file with the sha256 \w{{64}}, expected {SHA256}.*renewed .*json$",
    ):
        once(site, target)
    assert names(target.parent) == ["a.tgz.sha256.json"]
    site.files["/a.tgz"] = BODY
    assert once(site, target).read_bytes() == BODY


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"sha256": "x", "bytes": 1}', f'{{"sha256": "{SHA256}"}}', "[" * 9999]
)
def test_a_broken_record_is_named(site: Site, target: Path, text: str) -> None:
    once(site, target)
    record_of(target).write_text(text)
    with pytest.raises(DownloadError, match=r"a\.tgz\.sha256\.json: is no record .*Delete it to"):
        once(site, target)


@pytest.mark.parametrize("status", [404, 410, 403])
def test_what_is_not_there_is_asked_for_once(site: Site, target: Path, status: int) -> None:
    site.plan = [("status", status)] * 3
    with pytest.raises(DownloadError, match=f"cannot be fetched .HTTP Error {status}") as told:
        once(site, target)
    assert is_absent(told.value)
    assert len(site.asked) == 1


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_trouble_that_may_pass_is_tried_again(site: Site, target: Path, status: int) -> None:
    site.plan = [("status", status)] * 2
    assert once(site, target).read_bytes() == BODY
    site.plan = [("status", status)] * 5
    target.unlink()
    with pytest.raises(DownloadError) as told:
        once(site, target)
    assert not is_absent(told.value)
    assert len(site.asked) == 6


def test_a_page_is_no_file(site: Site, target: Path) -> None:
    site.headers = {"Content-Type": "text/html; charset=utf-8"}
    with pytest.raises(DownloadError, match=r"answered with a page \(text/html\), expected a file"):
        once(site, target)
    assert names(target.parent) == []


def test_redirects_are_followed_and_gone_on_from(site: Site, target: Path) -> None:
    site.plan = [("to", "/a.tgz"), ("cut", 1000), ("to", site.address("/a.tgz"))]
    fetch_once(site.address("/b"), target, pause=0)
    assert target.read_bytes() == BODY
    assert site.asked[-2:] == [("/b", "bytes=1000-"), ("/a.tgz", "bytes=1000-")]


@pytest.mark.parametrize(
    "to",
    [
        *("/a.tgz", "http://[::1", "http://" + "a" * 70 + ".org/", "http://127.0.0.1:99999/"),
        *("file:///etc/hostname", "ftp://127.0.0.1/a", "data:,x", "http:///a", "http://a b/"),
    ],
)
def test_a_server_that_sends_in_circles_or_elsewhere(site: Site, target: Path, to: str) -> None:
    site.plan = [("to", to)] * 50
    with pytest.raises(DownloadError, match=r"a\.tgz: cannot be fetched"):
        once(site, target)
    assert len(site.asked) <= 11
    assert names(target.parent) == []


def test_the_proxy_of_the_environment_is_asked(
    site: Site, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", site.address(""))
    monkeypatch.delenv("no_proxy", raising=False)
    site.files["http://models.invalid/a.tgz"] = BODY
    fetch_once("http://models.invalid/a.tgz", target, pause=0)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("room", [0, 2000])
def test_a_full_disk_is_not_tried_again(
    site: Site, target: Path, full_disk: FullDisk, room: int
) -> None:
    with full_disk(room), pytest.raises(RejoinderError, match=r"(?i)file too large.*(room|space)"):
        once(site, target)
    assert len(site.asked) == 1
    assert not target.exists()


def test_a_folder_that_cannot_be(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DownloadError, match="cannot be read or written: Not a directory"):
        once(site, tmp_path / "file" / "a.tgz")
    (tmp_path / "a.tgz").mkdir()
    with pytest.raises(DownloadError, match=r"a\.tgz: cannot be read or written: Is a directory"):
        once(site, tmp_path / "a.tgz")
    assert site.asked == []


def test_two_that_fetch_one_file_at_once_do_not_mix_it(site: Site, target: Path) -> None:
    left = [b"of another process"]

    def meanwhile(done: int, total: int | None) -> None:
        if done == total and left:
            with open(f"{target}.part", "ab") as file:
                file.write(left.pop())

    fetch_once(site.address("/a.tgz"), target, progress=meanwhile, pause=0)
    assert target.read_bytes() == BODY
    assert len(site.asked) == 2


def test_a_checksum_that_is_known_is_held(site: Site, tmp_path: Path) -> None:
    fetch(site.address("/a.tgz"), tmp_path / "a", by_hand="look", sha256=SHA256)
    assert sha256_of(tmp_path / "a") == SHA256
    with pytest.raises(
        DownloadError, match=f"expected {'0' * 64}; it was deleted.*elsewhere and l"
    ):
        fetch(site.address("/a.tgz"), tmp_path / "b", by_hand="look", sha256="0" * 64)
    assert names(tmp_path) == ["a"]


def test_a_local_address_is_copied_and_recorded(target: Path, tmp_path: Path) -> None:
    (tmp_path / "my file").write_bytes(BODY)
    address = f"file://{tmp_path}/my%20file"
    fetch_once(address, target)
    assert target.read_bytes() == BODY
    (tmp_path / "my file").unlink()
    assert fetch_once(address, target).read_bytes() == BODY
    assert json.loads(record_of(target).read_text())["sha256"] == SHA256


def test_a_local_address_names_a_plain_file(target: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", ".", "link"):
        if name == "link":
            (tmp_path / "link").symlink_to("/dev/zero")
        with pytest.raises(DownloadError, match="is not a plain file; expected an archive or a m"):
            fetch_once(f"file://{tmp_path}/{name}", target)
    with pytest.raises(DownloadError, match=r"gone: cannot be read \(No such file") as told:
        local_file(f"file://{tmp_path}/gone")
    assert is_absent(told.value)
    with pytest.raises(DownloadError, match="cannot be read .*null"):
        local_file("file:///a%00b")
