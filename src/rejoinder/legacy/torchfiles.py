"""What torch.save wrote, in its two formats, as plain data and tensors; nothing in it is run.

    zip      since torch 1.6: NAME/data.pkl, and the numbers of storage K in NAME/data/K, unpacked
    legacy   before: pickles of a magic number, protocol, machine, the object and the storages'
             keys, and then for each storage how many numbers (8 bytes) and the numbers

In both the object is a pickle in which a storage is an outside object, and a tensor a call of
`_rebuild_tensor_v2` with a storage, an offset, sizes and strides. These are held against the
storage before a tensor is made. The tensors lie over a map of the file, so that nothing is copied
and only what is used is read; writing to one changes no file. The file must stay as it is as long
as they live. A parameter becomes a tensor that wants no gradient.
"""

from __future__ import annotations

import math
import mmap
import struct
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rejoinder.errors import CheckpointError
from rejoinder.legacy.archives import open_zip
from rejoinder.legacy.names import TABLE, Known, Name
from rejoinder.legacy.pickles import read_pickle, read_pickle_at

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
ZIP_START = b"PK\x03\x04"  # of the whole and of each member
MOST_DIMENSIONS = 64  # torch has no loops over more
MOST_REPEATED = 2**24  # numbers in a tensor that shows the same ones again and again
MOST_PLAIN = 64 * 2**20  # bytes of a pickle without tensors; options take some 10,000
DTYPES: Mapping[str, torch.dtype] = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.CharStorage": torch.int8,
    "torch.ShortStorage": torch.int16,
    "torch.IntStorage": torch.int32,
    "torch.LongStorage": torch.int64,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
# What other files begin with, and what to say of them.
FOREIGN: Mapping[bytes, str] = {
    b"version https://git-lfs": "is a pointer of Git LFS, not the file; fetch it: git lfs pull",
    b"\x1f\x8b": "is packed by gzip; unpack it first",
    b"BZh": "is packed by bzip2; unpack it first",
    b"\xfd7zXZ": "is packed by xz; unpack it first",
    b"\x89HDF": "is HDF5, as TensorFlow and Keras write it; take the model for PyTorch",
    b"PK": "is an empty or split zip; fetch it again",
    b"\x80": "is a pickle, but none of torch.save; take the file of the weights",
    b"{": "is JSON; take the file of the weights",
}


def read_torch(path: Path) -> Any:
    """What torch.save wrote to a file: dicts, lists, numbers, texts, and tensors over its map.

    Raises CheckpointError if it is another file, cut or broken, or holds more than that.
    """
    data = _mapped(path)
    view = memoryview(data)
    head = bytes(view[:512])
    if head.startswith(ZIP_START):
        return _read_zip(path, data)
    try:
        magic, after = read_pickle_at(view[:64], str(path), 0)
    except CheckpointError:
        magic, after = None, 0
    if magic == MAGIC:
        return _read_legacy(path, data, after)
    raise CheckpointError(
        f"{path}: {_foreign(head)}. Expected a file that torch.save wrote, as pytorch_model.bin"
    )


def read_plain_pickle(path: Path) -> Any:
    """A pickle without tensors, such as the options of old models.

    Raises CheckpointError if it is another file, cut or broken, or holds more than plain data.
    """
    data = _mapped(path)
    if len(data) > MOST_PLAIN:
        raise CheckpointError(
            f"{path}: has {len(data):,} bytes; expected a pickle of options, of {MOST_PLAIN:,} at "
            "most. Is it the file of the weights?"
        )
    return read_pickle(memoryview(data), str(path))


def _mapped(path: Path) -> mmap.mmap:
    """The file as memory; changes to it are kept in memory, since torch wants what it may change.

    Raises CheckpointError if it cannot be read or is empty.
    """
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except ValueError:
        raise CheckpointError(f"{path}: is empty; fetch it again") from None
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror or error}); expected the file of a model"
        ) from error


def _foreign(head: bytes) -> str:
    """What a file is that is none of ours."""
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<")):
        return "is a web page; its address may be gone, or asks for a login"
    if head[8:10] in (b'{"', b"{}", b"{ "):
        return "is safetensors; read it with safetensors.torch.load_file"
    if head[257:262] == b"ustar":
        return (
            "is a tar archive; unpack it first. If it is itself a model (of torch before 0.2), "
            "load it with an old torch and save it again"
        )
    said = next((FOREIGN[start] for start in FOREIGN if head.startswith(start)), "")
    return said or f"begins with {head[:16]!r}, as none of torch's formats does"


@dataclass(frozen=True)
class Storage:
    """Numbers of one kind under a key, or a part of them."""

    key: str
    dtype: torch.dtype
    numel: int
    start: int = 0  # the first one, of those under the key


@dataclass(frozen=True)
class Place:
    """Bytes of the file."""

    start: int
    size: int


class _Storages:
    """The storages of a file, and tensors over them as the pickle asks for them."""

    def __init__(self, data: mmap.mmap, places: Mapping[str, Place] | None) -> None:
        self.data = data
        self.places = places  # by key; None while they are not known: then no tensor is made
        self.named: dict[str, Storage] = {}
        self.tensors: dict[str, Tensor] = {}

    def table(self) -> dict[str, Known]:
        """What names may do in such a file."""
        parameter = Known(_parameter, lambda made, state: None)
        return {
            **TABLE,
            **dict.fromkeys(DTYPES, Known()),
            "torch._utils._rebuild_parameter": Known(_parameter),
            "torch._utils._rebuild_parameter_with_state": Known(_parameter),
            "torch._utils._rebuild_tensor": Known(self.rebuild),
            "torch._utils._rebuild_tensor_v2": Known(self.rebuild),
            "torch.nn.parameter.Parameter": parameter,
        }

    def find(self, which: Any) -> Storage:
        """The storage of a persistent id; ValueError if it is none."""
        if not isinstance(which, tuple) or len(which) not in (5, 6) or which[0] != "storage":
            raise ValueError("an outside object that is no storage")
        kind, key, _, numel, *views = which[1:]
        if not isinstance(kind, Name) or str(kind) not in DTYPES:
            raise ValueError("a storage of no known kind")
        if not isinstance(key, str) or not _whole(numel):
            raise ValueError("a storage without key or size")
        found = Storage(key, DTYPES[str(kind)], numel)
        if self.named.setdefault(key, found) != found:
            raise ValueError(f"storage {key[:20]!a} of two kinds or sizes")
        return _part(found, views[0]) if views and views[0] is not None else found

    def rebuild(
        self, storage: Any, offset: Any, size: Any, stride: Any, *rest: Any
    ) -> Tensor | None:
        """A tensor of a storage; `rest` is (requires_grad, hooks, metadata), of which none is kept.

        ValueError if it would show what is not in the storage.
        """
        if not isinstance(storage, Storage) or not _whole(offset):
            raise ValueError("a tensor without a storage or offset")
        if not _wholes(size) or not _wholes(stride) or len(size) != len(stride):
            raise ValueError("a tensor without sizes and strides")
        if len(rest) > 2 and rest[2]:
            raise ValueError("a tensor that is negated or conjugated on reading")
        _check_inside(storage, offset, size, stride)
        if self.places is None:
            return None
        whole = self.whole(self.named[storage.key])
        if not math.prod(size):
            return torch.empty_strided(size, stride, dtype=storage.dtype)
        return whole.as_strided(size, stride, storage.start + offset)

    def whole(self, storage: Storage) -> Tensor:
        """All numbers under a key, (N,), without a copy; ValueError if the file has not as many."""
        if storage.key in self.tensors:
            return self.tensors[storage.key]
        place = (self.places or {}).get(storage.key)
        bytes_needed = storage.numel * storage.dtype.itemsize
        if place is None or place.size != bytes_needed:
            there = "none" if place is None else f"{place.size:,}"
            raise ValueError(
                f"storage {storage.key[:20]!a} takes {bytes_needed:,} bytes, there are {there}"
            )
        if not storage.numel:
            return torch.empty(0, dtype=storage.dtype)
        # Legacy storages begin at any byte; x86-64 and ARM64 read numbers from everywhere.
        found = torch.frombuffer(
            self.data, dtype=storage.dtype, count=storage.numel, offset=place.start
        )
        # As a mask any other bool would count as one number here and as another there.
        if storage.dtype == torch.bool and int(found.view(torch.uint8).max()) > 1:
            raise ValueError(f"storage {storage.key[:20]!a} has bools that are neither 0 nor 1")
        self.tensors[storage.key] = found
        return found


def _whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**48


def _wholes(values: Any) -> bool:
    if not isinstance(values, tuple) or len(values) > MOST_DIMENSIONS:
        return False
    return all(_whole(value) for value in values)


def _part(storage: Storage, view: Any) -> Storage:
    """What torch before 0.4 calls a view: (its key, first number, how many)."""
    if not isinstance(view, tuple) or len(view) != 3 or not _wholes(view[1:]):
        raise ValueError("a view of a storage that is no such thing")
    _, start, numel = view
    if start + numel > storage.numel:
        raise ValueError("a view that reaches out of its storage")
    return replace(storage, start=start, numel=numel)


def _check_inside(
    storage: Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    """ValueError if a tensor of this shape would reach out of its storage, or is a bomb."""
    numel = math.prod(size)
    if math.prod(max(one, 1) for one in size) > max(storage.numel, MOST_REPEATED):
        raise ValueError(f"a tensor of {numel:,} numbers over {storage.numel:,}")
    last = offset + sum((one - 1) * step for one, step in zip(size, stride, strict=True))
    if numel and last >= storage.numel:
        raise ValueError(f"a tensor that reaches to number {last:,} of {storage.numel:,}")


def _parameter(data: Any, *rest: Any) -> Any:
    """The tensor of a parameter."""
    if not isinstance(data, Tensor | None):
        raise ValueError("a parameter that is no tensor")
    return data


def _read_zip(path: Path, data: mmap.mmap) -> Any:
    view = memoryview(data)
    places = _zip_places(path, view)
    pickles = [name for name in places if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise CheckpointError(
            f"{path}: is a zip with {len(pickles)} data.pkl; expected one, as torch.save has it. "
            "If it is an archive of a whole model, unpack it first"
        )
    top = pickles[0].removesuffix("data.pkl")
    order = places.get(f"{top}byteorder", Place(0, 0))
    _check_order(path, bytes(view[order.start :][: min(order.size, 20)]) in (b"", b"little"))
    numbers = f"{top}data/"
    storages = _Storages(
        data,
        {name.removeprefix(numbers): p for name, p in places.items() if name.startswith(numbers)},
    )
    pickle = places[pickles[0]]
    return read_pickle(
        view[pickle.start :][: pickle.size],
        f"{path}: {pickles[0]}",
        persistent=storages.find,
        table=storages.table(),
    )


def _zip_places(path: Path, view: memoryview) -> dict[str, Place]:
    """Where the content of each member begins; CheckpointError if they are not as torch has them.

    zipfile knows where a member's own header begins, but not how long that is: the one in the list
    at the end may have a name or extra fields of another length.
    """
    places: dict[str, Place] = {}
    free = 0  # the first byte behind all members so far
    with open_zip(path) as opened:
        for info in sorted(opened.infolist(), key=lambda info: info.header_offset):
            name, at = info.filename, info.header_offset
            if info.flag_bits & 0x2041:
                raise _odd(path, name, "is encrypted")
            if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
                raise _odd(path, name, "is compressed")
            if name in places:
                raise _odd(path, name, "is there twice")
            if at < free or at + 30 > opened.start_dir:
                raise _odd(path, name, "overlaps another member")
            if bytes(view[at : at + 4]) != ZIP_START:
                raise _odd(path, name, "is not where the list of members says")
            start = at + 30 + sum(struct.unpack("<2H", view[at + 26 : at + 30]))
            free = start + info.file_size
            if free > opened.start_dir:
                raise _odd(path, name, "overlaps the list of members")
            places[name] = Place(start, info.file_size)
    return places


def _odd(path: Path, name: str, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: {name[:100]!a} {reason}; expected members as torch.save writes them, one after "
        "the other and as they are. Fetch the file again, from where it came first"
    )


def _read_legacy(path: Path, data: mmap.mmap, at: int) -> Any:
    """The object is read twice: where storages are can be told only by what is behind it."""
    view, where = memoryview(data), str(path)
    protocol, at = read_pickle_at(view, where, at)
    machine, at = read_pickle_at(view, where, at)
    if protocol != PROTOCOL or not isinstance(machine, dict):
        raise CheckpointError(
            f"{path}: is of another protocol than {PROTOCOL}; load it with the torch that wrote "
            "it, and save it again"
        )
    _check_order(path, machine.get("little_endian", True) is True)
    storages = _Storages(data, None)
    read = partial(
        read_pickle_at, view, where, at, persistent=storages.find, table=storages.table()
    )
    _, after = read()
    keys, after = read_pickle_at(view, where, after)
    storages.places = _legacy_places(path, view, storages.named, keys, after)
    return read()[0]


def _legacy_places(
    path: Path, view: memoryview, named: Mapping[str, Storage], keys: Any, at: int
) -> dict[str, Place]:
    """Where each storage begins; CheckpointError if they are not those that the object names."""
    places: dict[str, Place] = {}
    reason = ""
    texts = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if not texts or sorted(keys) != sorted(named):
        reason, keys = "its list of storages is not the one of its tensors", []
    for key in keys:
        size = named[key].numel * named[key].dtype.itemsize
        if at + 8 + size > len(view):
            reason = f"it ends at byte {len(view):,}, storage {key[:20]!a} at {at + 8 + size:,}"
            break
        (numel,) = struct.unpack("<q", view[at : at + 8])
        if numel != named[key].numel:
            reason = f"storage {key[:20]!a} has {numel:,} numbers, not {named[key].numel:,}"
            break
        places[key] = Place(at + 8, size)
        at += 8 + size
    if reason:
        raise CheckpointError(f"{path}: is cut or broken ({reason}); fetch it again")
    return places


def _check_order(path: Path, little: bool) -> None:
    if not little or sys.byteorder != "little":
        raise CheckpointError(
            f"{path}: has its numbers in another byte order than this machine; load it with torch "
            "where it was written, and save it as safetensors"
        )
