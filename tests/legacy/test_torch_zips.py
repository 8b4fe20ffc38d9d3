"""Zips that are not quite as torch.save writes them are read right, or refused with a reason."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from rejoinder.errors import CheckpointError
from rejoinder.legacy.torchfiles import read_torch

from .handmade import TEN, floats, save, tensor, write


def change(path: Path, old: bytes, new: bytes, count: int = -1) -> Path:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, count))
    return path


@pytest.fixture
def zipped(tmp_path: Path) -> Path:
    return save({"w": torch.ones(3)}, tmp_path / "m", new=True)


def test_extra_fields_of_a_members_own_header_are_passed_over(tmp_path: Path) -> None:
    value = {"w": tensor(floats(10), 0, (10,), (1,), False, OrderedDict())}
    file = write(tmp_path / "m", value, {"0": TEN}, new=True)
    with zipfile.ZipFile(file) as opened:
        info = opened.getinfo("m/data/0")
    content = bytearray(file.read_bytes())
    # Part of the content becomes an extra field that is in the member's own header alone.
    content[info.header_offset + 28] = 8
    for place in (info.header_offset + 18, info.header_offset + 22):
        content[place : place + 4] = struct.pack("<I", 32)
    listed = content.rindex(b"m/data/0") - 46
    for place in (listed + 20, listed + 24):
        content[place : place + 4] = struct.pack("<I", 32)
    file.write_bytes(content)
    change(file, b"K\x0a", b"K\x08")
    assert read_torch(file)["w"].tolist() == [2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_zips_are_refused(tmp_path: Path, zipped: Path, method: int) -> None:
    with zipfile.ZipFile(zipped) as old, zipfile.ZipFile(tmp_path / "c", "w", method) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(CheckpointError, match="/c: 'm/data.pkl' is compressed; expected members"):
        read_torch(tmp_path / "c")


def test_encrypted_zips_are_refused(zipped: Path) -> None:
    content = bytearray(zipped.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    zipped.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"/m: 'm/data.pkl' is encrypted"):
        read_torch(zipped)


def test_members_may_not_overlap(tmp_path: Path) -> None:
    file = write(tmp_path / "m", {}, {"0": TEN, "1": TEN}, new=True)
    content = bytearray(file.read_bytes())
    first, second = (content.rindex(name) - 4 for name in (b"m/data/0", b"m/data/1"))
    content[second : second + 4] = content[first : first + 4]
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="'m/data/1' overlaps another member"):
        read_torch(file)
    content[second : second + 4] = struct.pack("<I", 60)
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="overlaps another|is not where the list"):
        read_torch(file)


def test_members_may_not_reach_into_the_list(tmp_path: Path) -> None:
    file = write(tmp_path / "m", {}, {"0": TEN}, new=True)
    content = bytearray(file.read_bytes())
    listed = content.rindex(b"m/data/0") - 46
    content[listed + 20 : listed + 28] = struct.pack("<2I", 41, 41)
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="'m/data/0' overlaps the list of members"):
        read_torch(file)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"m/data/0", b"m/data/1", "storage '0' takes 12 bytes, there are none"),
        (b"m/data.pkl", b"m/data.pk_", "is a zip with 0 data.pkl"),
        (b"m/version", b"m/data/0\0", "is there twice"),
        (b"little", b"bigbig", "byte order"),
        (b"PK\x05\x06", b"PK\x05\x07", "cut or broken .File is not a zip file"),
    ],
)
def test_odd_zips(zipped: Path, old: bytes, new: bytes, reason: str) -> None:
    change(zipped, old, new)
    with pytest.raises(CheckpointError, match=f"/m.*({reason})"):
        read_torch(zipped)


def test_several_pickles_in_a_zip_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m", "w") as file:
        for name in ("a/data.pkl", "b/data.pkl", "a/b/data.pkl"):
            file.writestr(name, pickle.dumps({}))
    with pytest.raises(CheckpointError, match="/m: is a zip with 2 data.pkl; expected one"):
        read_torch(tmp_path / "m")


def test_a_zip_with_an_endless_list_is_refused(tmp_path: Path) -> None:
    size = 100 * 2**20
    with (tmp_path / "m").open("wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(size)
        file.seek(size)
        file.write(struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 9, 9, size - 4, 4, 0))
    with pytest.raises(CheckpointError, match="a list of members of 104,857,596 bytes"):
        read_torch(tmp_path / "m")
