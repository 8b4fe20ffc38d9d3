"""Fetching ConvAI2, from a real server on this machine that can be made to misbehave."""

import hashlib
import http.server
import io
import resource
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rejoinder.data import read
from rejoinder.data.download import CONVAI2, Archive, get_convai2
from rejoinder.errors import DownloadError

TRAIN, VALID = "train_self_original.txt", "valid_self_original.txt"
TEXT = "".join(f"1 your persona: {n}.\n2 hi {n * 7919 % 9973}\thello {n}\n" for n in range(20_000))


def packed(*members: tuple[str | tarfile.TarInfo, str]) -> bytes:
    """The bytes of an archive of (name or TarInfo, text) pairs."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for name, text in members:
            member = tarfile.TarInfo(name) if isinstance(name, str) else name
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return raw.getvalue()


GOOD = packed((f"ConvAI2/{TRAIN}", TEXT), (f"ConvAI2/{VALID}", "1 hi\tyo\n"), ("README", "x"))


class Site(http.server.ThreadingHTTPServer):
    """Serves `body`; each entry of `plan` spoils one request: bytes to cut after, or a status."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = GOOD
        self.plan: list[tuple[str, int]] = []
        self.ranges = True
        self.asked: list[str | None] = []  # the Range header of every request

    def archive(self, body: bytes = GOOD) -> Archive:
        address = f"http://127.0.0.1:{self.server_port}/convai2.tgz"
        return Archive(address=address, sha256=hashlib.sha256(body).hexdigest())


class Handler(http.server.BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        spoil = self.server.plan.pop(0) if self.server.plan else ("all", 0)
        body, start = self.server.body, 0
        if spoil[0] == "status":
            self.send_error(spoil[1])
            return
        if asked and self.server.ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        end = spoil[1] if spoil[0] == "cut" else len(body)
        self.wfile.write(body[start:end])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[Site]:
    server = Site()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_text_arrives_and_the_archive_goes(site: Site, tmp_path: Path) -> None:
    seen = []
    found = get_convai2(
        tmp_path / "new" / "folder",
        archive=site.archive(),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert [path.name for path in found] == [TRAIN, VALID]
    assert found[0].read_text() == TEXT
    assert names(tmp_path / "new" / "folder") == [TRAIN, VALID]
    assert len(list(read(found[0]))) == 20_000
    assert seen[0] == (0, len(GOOD))
    assert seen[-1] == (len(GOOD), len(GOOD))
    assert seen == sorted(seen)


def test_what_is_there_is_not_fetched_again(site: Site, tmp_path: Path) -> None:
    first = get_convai2(tmp_path, archive=site.archive())
    assert get_convai2(str(tmp_path), archive=site.archive()) == first
    assert len(site.asked) == 1
    first[0].unlink()
    assert get_convai2(tmp_path, archive=site.archive()) == first
    assert len(site.asked) == 2


def test_a_cut_connection_is_gone_on_from(site: Site, tmp_path: Path) -> None:
    site.plan = [("cut", 1000), ("cut", 5000)]
    found = get_convai2(tmp_path, archive=site.archive(), pause=0)
    assert found[0].read_text() == TEXT
    assert site.asked == [None, "bytes=1000-", "bytes=5000-"]


def test_a_later_run_goes_on_where_the_first_gave_up(site: Site, tmp_path: Path) -> None:
    site.plan = [("cut", 1000)] * 3
    with pytest.raises(
        DownloadError, match=r"ended after 1000 of \d+ bytes.*Run it again to go on"
    ):
        get_convai2(tmp_path, archive=site.archive(), pause=0)
    assert names(tmp_path) == ["convai2.tgz.part"]
    assert get_convai2(tmp_path, archive=site.archive())[0].read_text() == TEXT
    assert site.asked[-1] == "bytes=1000-"


def test_a_server_that_always_sends_all(site: Site, tmp_path: Path) -> None:
    site.ranges = False
    site.plan = [("cut", 1000)]
    assert get_convai2(tmp_path, archive=site.archive(), pause=0)[0].read_text() == TEXT
    assert site.asked == [None, "bytes=1000-"]


def test_a_part_that_is_all_is_only_checked(site: Site, tmp_path: Path) -> None:
    (tmp_path / "convai2.tgz.part").write_bytes(GOOD)
    assert get_convai2(tmp_path, archive=site.archive())[0].read_text() == TEXT
    assert site.asked == [f"bytes={len(GOOD)}-"]


@pytest.mark.parametrize("status", [500, 503, 429])
def test_trouble_that_may_pass_is_tried_again(site: Site, tmp_path: Path, status: int) -> None:
    site.plan = [("status", status)] * 2
    assert len(get_convai2(tmp_path, archive=site.archive(), pause=0)) == 2
    assert len(site.asked) == 3


def test_three_tries_are_enough(site: Site, tmp_path: Path) -> None:
    site.plan = [("status", 503)] * 5
    with pytest.raises(DownloadError, match=r"convai2\.tgz: cannot be fetched \(HTTP Error 503"):
        get_convai2(tmp_path, archive=site.archive(), pause=0)
    assert len(site.asked) == 3


def test_a_file_that_is_gone_is_not_asked_for_again(site: Site, tmp_path: Path) -> None:
    site.plan = [("status", 404)] * 3
    with pytest.raises(
        DownloadError, match="HTTP Error 404: .*get the file elsewhere and use --fr"
    ):
        get_convai2(tmp_path, archive=site.archive(), pause=0)
    assert len(site.asked) == 1


def test_without_a_network_the_message_has_the_address(tmp_path: Path) -> None:
    server = Site()  # takes a port, then leaves it with nobody listening
    archive = server.archive()
    server.server_close()
    with pytest.raises(DownloadError, match=rf"{archive.address}: cannot be fetched .*--from FILE"):
        get_convai2(tmp_path, archive=archive, pause=0)


def test_a_wrong_checksum_leaves_nothing(site: Site, tmp_path: Path) -> None:
    site.body = b"another file"
    with pytest.raises(
        DownloadError, match=r"got a file with the sha256 \w{64}, expected \w{64}; it"
    ):
        get_convai2(tmp_path, archive=site.archive(), pause=0)
    assert names(tmp_path) == []
    site.body = GOOD
    assert len(get_convai2(tmp_path, archive=site.archive())) == 2


def test_an_archive_that_was_not_unpacked_to_the_end(site: Site, tmp_path: Path) -> None:
    (tmp_path / "convai2.tgz").write_bytes(GOOD)
    (tmp_path / TRAIN).write_text("old")
    assert get_convai2(tmp_path, archive=site.archive())[0].read_text() == TEXT
    assert site.asked == []


def test_a_folder_that_cannot_be(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(
        DownloadError, match="file: cannot be read or written: .*choose another fold"
    ):
        get_convai2(tmp_path / "file", archive=site.archive())


@pytest.fixture
def _little_room() -> Iterator[None]:
    """No file may grow over 2,000 bytes, as if the disk were full there."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, old)


@pytest.mark.usefixtures("_little_room")
def test_a_full_disk_is_not_tried_again(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"tgz\.part: cannot be read or written: .*make room"):
        get_convai2(tmp_path, archive=site.archive(), pause=0)
    assert len(site.asked) == 1


def test_from_a_local_archive(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "mine.tgz").write_bytes(GOOD)
    (tmp_path / "mine.tgz").chmod(0o444)
    right = Archive(address="http://127.0.0.1:9/a.tgz", sha256=hashlib.sha256(GOOD).hexdigest())
    found = get_convai2(tmp_path / "data", tmp_path / "mine.tgz", archive=right)
    assert names(tmp_path / "data") == [TRAIN, VALID]
    assert not caplog.records
    assert get_convai2(tmp_path / "data", str(tmp_path / "mine.tgz")) == found
    assert "mine.tgz is not the published archive" in caplog.text
    assert (tmp_path / "mine.tgz").exists()


def test_from_unpacked_text(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / VALID).write_text("1 hi\tyo\n")
    (source / "other.txt").write_text("x")
    assert get_convai2(tmp_path / "a", source) == [tmp_path / "a" / VALID]
    assert get_convai2(tmp_path / "b", source / VALID) == [tmp_path / "b" / VALID]
    assert names(tmp_path / "a") == names(tmp_path / "b") == [VALID]
    assert get_convai2(source, source / VALID)[0].read_text() == "1 hi\tyo\n"  # onto itself


def test_a_single_text_does_not_stand_for_all(site: Site, tmp_path: Path) -> None:
    (tmp_path / VALID).write_text("1 hi\tyo\n")
    assert len(get_convai2(tmp_path, archive=site.archive())) == 2


def test_wrong_sources(tmp_path: Path) -> None:
    with pytest.raises(
        DownloadError, match="no: no such file; expected convai2_fix_723.tgz or its"
    ):
        get_convai2(tmp_path / "data", tmp_path / "no")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        DownloadError, match="empty: no ConvAI2 text in this folder; expected files"
    ):
        get_convai2(tmp_path / "data", tmp_path / "empty")
    (tmp_path / "cut.tgz").write_bytes(GOOD[: len(GOOD) // 2])
    with pytest.raises(DownloadError, match="cut.tgz: the archive is broken or cut off"):
        get_convai2(tmp_path / "data", tmp_path / "cut.tgz")
    (tmp_path / "other.tgz").write_bytes(packed(("a.txt", "x")))
    with pytest.raises(DownloadError, match="other.tgz: no ConvAI2 text in this archive; expected"):
        get_convai2(tmp_path / "data", tmp_path / "other.tgz")
    assert names(tmp_path / "data") == []


def linked(kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(VALID)
    member.type = kind
    member.linkname = "/etc/passwd"
    return member


@pytest.mark.parametrize(
    "member",
    [
        f"../{VALID}",
        f"a/../../{VALID}",
        f"..\\{VALID}",
        f"/tmp/{VALID}",
        linked(tarfile.SYMTYPE),
        linked(tarfile.LNKTYPE),
        linked(tarfile.FIFOTYPE),
        linked(tarfile.CHRTYPE),
    ],
)
def test_an_archive_that_reaches_out_is_refused(
    tmp_path: Path, member: str | tarfile.TarInfo
) -> None:
    (tmp_path / "evil.tgz").write_bytes(packed((member, "")))
    with pytest.raises(
        DownloadError, match="evil.tgz: refused: it holds .*plain files inside its ow"
    ):
        get_convai2(tmp_path / "data", tmp_path / "evil.tgz")
    assert names(tmp_path) == ["data", "evil.tgz"]
    assert names(tmp_path / "data") == []


def test_the_published_archive_is_named() -> None:
    assert CONVAI2.name == "convai2_fix_723.tgz"
    assert len(CONVAI2.sha256) == 64
    assert Path(CONVAI2.name).suffix == ".tgz"
