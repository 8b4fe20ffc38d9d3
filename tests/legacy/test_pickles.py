"""A pickle is read as data: the same values as Python's own reader gives, and nothing is run."""

from __future__ import annotations

import argparse
import copyreg
import math
import pickle
import pickletools
import struct
import sys
import time
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rejoinder.errors import CheckpointError
from rejoinder.legacy import pickles
from rejoinder.legacy.names import TABLE, Known, Name, Unread
from rejoinder.legacy.pickles import read_pickle, read_pickle_at

from .broken import CHANCES, Payload, broken, fires

PROTOCOLS = range(6)
FLAT = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text(st.characters(), max_size=8)
    | st.binary(max_size=8)
)
KEYS = FLAT | st.tuples(FLAT, FLAT) | st.frozensets(FLAT, max_size=3)
VALUES = st.recursive(
    FLAT | st.sets(KEYS, max_size=3) | st.frozensets(KEYS, max_size=3),
    lambda parts: (
        st.lists(parts, max_size=5)
        | st.lists(parts, max_size=5).map(tuple)
        | st.dictionaries(KEYS, parts, max_size=5)
        | st.binary(max_size=5).map(bytearray)
    ),
    max_leaves=20,
)


def spelled(value: Any) -> str:
    """Value and types of all that is in it, but for the order of sets."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{spelled(k)}: {spelled(v)}' for k, v in value.items())}}}"
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__}{sorted(map(spelled, value))}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}[{', '.join(map(spelled, value))}]"
    return repr(value)


@given(VALUES, st.sampled_from(PROTOCOLS))
@settings(max_examples=60)
def test_plain_values_are_read_as_python_reads_them(value: Any, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    assert spelled(read_pickle(data, "here")) == spelled(pickle.loads(data)) == spelled(value)
    short = pickletools.optimize(data)
    assert spelled(read_pickle(memoryview(short), "here")) == spelled(value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "value",
    [
        *(list(range(3000)), dict.fromkeys(range(3000)), set(range(3000)), "a" * 70_000),
        *(
            b"\xff" * 70_000,
            bytearray(range(256)) * 300,
            "\ud800 \n \\ \0 é 😀",
            2**8000,
            -(2**8000),
        ),
        *(math.inf, -0.0, 5e-324, True, [True, 1, 0, False], (), ((),), frozenset()),
    ],
    ids=lambda value: f"{type(value).__name__}-{str(value)[:8]!a}",
)
def test_long_and_odd_values(value: Any, protocol: int) -> None:
    assert spelled(read_pickle(pickle.dumps(value, protocol), "here")) == spelled(value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_containers_of_the_library_become_plain_ones(protocol: int) -> None:
    weights: OrderedDict[str, Any] = OrderedDict(a=1, b=[2])
    weights._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    counts: defaultdict[str, Any] = defaultdict(list, {"x": [1]})
    options = argparse.Namespace(lr=0.1, layers=[1, 2], inner=argparse.Namespace(deep=(3,)))
    value = [weights, counts, Counter("aab"), options, OrderedDict, math.nan]
    found = read_pickle(pickle.dumps(value, protocol), "here")
    assert list(map(type, found[:4])) == [dict] * 4
    assert found[:4] == [
        {"a": 1, "b": [2]},
        {"x": [1]},
        {"a": 2, "b": 1},
        {"lr": 0.1, "layers": [1, 2], "inner": {"deep": (3,)}},
    ]
    assert found[4] == Name("collections", "OrderedDict")
    assert math.isnan(found[5])


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> Callable[..., type]:
    """Make a class of another program: `other("apex.amp.scaler", "Scaler", dict)`."""

    def make(module: str, name: str, *bases: type, **content: Any) -> type:
        parts = module.split(".")
        for end in range(1, len(parts) + 1):
            whole = ".".join(parts[:end])
            monkeypatch.setitem(sys.modules, whole, ModuleType(whole))
        made = type(name, bases, {"__module__": module, **content})
        monkeypatch.setattr(sys.modules[module], name, made, raising=False)
        return made

    return make


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("module", ["parlai.core.opt", "parlai.core.utils", "parlai.utils.misc"])
def test_options_of_parlai_are_a_dict(
    other: Callable[..., type], module: str, protocol: int
) -> None:
    plain = other(module, "Opt", dict)
    opt = plain({"model": "transformer/polyencoder", "n_heads": 12})
    opt.history = [("n_heads", 12, "<file>")]
    assert read_pickle(pickle.dumps(opt, protocol), "here") == dict(opt)

    def reduce(self: Any) -> Any:  # as ParlAI 2020 writes it
        return type(self), (), ([("n_heads", 12, "<file>")], [], dict(self))

    reduced = other(module, "Opt", dict, __reduce__=reduce)
    found = read_pickle(pickle.dumps([reduced(opt), reduced()], protocol), "here")
    assert found == [dict(opt), {}]
    assert type(found[0]) is dict


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_objects_of_other_programs_are_left_unread(
    other: Callable[..., type], protocol: int
) -> None:
    scaler = other("apex.amp.scaler", "LossScaler")()
    scaler.state = {"scale": [65536.0]}
    metric = other("parlai.core.metrics", "Average", dict)(numerator=1)
    history = other("fairseq.meters", "History", list)([1, 2])
    value = {"model": {"a": 1}, "scaler": scaler, "best": metric, "class": type(scaler)}
    found = read_pickle(pickle.dumps({**value, "seen": history}, protocol), "here")
    assert found == {
        "model": {"a": 1},
        "scaler": Unread("apex.amp.scaler.LossScaler"),
        "best": Unread("parlai.core.metrics.Average"),
        "class": Unread("apex.amp.scaler.LossScaler"),
        "seen": Unread("fairseq.meters.History"),
    }


def test_what_is_shared_stays_one() -> None:
    shared = [1]
    found = read_pickle(pickle.dumps([shared, (shared, {"a": shared})]), "here")
    assert found[0] is found[1][0] is found[1][1]["a"]


def test_texts_of_python_2() -> None:
    assert read_pickle(
        b"\x80\x02]q\x00(U\x03abcq\x01U\x02\xc3\xa9T\x01\x00\x00\x00\xffe.", "x"
    ) == [*("abc", "é", "ÿ")]
    assert read_pickle(b"(dp0\nS'a b'\np1\nI01\nsS'it\\'s'\nL12L\ns.", "x") == {
        "a b": True,
        "it's": 12,
    }


def test_pickles_one_after_the_other() -> None:
    data = b"??" + pickle.dumps([1], 2) + pickle.dumps("b", 4) + b"rest"
    one, at = read_pickle_at(data, "here", 2)
    two, end = read_pickle_at(data, "here", at)
    assert (one, two, data[end:]) == ([1], "b", b"rest")


def test_outside_objects_come_from_the_caller() -> None:
    data = b"\x80\x02\x8c\x03keyQPother\n\x86."
    assert read_pickle(data, "here", persistent=str.upper) == ("KEY", "OTHER")
    with pytest.raises(CheckpointError, match="here: cannot be read near byte 8 .*outside of it"):
        read_pickle(data, "here")


def test_the_table_is_the_callers() -> None:
    data = pickle.dumps(math.isqrt, 2)[:-1] + b"K\x09\x85R."
    assert read_pickle(data, "here", table={"math.isqrt": Known(lambda n: n + 1)}) == 10
    with pytest.raises(CheckpointError, match=r"here: holds math\.isqrt, which is no part"):
        read_pickle(data, "here")
    with pytest.raises(CheckpointError, match="holds collections.OrderedDict"):
        read_pickle(pickle.dumps(OrderedDict()), "here", table={})


# Attacks


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_payload_is_named_and_not_run(tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "ran"
    attack = pickle.dumps({"model": {"a": 1}, "optimizer": Payload(mark)}, protocol)
    assert fires(attack, mark)
    with pytest.raises(CheckpointError) as caught:
        read_pickle(attack, "some/model")
    assert str(caught.value).startswith(
        "some/model: holds posix.system, which is no part of a model; nothing of it was run. "
    )
    assert not mark.exists()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def attacks(mark: Path) -> dict[str, bytes]:
    shell, code = text(f"touch '{mark}'"), text(f"open({str(mark)!r}, 'w').close()")
    system, evaluate = b"cos\nsystem\n", b"cbuiltins\neval\n"
    path = f"touch '{mark}'"
    return {
        "eval": evaluate + code + b"\x85R.",
        "exec": b"c__builtin__\nexec\n" + code + b"\x85R.",
        "getattr": b"cbuiltins\ngetattr\ncos\n" + b"path\n" + text("os") + b"\x86R.",
        "import": b"cbuiltins\n__import__\n" + text("os") + b"\x85R.",
        "stack": text("os") + text("system") + b"\x93" + shell + b"\x85R.",
        "computed": b"".join(
            [b"\x80\x04(", text("system"), b"\x94", text("os"), b"\x94", b"1h\x01h\x00\x93"]
        )
        + shell
        + b"\x85R.",
        "dotted": b"\x80\x04" + text("collections") + text("OrderedDict.fromkeys") + b"\x93)R.",
        "inner": b"\x80\x04" + text("os") + text("path.os.system") + b"\x93" + shell + b"\x85R.",
        "inst": f"(S{path!r}\nios\nsystem\n.".encode(),
        "obj": b"(" + system + shell + b"o.",
        "newobj": system + shell + b"\x85\x81.",
        "newobj_ex": system + shell + b"\x85}\x92.",
        "build": b"ccollections\nOrderedDict\n)R}"
        + text("__setstate__")
        + system
        + b"sb"
        + shell
        + b"b.",
        "build-name": b"ccollections\nOrderedDict\n}" + text("__new__") + evaluate + b"sb.",
        "state": b"cargparse\nNamespace\n)\x81}" + text("__class__") + evaluate + b"sb.",
        "reconstructor": b"ccopy_reg\n_reconstructor\n(" + system + b"c__builtin__\nobject\nNtR.",
        "copyreg": b"ccopyreg\n__newobj__\n" + system + shell + b"\x86R.",
        "extension": b"\x82\xf0.",
        "map": b"cbuiltins\nlist\ncbuiltins\nmap\n" + system + b"](" + shell + b"e\x86R\x85R.",
        "factory": b"ccollections\ndefaultdict\n" + system + b"\x85R.",
        "encode": b"c_codecs\nencode\n" + text("x") + text("rot13") + b"\x86R.",
        "device": b"ctorch\ndevice\n" + system + b"\x85R.",
        "hidden": b"capex.amp\nscaler\n(" + system + shell + b"\x85RtR.",
        "load": b"ctorch.storage\n_load_from_bytes\nB\x01\x00\x00\x00x\x85R.",
        "hub": b"ctorch.hub\nload\n)R.",
    }


@pytest.mark.parametrize("which", attacks(Path("mark")))
def test_attacks(tmp_path: Path, which: str) -> None:
    mark = tmp_path / "ran"
    attack = attacks(mark)[which]
    if which == "extension":
        copyreg.add_extension("os", "system", 0xF0)
    try:
        if which in ("eval", "exec", "stack", "computed", "inner", "inst", "obj"):
            assert fires(attack, mark)
        with pytest.raises(CheckpointError, match="^here: "):
            read_pickle(attack, "here")
        assert not mark.exists()
    finally:
        if which == "extension":
            copyreg.remove_extension("os", "system", 0xF0)


# Bombs and broken files


def nested(levels: int, inner: Any, wrap: Callable[[Any], Any]) -> Any:
    for _ in range(levels):
        inner = wrap(inner)
    return inner


def test_laughs_are_only_references() -> None:
    found = read_pickle(pickle.dumps(nested(100, [], lambda one: [one, one])), "here")
    assert found[0] is found[1]
    assert found[0][0][1] is found[1][1][0]


MILLION = struct.pack("<I", 1_000_000)
TEXT = b"X" + MILLION + b"a" * 1_000_000 + b"q\x01"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"(" * 1000 + b"t" * 1000 + b".", "more than 200 levels"),
        (b"]" * 20_000 + b"a" * 19_999 + b".", "more than 200 levels"),
        (b"N" + b"\x85" * 20_000 + b".", "more than 200 levels"),
        (b"]q\x00h\x00a.", "holds itself"),
        (b"}q\x00K\x01h\x00\x85\x85s.", "holds itself"),
        (b"}N" + b"\x85" * 20_000 + b"Ns.", "a key of too many parts"),
        (b"}N" + b"2\x86" * 100 + b"Ns.", "a key of too many parts"),
        (b"}]Ns.", "a key that is a list"),
        (b"\x8f(]\x90.", "a key that is a list"),
        (b"(}\x91.", "a key that is a dict"),
        (b"Nr\xff\xff\xff\xff.", "a memo of 4,294,967,295 values"),
        (b"Np-1\n.", "a memo of -1 values"),
        (b"Np" + b"9" * 5000 + b"\n.", "4300 digits"),
        (b"h\x05.", "a memo of what never came"),
        (b"B\xff\xff\xff\xffabc.", "expected 4294967295 bytes"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.", "expected 9223372036854775807 bytes"),
        (b"\x96\xff\xff\xff\xff\xff\xff\xff\xffabc.", "byte count"),
        (b"\x8b" + struct.pack("<i", 2000) + b"\x7f" * 2000 + b".", "a number of 15,999 bits"),
        (b"L" + b"9" * 5000 + b"L\n.", "4300 digits"),
        (b"\x8b\xff\xff\xff\xff.", "count < 0"),
        (
            TEXT + b"0c_codecs\nencode\nq\x02" + b"h\x02h\x01\x85R" * 99 + b".",
            "more than 5,000,000",
        ),
        (b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.", "bytes that are no text"),
        (b"cbuiltins\nbytes\n](K\x01K\x02e\x85R.", "bytes that are no text"),
        (b"cbuiltins\ncomplex\nK\x01U\x01x\x86R.", "not of two numbers"),
        (b"cbuiltins\ndict\n]K\x05a\x85R.", "expected items, not a int"),
        (b"cbuiltins\nset\nK\x05\x85R.", "expected items, not a int"),
        (b"cbuiltins\nset\nNN\x86R.", r"a call of builtins\.set with 2 arguments"),
        (b"cbuiltins\nint\n)R.", r"a call of builtins\.int\)"),
        (b"ccollections\nOrderedDict\nK\x05R.", "a call of a Name"),
        (b"K\x01)R.", "a call of a int"),
        (b"(o.", "a call of a NoneType"),
        (b"ccollections\nOrderedDict\n)}K\x01K\x02s\x92.", "named arguments"),
        (b"]}b.", "a state for a list"),
        (b"NK\x01a.", "items for a NoneType"),
        (b"}(K\x01u.", "a key without a value"),
        (b"\x80\x09N.", "protocol 9, when 0 to 5 are known"),
        (b"\x97.", "NEXT_BUFFER, which no model needs"),
        (b"K\x01K\x02\x93.", "a name that is no text"),
        (b"a.", "an empty stack"),
        (b"t.", "no mark"),
        (b".", "an empty stack"),
        (b"", "exhausted before seeing STOP"),
        (b"N", "exhausted before seeing STOP"),
        (b"\xfe.", "unknown"),
        (b"X\x02\x00\x00\x00\xff\xfe.", "decode"),
        (b"S'\\xff'\n.", "decode"),
        (b"S'\\d'\n.", "invalid escape"),
        (b"Vno end", "no newline"),
        (b"cos", "no newline"),
        (b"F1.2.3\n.", "could not convert"),
    ],
    ids=lambda part: ascii(part[:24])[1:] if isinstance(part, bytes) else "",
)
def test_bombs_and_nonsense_are_named(data: bytes, reason: str) -> None:
    start = time.perf_counter()
    with pytest.raises(
        CheckpointError, match=rf"^model: cannot be read near byte \d+ .*({reason})"
    ):
        read_pickle(data, "model")
    assert time.perf_counter() - start < 5


def test_instructions_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "MOST_STEPS", 1000)
    copies = pickle.dumps(list(range(100)))[:-1] + b"q\x010cbuiltins\nset\nq\x02"
    assert read_pickle(copies + b"h\x02h\x01\x85R.", "here") == set(range(100))
    for bomb in (b"}" * 1000, copies + b"h\x02h\x01\x85R" * 10):
        with pytest.raises(CheckpointError, match="more than 1,000 instructions and items"):
            read_pickle(bomb + b".", "here")


def test_results_can_be_printed_and_walked() -> None:
    for wrap in (lambda one: [one], lambda one: (one,), lambda one: {"a": one}):
        data = pickle.dumps(nested(200, 2**8000, wrap))
        assert len(repr(read_pickle(data, "here"))) > 2000
        with pytest.raises(CheckpointError, match="more than 200 levels"):
            read_pickle(pickle.dumps(nested(201, 1, wrap)), "here")


def test_odd_names_are_shown_in_ascii() -> None:
    with pytest.raises(CheckpointError, match=r"here: holds \\x1b\[2J\\ud800\.\\n, which"):
        read_pickle(b"\x8c\x07\x1b[2J\xed\xa0\x80\x8c\x01\n\x93.", "here")


EVERYTHING = [
    {"model": OrderedDict(a=(1, 2.5, None), b=[True, {"x"}, frozenset("y")])},
    argparse.Namespace(text="é", data=b"\xff", more=bytearray(b"ab"), big=2**100, z=1j),
]


def survives(data: bytes) -> None:
    with suppress(CheckpointError):
        repr(read_pickle(data, "here"))


@given(st.sampled_from(PROTOCOLS), CHANCES)
@settings(max_examples=200)
def test_a_broken_pickle_is_an_error_or_a_value(protocol: int, chance: Random) -> None:
    survives(broken(pickle.dumps(EVERYTHING, protocol), chance))


PARTS = [code.code.encode("latin-1") for code in pickletools.opcodes]
PARTS += ["c{}\n{}\n".format(*name.rsplit(".", 1)).encode() for name in TABLE]
PARTS += [*(b"(", b")", b"]", b"}", b"\x8f", b"N", b"2", b"K\x01", b"U\x01a")]
PARTS += [*(b"q\x00", b"h\x00", b"R", b"b", b"\x85", b"\x86"), b"cargparse\nNamespace\n"] * 8


@given(st.lists(st.sampled_from(PARTS), max_size=30))
@settings(max_examples=300)
def test_any_instructions_are_an_error_or_a_value(program: list[bytes]) -> None:
    survives(b"".join([*program, b"."]))


@pytest.mark.slow
def test_many_broken_pickles() -> None:
    chance = Random(0)
    for number in range(10_000):
        survives(broken(pickle.dumps(EVERYTHING, number % 6), chance))
        survives(b"".join([*chance.choices(PARTS, k=chance.randint(1, 30)), b"."]))
