"""What torch.save wrote is what is read, in both formats; no tensor shows what is not its own."""

from __future__ import annotations

import argparse
import os
import pickle
import resource
import struct
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor, nn

from rejoinder.errors import CheckpointError
from rejoinder.legacy.names import Name
from rejoinder.legacy.torchfiles import DTYPES, MAGIC, read_plain_pickle, read_torch

from .broken import CHANCES, Payload, broken, fires
from .handmade import TEN, Call, Outside, dumped, floats, save, tensor, write

FORMATS = pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])


def assert_same(found: Any, expected: Any) -> None:
    if isinstance(expected, Tensor):
        assert type(found) is Tensor
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert not expected.numel() or found.stride() == expected.stride()
        assert (
            found.contiguous().view(-1).numpy(force=True).tobytes()
            == (expected.detach().contiguous().view(-1).numpy().tobytes())
            if expected.dtype != torch.bfloat16
            else torch.equal(found, expected)
        )
    elif isinstance(expected, dict):
        assert type(found) is dict
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert found == expected


# Laws


@FORMATS
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_every_dtype_and_layout(tmp_path: Path, dtype: torch.dtype, new: bool) -> None:
    torch.manual_seed(0)
    whole = torch.randint(0, 100, (5, 6, 7)).to(dtype)
    value = {
        "whole": whole,
        "turned": whole.permute(2, 0, 1),
        "steps": whole[1:, ::2, 3],
        "scalar": whole[1, 1, 1],
        "empty": whole[:0],
        "none": torch.empty(0, 3, dtype=dtype),
        "expanded": whole[0, 0, :1].expand(4, 1000, 1),
        "last": whole[-1, -1, -1:],
    }
    file = save(value, tmp_path / "m", new=new)
    found = read_torch(file)
    assert_same(found, value)
    assert_same(found, torch.load(file, weights_only=True))


@FORMATS
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_checkpoint_with_everything(tmp_path: Path, new: bool, protocol: int) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(5, 4), nn.LayerNorm(4), nn.Linear(4, 3))
    moments = {"step": torch.tensor(1.0), "exp_avg": torch.randn(5, 4)}
    optimizer = {"state": {0: moments}, "param_groups": [{"params": [0], "betas": (0.9, 0.999)}]}
    value = {
        "model": module.state_dict(),
        "optimizer": optimizer,
        "parameter": module[0].weight,
        "nothing": OrderedDict(),
        "history": [1, 2.5, "é", None, True, (b"bytes", {3})],
        "size": module[0].weight.shape,
        "generator": torch.get_rng_state(),
    }
    odd = {"dtype": torch.float16, "device": torch.device("cuda", 1)}
    file = save({**value, **odd}, tmp_path / "m", new=new, protocol=protocol)
    found = read_torch(file)
    assert found.pop("dtype") == Name("torch", "float16")
    assert found.pop("device") == "cuda:1"
    assert_same(found, value)
    assert not found["parameter"].requires_grad


@FORMATS
def test_shared_numbers_stay_shared(tmp_path: Path, new: bool) -> None:
    table = torch.randn(6, 4)
    found = read_torch(save([table, table.t(), table[2:]], tmp_path / "m", new=new))
    found[0][2, 3] = 7.0
    assert found[1][3, 2] == found[2][0, 3] == 7.0


@FORMATS
def test_nothing_is_changed_by_writing_to_a_tensor(tmp_path: Path, new: bool) -> None:
    file = save(torch.zeros(100), tmp_path / "m", new=new)
    before = file.read_bytes()
    read_torch(file).fill_(1.0)
    assert file.read_bytes() == before
    assert read_torch(file).sum() == 0


@FORMATS
def test_numbers_at_any_byte_can_be_calculated_with(tmp_path: Path, new: bool) -> None:
    torch.manual_seed(0)
    left, right = torch.randn(33, 65), torch.randn(65, 17).double()
    for pad in range(4):
        value = {"a" * pad: 0, "left": left, "right": right}
        found = read_torch(save(value, tmp_path / "m", new=new))
        assert torch.equal(found["left"] @ found["right"].float(), left @ right.float())
        assert torch.equal(found["left"].softmax(-1).sum(0), left.softmax(-1).sum(0))


# Files by hand: what torch.save would never write


@FORMATS
def test_a_file_by_hand_is_read(tmp_path: Path, new: bool) -> None:
    value = [tensor(floats(10), 1, (3, 3), (3, 1), False, OrderedDict()), ("a", 1)]
    found = read_torch(write(tmp_path / "m", value, {"0": TEN}, new=new))
    assert found[0].tolist() == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]
    if not new:  # torch wants more members in a zip than it needs
        assert_same(found, torch.load(tmp_path / "m", weights_only=True))


def test_tensors_of_the_oldest_files(tmp_path: Path) -> None:
    whole = ("storage", torch.FloatStorage, "0", "cpu", 10)
    plain = Call(torch._utils._rebuild_tensor, floats(10), 0, (2,), (1,))
    viewed = tensor(Outside((*whole, ("7", 4, 3))), 1, (2,), (1,), False, None)
    parameter = Call(nn.Parameter, viewed)
    rebuilt = Call(torch._utils._rebuild_parameter, plain, True, OrderedDict())
    value = [plain, viewed, parameter, rebuilt, tensor(Outside((*whole, None)), 9, (), ())]
    found = read_torch(write(tmp_path / "m", value, {"0": TEN}, new=False))
    assert [one.tolist() for one in found] == [[0.0, 1.0], [5.0, 6.0], [5.0, 6.0], [0.0, 1.0], 9.0]


LARGE = 2**40
WRONG: dict[str, tuple[Any, str]] = {
    "behind": (tensor(floats(10), 0, (11,), (1,)), "reaches to number 10 of 10"),
    "offset": (tensor(floats(10), 10, (1,), (1,)), "reaches to number 10 of 10"),
    "stride": (tensor(floats(10), 0, (2,), (10,)), "reaches to number 10 of 10"),
    "scalar": (tensor(floats(10), 10, (), ()), "reaches to number 10 of 10"),
    "sum": (tensor(floats(10), 3, (2, 2), (4, 3)), "reaches to number 10 of 10"),
    "far": (tensor(floats(10), LARGE, (1,), (1,)), "reaches to number 1,099,511,627,776"),
    "before": (tensor(floats(10), -1, (1,), (1,)), "without a storage or offset"),
    "backwards": (tensor(floats(10), 9, (10,), (-1,)), "without sizes and strides"),
    "negative": (tensor(floats(10), 0, (-1,), (1,)), "without sizes and strides"),
    "overflow": (tensor(floats(10), 0, (2,), (2**63,)), "without sizes and strides"),
    "overflowing": (tensor(floats(10), 0, (2**32, 2**32), (0, 0)), "over 10"),
    "bomb": (tensor(floats(10), 0, (LARGE,), (0,)), "a tensor of 1,099,511,627,776 numbers"),
    "empty-bomb": (tensor(floats(10), 0, (0, LARGE), (1, 1)), "a tensor of 0 numbers"),
    "lengths": (tensor(floats(10), 0, (2, 2), (1,)), "without sizes and strides"),
    "dimensions": (tensor(floats(10), 0, (1,) * 65, (1,) * 65), "without sizes and strides"),
    "float": (tensor(floats(10), 0.0, (2,), (1,)), "without a storage or offset"),
    "bool": (tensor(floats(10), 0, (True,), (1,)), "without sizes and strides"),
    "list": (tensor(floats(10), 0, [2], [1]), "without sizes and strides"),
    "text": (tensor("0", 0, (2,), (1,)), "without a storage or offset"),
    "nothing": (tensor(None, 0, (2,), (1,)), "without a storage or offset"),
    "conjugated": (tensor(floats(10), 0, (2,), (1,), False, {}, {"neg": True}), "negated"),
    "size": ([tensor(floats(9), 0, (2,), (1,))], "takes 36 bytes|has 10 numbers, not 9"),
    "key": ([tensor(floats(10, "1"), 0, (2,), (1,))], "there are none|list of storages"),
    "kinds": ([floats(10), floats(10, kind=torch.IntStorage)], "of two kinds or sizes"),
    "sizes": ([floats(10), floats(9)], "of two kinds or sizes"),
    "minus": (floats(-1), "without key or size"),
    "dtype": (floats(10, kind=torch.float32), "of no known kind"),
    "complex": (floats(10, kind=torch.ComplexFloatStorage), "holds torch.ComplexFloatStorage"),
    "untyped": (floats(10, kind=torch.UntypedStorage), "holds torch.storage.UntypedStorage"),
    "module": (Outside(("module", nn.Linear, "a.py", "")), "holds torch.nn.modules.linear.Linear"),
    "other": (Outside(("module", 1, 2, 3, 4)), "no storage"),
    "short": (Outside(("storage",)), "no storage"),
    "view": (Outside((*floats(10)[:-1], ("1", 8, 3))), "out of its storage"),
    "view-text": (Outside((*floats(10)[:-1], "abc")), "no such thing"),
    "parameter": (Call(nn.Parameter, [1.0]), "a parameter that is no tensor"),
    "sparse": (Call(torch._utils._rebuild_sparse_tensor, 1), "_rebuild_sparse_tensor, which"),
    "bytes": (Call(torch.storage._load_from_bytes, b"x"), "torch.storage._load_from_bytes, which"),
}


@FORMATS
@pytest.mark.parametrize("which", WRONG)
def test_what_is_not_in_the_file_is_never_shown(tmp_path: Path, which: str, new: bool) -> None:
    value, reason = WRONG[which]
    file = write(tmp_path / "m", value, {"0": TEN}, new=new)
    with pytest.raises(CheckpointError, match=f"^{file}.*({reason})"):
        read_torch(file)


@FORMATS
def test_bools_are_0_or_1(tmp_path: Path, new: bool) -> None:
    value = tensor(floats(4, kind=torch.BoolStorage), 0, (4,), (1,), False, OrderedDict())
    file = tmp_path / "m"
    write(file, value, {"0": b"\0\1\1\2"}, new=new)
    if not new:  # the helper counts in floats
        file.write_bytes(file.read_bytes()[:-12] + struct.pack("<q", 4) + b"\0\1\1\2")
    with pytest.raises(CheckpointError, match="bools that are neither 0 nor 1"):
        read_torch(file)
    file.write_bytes(file.read_bytes().replace(b"\0\1\1\2", b"\0\1\1\0"))
    assert read_torch(file).tolist() == [False, True, True, False]


@FORMATS
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_payload_is_named_and_not_run(tmp_path: Path, new: bool, protocol: int) -> None:
    mark = tmp_path / "ran"
    value = {"model": {"w": torch.zeros(3)}, "optimizer": Payload(mark)}
    file = save(value, tmp_path / "m", new=new, protocol=protocol)
    torch.load(file, weights_only=False)
    assert mark.exists()
    mark.unlink()
    with pytest.raises(CheckpointError, match=r"/m.* holds posix\.system, which is no part of a"):
        read_torch(file)
    assert not mark.exists()


@pytest.mark.parametrize("place", range(4))
def test_no_part_of_a_legacy_file_is_run(tmp_path: Path, place: int) -> None:
    mark = tmp_path / "ran"
    parts: list[Any] = [MAGIC, 1001, {"little_endian": True}, {}, []]
    attack = pickle.dumps(Payload(mark), 2)
    assert fires(attack, mark)
    pieces = [dumped(part) for part in parts]
    pieces[place + 1] = attack
    (tmp_path / "m").write_bytes(b"".join(pieces))
    with pytest.raises(CheckpointError, match="holds posix.system"):
        read_torch(tmp_path / "m")
    assert not mark.exists()


# Legacy files


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([MAGIC, 1000, {}, 0, []], "another protocol than 1001"),
        ([MAGIC, 1001, "linux", 0, []], "another protocol than 1001"),
        ([MAGIC, 1001, {"little_endian": False}, 0, []], "byte order"),
        ([MAGIC, 1001, {}, 0, ["0"]], "list of storages"),
        ([MAGIC, 1001, {}, 0, {}], "list of storages"),
        ([MAGIC, 1001, {}, floats(10), []], "list of storages"),
        ([MAGIC, 1001, {}, floats(10), [b"0"]], "list of storages"),
        ([MAGIC, 1001, {}, floats(10), ["0", "0"]], "list of storages"),
        ([MAGIC, 1001, {}, floats(10), ["0"]], "it ends at byte"),
        ([MAGIC, 1001, {}, 0], "exhausted before seeing STOP"),
        ([MAGIC], "exhausted before seeing STOP"),
    ],
)
def test_odd_legacy_files(tmp_path: Path, parts: list[Any], reason: str) -> None:
    (tmp_path / "m").write_bytes(b"".join(map(dumped, parts)))
    with pytest.raises(CheckpointError, match=f"/m: .*{reason}"):
        read_torch(tmp_path / "m")


def test_a_large_file_is_neither_read_nor_copied(tmp_path: Path) -> None:
    numel = 2**28
    value = {"w": tensor(floats(numel), 0, (2**14, 2**14), (2**14, 1), False, OrderedDict())}
    parts = [MAGIC, 1001, {"little_endian": True}, value, ["0"]]
    with (tmp_path / "m").open("wb") as file:
        file.write(b"".join(map(dumped, parts)) + struct.pack("<q", numel))
        file.truncate(file.tell() + 4 * numel)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    found = read_torch(tmp_path / "m")["w"]
    assert time.perf_counter() - start < 2
    assert found.shape == (2**14, 2**14)
    assert found[-1].sum() == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB
    os.truncate(tmp_path / "m", 4 * numel)
    with pytest.raises(CheckpointError, match="is cut or broken .it ends at byte 1,073,741,824"):
        read_torch(tmp_path / "m")


# Other files


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty; fetch it again"),
        (b"<!DOCTYPE html><html>404</html>", "is a web page"),
        (b"\n <HTML>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\x1f\x8b\x08\0", "is packed by gzip; unpack it first"),
        (b"BZh91AY", "is packed by bzip2"),
        (b"\xfd7zXZ\0", "is packed by xz"),
        (b"\x10\0\0\0\0\0\0\0" + b'{"a":{}}        ', "is safetensors"),
        (b"a".ljust(257, b"\0") + b"ustar\x0000", "is a tar archive"),
        (b"\x89HDF\r\n", "is HDF5"),
        (b"PK\x05\x06" + bytes(18), "an empty or split zip"),
        (pickle.dumps({"a": 1}, 2), "is a pickle, but none of torch.save"),
        (pickle.dumps(["x" * 100], 4), "is a pickle, but none of torch.save"),
        (b'{"a": 1}', "is JSON"),
        (b"GGUF\x03\0", r"begins with b'GGUF\\x03\\x00', as none of torch's formats"),
    ],
)
def test_other_files_are_told_apart(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(CheckpointError, match=f"/m: .*{reason}"):
        read_torch(tmp_path / "m")


@pytest.mark.parametrize("read", [read_torch, read_plain_pickle])
def test_files_that_are_not_there(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    with pytest.raises(CheckpointError, match=r"/none: cannot be read \(No such file"):
        read(tmp_path / "none")
    with pytest.raises(CheckpointError, match=r"cannot be read \(Is a directory\); expected"):
        read(tmp_path)


def test_plain_pickles(tmp_path: Path) -> None:
    file = tmp_path / "model.opt"
    options = {"model": "transformer/biencoder", "lr": 5e-5, "more": argparse.Namespace(a=[1])}
    file.write_bytes(pickle.dumps(options))
    assert read_plain_pickle(file) == {**options, "more": {"a": [1]}}
    file.write_bytes(pickle.dumps({"w": torch.zeros(2)}))
    with pytest.raises(CheckpointError, match=r"model.opt: holds torch._utils._rebuild_tensor_v2"):
        read_plain_pickle(file)
    os.truncate(file, 65 * 2**20)
    with pytest.raises(CheckpointError, match="model.opt: has 68,157,440 bytes; expected a pickle"):
        read_plain_pickle(file)


# Broken files


EVERYTHING = {
    "model": OrderedDict(a=torch.arange(6.0).view(2, 3), b=torch.tensor([True, False])),
    "half": torch.ones(3).half(),
    "step": 1,
    "size": torch.Size([2, 3]),
}


def total(value: Any) -> float:
    """Touch every number."""
    if isinstance(value, Tensor):
        return float(value.double().sum())
    if isinstance(value, dict):
        value = list(value.values())
    return sum(map(total, value)) if isinstance(value, list | tuple | set) else 0.0


def survives(content: bytes, file: Path) -> None:
    file.unlink(missing_ok=True)  # never written over while it is mapped
    file.write_bytes(content)
    with suppress(CheckpointError):
        total(read_torch(file))


@FORMATS
def test_a_cut_file_is_an_error(tmp_path: Path, new: bool) -> None:
    whole = save(EVERYTHING, tmp_path / "whole", new=new).read_bytes()
    for end in range(0, len(whole), 7):
        (tmp_path / "m").unlink(missing_ok=True)
        (tmp_path / "m").write_bytes(whole[:end])
        with pytest.raises(CheckpointError, match="/m: "):
            read_torch(tmp_path / "m")


@FORMATS
@given(chance=CHANCES)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_broken_file_is_an_error_or_a_value(tmp_path: Path, new: bool, chance: Random) -> None:
    whole = save(EVERYTHING, tmp_path / "whole", new=new).read_bytes()
    survives(broken(whole, chance), tmp_path / "m")


@FORMATS
@pytest.mark.slow
def test_many_broken_files(tmp_path: Path, new: bool) -> None:
    whole = save(EVERYTHING, tmp_path / "whole", new=new).read_bytes()
    chance = Random(0)
    for _ in range(5000):
        survives(broken(whole, chance), tmp_path / "m")
