"""Archives are unpacked whole or not at all, and never outside of the folder asked for."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from rejoinder.errors import CheckpointError, RejoinderError
from rejoinder.legacy.archives import unpack

from .broken import CHANCES, broken

TARS = {"tar": "w", "tar.gz": "w:gz", "tgz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}
KINDS = pytest.mark.parametrize("kind", [*TARS, "zip"])
FILES = {
    "model/weights": b"w" * 200_000,
    "model/deep/er/options.json": b"{}",
    "empty": b"",
    "a name, with: blanks é.txt": b"x",
    "a" * 200 + "/" + "b" * 200: b"long",
}


def pack(path: Path, files: Mapping[str, bytes], *, prefix: str = "") -> Path:
    """An archive of the kind that the name says."""
    kind = path.name.partition(".")[2]
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
            for name, content in files.items():
                zipped.writestr(prefix + name, content)
        return path
    with tarfile.open(path, TARS[kind]) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def tar_of(path: Path, *infos: tarfile.TarInfo | str) -> Path:
    with tarfile.open(path, "w") as tar:
        for info in infos:
            tar.addfile(tarfile.TarInfo(info) if isinstance(info, str) else info, io.BytesIO())
    return path


def member(name: str, kind: bytes, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


def tree(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def assert_refused(archive: Path, reason: str, **how: Any) -> None:
    """Not even a folder is left, and nothing beside it."""
    before = sorted(archive.parent.rglob("*"))
    with pytest.raises(CheckpointError, match=f"^{archive}: .*{reason}"):
        unpack(archive, archive.parent / "sub" / "out", **how)
    left = set(archive.parent.rglob("*")) - set(before)
    assert left <= {archive.parent / "sub"}


# Laws


@KINDS
@pytest.mark.parametrize("prefix", ["", "./"])
def test_what_was_packed_is_unpacked(tmp_path: Path, kind: str, prefix: str) -> None:
    archive = pack(tmp_path / f"a.{kind}", FILES, prefix=prefix)
    assert unpack(archive, tmp_path / "out") == tmp_path / "out"
    assert tree(tmp_path / "out") == FILES
    assert sorted(path.name for path in tmp_path.iterdir()) == [archive.name, "out"]


@KINDS
def test_the_kind_is_told_by_content(tmp_path: Path, kind: str) -> None:
    archive = pack(tmp_path / f"a.{kind}", FILES).rename(tmp_path / "model")
    assert tree(unpack(archive, tmp_path / "out")) == FILES


def test_folders_are_members_too(tmp_path: Path) -> None:
    (tmp_path / "in" / "none" / "inner").mkdir(parents=True)
    (tmp_path / "in" / "some").mkdir()
    (tmp_path / "in" / "some" / "file").write_text("x")
    (tmp_path / "in" / "some" / "file").chmod(0o4777)
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as tar:
        tar.add(tmp_path / "in", arcname=".")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        for path in sorted((tmp_path / "in").rglob("*")):
            zipped.write(path, path.relative_to(tmp_path / "in"))
    for archive in (tmp_path / "a.tgz", tmp_path / "a.zip"):
        out = unpack(archive, tmp_path / f"{archive.name}.out")
        found = sorted(path.relative_to(out).as_posix() for path in out.rglob("*"))
        assert found == ["none", "none/inner", "some", "some/file"]
        assert stat.S_IMODE((out / "some" / "file").stat().st_mode) == 0o644


def test_an_old_folder_is_kept_unless_it_is_empty(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.tar", FILES)
    (tmp_path / "out").mkdir()
    assert tree(unpack(archive, tmp_path / "out")) == FILES
    (tmp_path / "out" / "mine").write_bytes(b"")
    with pytest.raises(RejoinderError, match="which is not ours and would be lost"):
        unpack(archive, tmp_path / "out")
    assert tree(tmp_path / "out") == {**FILES, "mine": b""}


# Names and kinds


NAMES = {
    "/etc/passwd": "has an absolute name",
    "//etc/passwd": "has an absolute name",
    "C:/a": "has an absolute name",
    "c:a": "has an absolute name",
    "a/d:b": "has an absolute name",
    "\\\\server\\a": "has an absolute name",
    "../a": "has a name that leads elsewhere",
    "a/../../b": "has a name that leads elsewhere",
    "a/..": "has a name that leads elsewhere",
    "..": "has a name that leads elsewhere",
    "a\\..\\b": "has a name that leads elsewhere",
    "a\nb": "has a name with control characters",
    "a\x7f": "has a name with control characters",
    "a" * 256: "has too long a name",
    "/".join(["a" * 250] * 5): "has too long a name",
    ".": "has no name",
    "Good": "collides with 'good'",
    "good": "collides with 'good'",
    "good/inner": "collides with 'good'",
    "GOOD/inner": "collides with 'good'",
    "stra\u00dfe/a": "collides with 'strasse'",
    "e\u0301": r"collides with '\\xe9'",
}
BEFORE = ["good", "strasse/b", "\u00e9"]


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name[:20]))
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_odd_names_are_refused_before_anything_is_written(
    tmp_path: Path, name: str, kind: str
) -> None:
    archive = tmp_path / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as zipped:
            for one in (*BEFORE, name, "after"):
                zipped.writestr(one, "x")
    else:
        tar_of(archive, *BEFORE, name, "after")
    assert_refused(archive, NAMES[name])


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        (member("link", tarfile.SYMTYPE, "/etc/passwd"), "'link' is a link; expected plain"),
        (member("link", tarfile.SYMTYPE, "good"), "'link' is a link"),
        (member("link", tarfile.LNKTYPE, "good"), "'link' is a link"),
        (member("dev", tarfile.CHRTYPE), "'dev' is a device"),
        (member("dev", tarfile.BLKTYPE), "'dev' is a device"),
        (member("pipe", tarfile.FIFOTYPE), "'pipe' is a device"),
        (member("odd", b"Z"), "'odd' is a device"),
        (member("hole", tarfile.GNUTYPE_SPARSE), "'hole' is a sparse file"),
    ],
)
def test_only_files_and_folders_of_a_tar(
    tmp_path: Path, info: tarfile.TarInfo, reason: str
) -> None:
    assert_refused(tar_of(tmp_path / "a.tar", "good", info), reason)


def test_a_file_behind_a_link_is_never_written(tmp_path: Path) -> None:
    link = member("sub", tarfile.SYMTYPE, str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere").mkdir()
    assert_refused(tar_of(tmp_path / "a.tar", link, "sub/file"), "'sub' is a link")
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize(
    ("mode", "flag", "reason"),
    [
        (stat.S_IFLNK | 0o777, 0, "'odd' is a link"),
        (stat.S_IFCHR | 0o777, 0, "'odd' is a device"),
        (stat.S_IFIFO | 0o777, 0, "'odd' is a device"),
        (0, 1, "'odd' is encrypted"),
    ],
)
def test_only_files_and_folders_of_a_zip(tmp_path: Path, mode: int, flag: int, reason: str) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("good", "x")
        info = zipfile.ZipInfo("odd")
        info.external_attr = mode << 16
        zipped.writestr(info, "/etc/passwd")
    content = bytearray(archive.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= flag
    archive.write_bytes(content)
    assert_refused(archive, reason)


def test_names_are_not_cut_at_a_zero_byte(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr("ab..", "x")
    archive = tmp_path / "a.zip"
    archive.write_bytes(archive.read_bytes().replace(b"ab..", b"ab\0."))
    assert_refused(archive, "has a name with control characters")


@KINDS
def test_of_several_folders_one_is_unpacked(tmp_path: Path, kind: str) -> None:
    """All members are looked at all the same; where nothing is so named all is unpacked."""
    files = {"one/model": b"1", "all/two/model": b"2", "two.txt": b"3", "three/two": b"4"}
    archive = pack(tmp_path / f"a.{kind}", files)
    two = {"all/two/model": b"2", "three/two": b"4"}
    assert tree(unpack(archive, tmp_path / "two", only=["two"])) == two
    both = unpack(archive, tmp_path / "both", only=["one", "two.txt"])
    assert tree(both) == {"one/model": b"1", "two.txt": b"3"}
    assert tree(unpack(archive, tmp_path / "five", only=["five"])) == files
    bad = pack(tmp_path / f"b.{kind}", {"two/model": b"2", "../out": b"x"})
    assert_refused(bad, "out", only=["two"])


# Sizes


@KINDS
def test_limits(tmp_path: Path, kind: str) -> None:
    archive = pack(tmp_path / f"a.{kind}", {"a": b"x" * 600, "b": b"x" * 400, "c": b""})
    assert unpack(archive, tmp_path / "out", most_bytes=1000, most_members=3).is_dir()
    tight: list[dict[str, Any]] = [{"most_bytes": 999}, {"most_members": 2}]
    for limits in tight:
        with pytest.raises(CheckpointError, match="more than .* files or .* bytes, at '[bc]'"):
            unpack(archive, tmp_path / "other", **limits)
    assert not (tmp_path / "other").exists()


def test_sizes_are_refused_before_they_are_read(tmp_path: Path) -> None:
    header = member("large", tarfile.REGTYPE, size=2**40).tobuf()
    with gzip.open(tmp_path / "a.tgz", "wb") as file:
        file.write(header + bytes(1024))
    assert_refused(tmp_path / "a.tgz", "holds more than 10,000 files or 68,719,476,736 bytes")


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_header_may_not_take_all_memory(tmp_path: Path, kind: bytes) -> None:
    header = member("long", kind, size=2**33).tobuf(tarfile.GNU_FORMAT)
    with gzip.open(tmp_path / "a.tgz", "wb") as file:
        file.write(header + bytes(2**20))
    assert_refused(tmp_path / "a.tgz", "is cut or broken .a header of 8,589,934,592 bytes")


def test_headers_may_not_go_on_for_ever(tmp_path: Path) -> None:
    header = member("././@LongLink", tarfile.GNUTYPE_LONGNAME, size=4).tobuf()
    with gzip.open(tmp_path / "a.tgz", "wb") as file:
        file.write((header + b"abc".ljust(512, b"\0")) * 5000)
    assert_refused(tmp_path / "a.tgz", "is cut or broken")


def test_what_follows_the_end_is_bounded(tmp_path: Path) -> None:
    tar_of(tmp_path / "a.tar", "good")
    with (tmp_path / "a.tar").open("ab") as file:
        file.truncate(70 * 2**20)
    assert_refused(tmp_path / "a.tar", "67,108,864 bytes behind the end mark")


# Broken archives


@KINDS
def test_a_cut_archive_leaves_nothing_behind(tmp_path: Path, kind: str) -> None:
    files = {"a/b": os.urandom(3000), "c": b"x" * 3000, "d": b"", "e": b"y"}
    whole = pack(tmp_path / f"whole.{kind}", files).read_bytes()
    end = whole.rindex(b"y") + 512 if kind == "tar" else len(whole)  # zeros follow in a tar
    archive = tmp_path / "cut"
    for size in [*range(0, end - 1, 211), end - 1]:
        archive.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match="/cut: is (cut or broken|no archive)"):
            unpack(archive, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["cut", f"whole.{kind}"])


@KINDS
def test_flipped_bits_are_found_where_there_is_a_checksum(tmp_path: Path, kind: str) -> None:
    archive = pack(tmp_path / f"a.{kind}", {"a": os.urandom(5000)})
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 4
    archive.write_bytes(content)
    if kind == "tar":  # which has none for contents
        assert len(tree(unpack(archive, tmp_path / "out"))["a"]) == 5000
    else:
        assert_refused(archive, "is cut or broken")


def test_two_places_of_one_zip_do_not_agree(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", {"name": b"x"})
    archive.write_bytes(archive.read_bytes().replace(b"name", b"/etc", 1))
    assert_refused(archive, "is cut or broken")


def test_a_member_before_the_first_byte(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", {"first": b"x", "second": b"y"})
    content = bytearray(archive.read_bytes())
    end = content.rindex(b"PK\x05\x06")
    (start,) = struct.unpack("<I", content[end + 16 : end + 20])
    content[end + 16 : end + 20] = struct.pack("<I", start + 9)  # so all is 9 bytes before
    archive.write_bytes(content)
    assert_refused(archive, "is cut or broken")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is no archive; expected .zip, .tar"),
        (b"<html>404</html>", "is no archive"),
        (b"x" * 5000, "is no archive"),
        (bytes(10240), "is no archive|holds no files"),
        (gzip.compress(b"x" * 5000, mtime=0), "is cut or broken"),
        (gzip.compress(b"", mtime=0), "is cut or broken"),
        (b"PK\x03\x04" + bytes(100), "is cut or broken .File is not a zip file"),
        (b"PK\x05\x06" + bytes(18), "holds no files; expected a model"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a").write_bytes(content)
    assert_refused(tmp_path / "a", f"({reason})")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"/a: cannot be read \(No such file"):
        unpack(tmp_path / "a", tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"cannot be read \(Is a directory"):
        unpack(tmp_path, tmp_path / "out")


def test_a_zip_with_an_endless_list(tmp_path: Path) -> None:
    size = 100 * 2**20
    with (tmp_path / "a").open("wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(size)
        file.seek(size)
        file.write(struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 9, 9, size - 4, 4, 0))
    assert_refused(tmp_path / "a", "a list of members of 104,857,596 bytes")


def test_a_full_disk_is_no_broken_archive(
    tmp_path: Path, full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    archive = pack(tmp_path / "a.tgz", FILES)
    with full_disk(100_000), pytest.raises(RejoinderError, match="out: could not be written"):
        unpack(archive, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [archive]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Archives of every kind."""
    folder = tmp_path_factory.mktemp("small")
    files = {"a/b": b"x" * 50, "c": b"y" * 700}
    return {kind: pack(folder / f"a.{kind}", files).read_bytes() for kind in (*TARS, "zip")}


def survives(whole: bytes, folder: Path, chance: Random) -> None:
    """A broken archive fills its own folder, or none."""
    (folder / "in").mkdir(exist_ok=True)
    archive, out = folder / "in" / "archive", folder / "in" / "out"
    archive.write_bytes(broken(whole, chance))
    with suppress(CheckpointError):
        unpack(archive, out, most_bytes=10**6)
        shutil.rmtree(out)  # only there if all went well
    assert list(folder.iterdir()) == [folder / "in"]
    assert list((folder / "in").iterdir()) == [archive]


@KINDS
@given(chance=CHANCES)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_broken_archive_is_an_error_or_a_folder(
    tmp_path: Path, small: Mapping[str, bytes], kind: str, chance: Random
) -> None:
    survives(small[kind], tmp_path, chance)


@pytest.mark.slow
@KINDS
def test_many_broken_archives(tmp_path: Path, small: Mapping[str, bytes], kind: str) -> None:
    chance = Random(0)
    for _ in range(300):
        survives(small[kind], tmp_path, chance)
