"""Files: equal text however it is packed, whole or not at all, and clear words when it fails."""

import gzip
import lzma
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rejoinder.data import files
from rejoinder.data.files import head, numbered_lines, text_blocks, writing
from rejoinder.errors import DataError

NAMES = ("a.txt", "a.txt.gz", "a.txt.xz")
TEXT = "one\n\ntwo \u2028 ü\r\nthree"


def write(path: Path, text: str) -> Path:
    with writing(path) as file:
        file.write(text)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, TEXT)
    assert list(numbered_lines(path)) == [(1, "one"), (2, ""), (3, "two \u2028 ü"), (4, "three")]
    assert "".join(text_blocks(path)) == TEXT
    assert head(path) == TEXT
    assert head(path, 3) == "one"


def test_the_packing_is_seen_in_the_bytes_not_in_the_name(tmp_path: Path) -> None:
    (tmp_path / "a.xz").write_bytes(gzip.compress(TEXT.encode()))
    (tmp_path / "a.gz").write_text(TEXT, newline="")
    (tmp_path / "a").write_bytes(lzma.compress(TEXT.encode()))
    found = [list(numbered_lines(tmp_path / name)) for name in ("a.xz", "a.gz", "a")]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("name", NAMES)
def test_equal_text_gives_equal_bytes(tmp_path: Path, name: str) -> None:
    first = write(tmp_path / name, TEXT).read_bytes()
    (tmp_path / "sub").mkdir()
    assert write(tmp_path / "sub" / name, TEXT).read_bytes() == first


def test_packed_files_are_packed(tmp_path: Path) -> None:
    text = "hello\n" * 1000
    assert gzip.decompress(write(tmp_path / "a.gz", text).read_bytes()).decode() == text
    assert lzma.decompress(write(tmp_path / "a.xz", text).read_bytes()).decode() == text


def test_a_mark_for_utf_8_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfhi\n")
    assert list(numbered_lines(tmp_path / "a")) == [(1, "hi")]
    assert "".join(text_blocks(tmp_path / "a")) == "hi\n"
    assert head(tmp_path / "a") == "hi\n"


def test_a_character_may_lie_over_two_blocks(tmp_path: Path) -> None:
    text = "x" * (files.BLOCK - 1) + "ü" + "y" * 10
    (tmp_path / "a").write_text(text)
    assert "".join(text_blocks(tmp_path / "a")) == text


Use = Callable[[Path], object]
READ: tuple[Use, ...] = (
    lambda path: list(numbered_lines(path)),
    lambda path: list(text_blocks(path)),
    head,
)


@pytest.mark.parametrize("use", READ)
def test_a_missing_file(tmp_path: Path, use: Use) -> None:
    with pytest.raises(DataError, match=r"no\.txt: no such file; looked from the folder"):
        use(tmp_path / "no.txt")


@pytest.mark.parametrize("use", READ)
def test_a_folder(tmp_path: Path, use: Use) -> None:
    with pytest.raises(DataError, match="is a folder; expected a file"):
        use(tmp_path)


@pytest.mark.parametrize("use", READ)
def test_a_file_that_cannot_be_opened(tmp_path: Path, use: Use) -> None:
    with pytest.raises(DataError, match="xxx: cannot be read: File name too long"):
        use(tmp_path / ("x" * 300))


@pytest.mark.parametrize("use", READ)
@pytest.mark.parametrize(
    "content", [b"", gzip.compress(b""), lzma.compress(b"")], ids=["bare", "gz", "xz"]
)
def test_an_empty_file(tmp_path: Path, use: Use, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(DataError, match=r"a: the file is empty; expected UTF-8 text"):
        use(tmp_path / "a")


@pytest.mark.parametrize("use", READ)
@pytest.mark.parametrize(
    "content", [b"one\nPK\x03\x04\0\0", gzip.compress(b"one\n\0")], ids=["bare", "gz"]
)
def test_a_binary_file(tmp_path: Path, use: Use, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(DataError, match=r"a:2: the file is binary .* UTF-16 as UTF-8"):
        use(tmp_path / "a")


@pytest.mark.parametrize("use", READ[:2])
@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_a_packed_file_that_is_cut_off(
    tmp_path: Path, use: Use, pack: Callable[[bytes], bytes]
) -> None:
    packed = pack("".join(f"line {number}\n" for number in range(50_000)).encode())
    (tmp_path / "a").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DataError, match="a: the packed file is broken or cut off .* copy or down"):
        use(tmp_path / "a")


def test_a_packed_file_with_a_wrong_byte(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(bytes(range(32, 127)) * 1000))
    packed[-6] ^= 1  # in the checksum
    (tmp_path / "a").write_bytes(packed)
    with pytest.raises(DataError, match="broken or cut off"):
        list(numbered_lines(tmp_path / "a"))


def test_bytes_that_are_not_utf_8_are_named_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one\ncaf\xe9\nthree\n")
    with pytest.raises(DataError, match=r"a:2: byte 0xe9 is not UTF-8; .* iconv -f cp1252"):
        list(numbered_lines(path))
    with pytest.raises(DataError, match="a:2: byte 0xe9 is not UTF-8"):
        list(text_blocks(path))
    bad: list[DataError] = []
    assert list(numbered_lines(path, bad.append)) == [(1, "one"), (3, "three")]
    assert len(bad) == 1


def test_a_text_that_ends_inside_a_character(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes("one\nü".encode()[:-1])
    with pytest.raises(DataError, match="a:2: the text ends inside a character"):
        list(text_blocks(tmp_path / "a"))


def test_an_endless_line_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LONGEST", 1 << 20)
    (tmp_path / "a").write_bytes(b"x\n" + b"y" * (1 << 21))
    with pytest.raises(DataError, match="a:2: a line of more than 1 MiB; expected one record a li"):
        list(numbered_lines(tmp_path / "a"))


@pytest.mark.parametrize("name", NAMES)
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, "old")
    old = (tmp_path / name).read_bytes()

    def fail() -> None:
        with writing(tmp_path / name) as file:
            file.write("new")
            raise KeyboardInterrupt

    pytest.raises(KeyboardInterrupt, fail)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == old


@pytest.fixture
def _little_room() -> Iterator[None]:
    """No file may grow over 10,000 bytes, as if the disk were full there."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, old)


@pytest.mark.usefixtures("_little_room")
@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_leaves_no_half_file(tmp_path: Path, name: str) -> None:
    def fill() -> None:
        with writing(tmp_path / name) as file:
            for number in range(200_000):
                file.write(f"{number * number * 7919 % 1_000_003}\n")

    with pytest.raises(DataError, match=rf"{name}: cannot be written: .*; nothing was changed"):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be written: No such file .* Check the folder"):
        write(tmp_path / "no" / "a.txt", "x")


@pytest.mark.parametrize("name", [".", "pipe"])
def test_only_plain_files_are_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / "pipe").symlink_to("/dev/null")
    with pytest.raises(DataError, match="is not a plain file; expected the name of a file"):
        write(tmp_path / name, "x")
    assert Path("/dev/null").is_char_device()


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    write(tmp_path / "a", "old")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "a").read_text() == "new"
