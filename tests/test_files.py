"""Files and folders are whole or not there, whatever goes wrong while they are written."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from rejoinder.errors import RejoinderError
from rejoinder.files import check_replaceable, recover, whole_folder, write_bytes, write_text

FullDisk = Callable[[int], AbstractContextManager[None]]


def tree(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): file.read_text()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def fill(folder: Path, content: str) -> None:
    with whole_folder(folder) as new:
        (new / "sub").mkdir()
        (new / "sub" / "a").write_text(content)
        (new / content).write_text("named after the content")


def test_a_new_folder_appears_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "down" / "out"
    with whole_folder(target) as new:
        (new / "a").write_text("x")
        assert not target.exists()
    assert tree(target) == {"a": "x"}
    assert target.stat().st_mode & 0o777 == 0o755
    assert list(target.parent.iterdir()) == [target]


def test_files_in_it_can_be_read_by_all(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "out") as new:
        (new / "a").write_text("x")
        (new / "a").chmod(0o600)
    assert (tmp_path / "out" / "a").stat().st_mode & 0o777 == 0o644


def test_an_old_folder_is_replaced_not_added_to(tmp_path: Path) -> None:
    fill(tmp_path / "out", "one")
    fill(tmp_path / "out", "two")
    assert tree(tmp_path) == {"out/sub/a": "two", "out/two": "named after the content"}


@pytest.mark.parametrize("error", [ValueError("my own"), KeyboardInterrupt()])
def test_an_error_inside_passes_through_and_changes_nothing(
    tmp_path: Path, error: BaseException
) -> None:
    fill(tmp_path / "out", "one")
    before = tree(tmp_path)
    with pytest.raises(type(error)), whole_folder(tmp_path / "out") as new:  # noqa: PT012
        (new / "half").write_text("x")
        raise error
    assert tree(tmp_path) == before


def test_a_full_disk_leaves_the_old_folder(tmp_path: Path, full_disk: FullDisk) -> None:
    fill(tmp_path / "out", "one")
    before = tree(tmp_path)
    with full_disk(1000), pytest.raises(RejoinderError, match=r"out: could not be written \(File"):
        fill(tmp_path / "out", "x" * 1001)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("old", [b"", b"the old content"])
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, full_disk: FullDisk, old: bytes) -> None:
    target = tmp_path / "a"
    if old:
        write_bytes(target, old)
    with full_disk(1000), pytest.raises(RejoinderError, match=r"a: could not be written \(File"):
        write_bytes(target, b"x" * 1001)
    assert tree(tmp_path) == ({"a": old.decode()} if old else {})


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    target = tmp_path / "file" / "out"
    with pytest.raises(RejoinderError, match=r"file/out: could not be written \("):
        fill(target, "one")
    with pytest.raises(RejoinderError, match=r"file/out: could not be written \("):
        write_text(target, "one")
    assert tree(tmp_path) == {"file": "x"}


def test_a_file_in_the_place_of_the_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(RejoinderError, match="out: is a file; expected a new folder"):
        fill(tmp_path / "out", "one")
    assert tree(tmp_path) == {"out": "mine"}


def test_a_folder_that_holds_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").write_text("old")
    with whole_folder(tmp_path / "out", ["a", "b"]) as new:
        (new / "b").write_text("new")
    assert tree(tmp_path) == {"out/b": "new"}
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with (
        pytest.raises(RejoinderError, match=r"out: holds 'thesis\.txt', which is not ours"),
        whole_folder(tmp_path / "out", ["a", "b"]),
    ):
        pass
    assert tree(tmp_path) == {"out/b": "new", "out/thesis.txt": "mine"}


@pytest.mark.parametrize("name", [".", "..", "a/.."])
def test_the_folder_that_one_is_in_is_not_replaced(name: str) -> None:
    with pytest.raises(RejoinderError, match="expected the name of a folder in it"):
        check_replaceable(Path(name))


def test_a_folder_where_the_file_should_be(tmp_path: Path) -> None:
    fill(tmp_path / "out", "one")
    before = tree(tmp_path)
    with pytest.raises(RejoinderError, match=r"out: could not be written \("):
        write_text(tmp_path / "out", "two")
    assert tree(tmp_path) == before


def test_text_is_utf8_and_replaces_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "a.txt"
    write_text(target, "old and longer")
    write_text(target, "grüße\n")
    assert target.read_bytes() == "grüße\n".encode()
    assert target.stat().st_mode & 0o777 == 0o644
    assert list(target.parent.iterdir()) == [target]


def test_what_a_killed_process_put_aside_comes_back(tmp_path: Path) -> None:
    """Killed between the two renames: the old folder is aside, the new one has no name yet."""
    fill(tmp_path / ".out.old.a1b2c3d4" / "old", "one")
    fill(tmp_path / ".out.zzzz_999", "two")
    fill(tmp_path / ".out.backup", "mine")
    fill(tmp_path / "other", "mine too")
    before = {name: text for name, text in tree(tmp_path).items() if "mine" in text}
    recover(tmp_path / "out")
    found = tree(tmp_path)
    assert found.pop("out/sub/a") == "one"
    assert {name: text for name, text in found.items() if "mine" in text} == before
    assert not list(tmp_path.glob(".out.old*"))
    assert not list(tmp_path.glob(".out.zzzz*"))


def test_recovering_leaves_a_whole_folder_alone(tmp_path: Path) -> None:
    fill(tmp_path / "out", "new")
    fill(tmp_path / ".out.old.a1b2c3d4" / "old", "old")
    recover(tmp_path / "out")
    assert tree(tmp_path)["out/sub/a"] == "new"
    assert not list(tmp_path.glob(".out.*"))
