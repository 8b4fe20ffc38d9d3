"""Files as torch.save writes them, and as it never would: made piece by piece."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from rejoinder.legacy.torchfiles import MAGIC


def save(value: Any, path: Path, *, new: bool, protocol: int = 2) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=new, pickle_protocol=protocol)
    return path


class Call:
    """Pickled as a call of a function with arguments."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.content = (function, arguments)

    def __reduce__(self) -> Any:
        return self.content


class Outside(tuple[Any, ...]):
    """Pickled as a persistent id."""


class _Pickler(pickle.Pickler):
    def persistent_id(self, thing: Any) -> Any:
        return tuple(thing) if type(thing) is Outside else None


def dumped(value: Any) -> bytes:
    stream = BytesIO()
    _Pickler(stream, 2).dump(value)
    return stream.getvalue()


def floats(count: int, key: str = "0", kind: Any = torch.FloatStorage) -> Outside:
    return Outside(("storage", kind, key, "cpu", count, None))


def tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Call:
    return Call(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, *rest)


def write(path: Path, value: Any, storages: Mapping[str, bytes], *, new: bool) -> Path:
    """A file of either format whose object and storages (of floats) are as they are given."""
    if new:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("m/data.pkl", dumped(value))
            for key, content in storages.items():
                file.writestr(f"m/data/{key}", content)
        return path
    parts = [dumped(one) for one in (MAGIC, 1001, {"little_endian": True}, value, list(storages))]
    for content in storages.values():
        parts += [struct.pack("<q", len(content) // 4), content]
    path.write_bytes(b"".join(parts))
    return path


TEN = struct.pack("<10f", *range(10))
