"""What a name in a pickle may do: become plain data by a function of ours, or nothing at all.

`TABLE` holds the names that files of models and options need; a pickle with any other is refused.
Most functions here copy what they are given into a plain dict, list or set, and look at it first:
the arguments come from the file and may be anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MOST_KEY_PARTS = 200  # values in a tuple that is a key
# Objects of these packages stand beside the weights; nobody needs them, so they are left unread.
UNREAD = ("apex.", "fairseq.", "numpy.", "parlai.")


@dataclass(frozen=True)
class Name:
    """A class or function that the table knows, where a pickle has it as a value."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True)
class Unread:
    """Stands where an object of another program was, such as a loss scaler; its state is gone."""

    name: str


@dataclass(frozen=True)
class Known:
    """What a name may do: our function to call for it, and what to do with a state given later."""

    make: Callable[..., Any] | None = None  # None: it may be a value, and is never called
    build: Callable[[Any, Any], None] | None = None  # None: it has no state


# What may be a key, beside tuples of them: plain, and quick to hash.
_KEYS = {str, bytes, int, float, complex, bool, type(None), Name, Unread}


def checked_key(key: Any) -> Any:
    """The key itself; ValueError if it cannot be one.

    A tuple is hashed with all that is in it, each time: tuples in tuples in tuples, each twice,
    would be hashed for ever, and very deep ones overflow the stack of the interpreter.
    """
    rest, seen = [key], 1
    while rest:
        one = rest.pop()
        if type(one) in (tuple, frozenset):
            seen += len(one)
            if seen > MOST_KEY_PARTS:
                raise ValueError("a key of too many parts")
            rest.extend(one)
        elif type(one) not in _KEYS:
            raise ValueError(f"a key that is a {type(one).__name__}")
    return key


def _items(content: Any) -> list[Any]:
    if not isinstance(content, list | tuple | set | frozenset):
        raise ValueError(f"expected items, not a {type(content).__name__}")
    return list(content)


def _dict(content: Any = ()) -> dict[Any, Any]:
    pairs = content.items() if isinstance(content, dict) else _items(content)
    found = {}
    for pair in pairs:
        key, value = _items(pair)
        found[checked_key(key)] = value
    return found


def alternated(content: list[Any]) -> dict[Any, Any]:
    """Key, value, key, value ... as a dict; ValueError if that cannot be."""
    if len(content) % 2:
        raise ValueError("a key without a value")
    pairs = zip(content[::2], content[1::2], strict=True)
    return {checked_key(key): value for key, value in pairs}


def plain_set(content: Any = ()) -> set[Any]:
    """A set of what can be a key; ValueError for anything else."""
    return {checked_key(one) for one in _items(content)}


def plain_frozenset(content: Any = ()) -> frozenset[Any]:
    """Like `plain_set`, and not to be changed."""
    return frozenset(plain_set(content))


def _tuple(content: Any = ()) -> tuple[Any, ...]:
    return tuple(_items(content))


def _bytes(content: Any = b"", encoding: Any = "latin1") -> bytes:
    """Old protocols write bytes as a text of as many letters."""
    if isinstance(content, bytes | bytearray):
        return bytes(content)
    if not isinstance(content, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError("bytes that are no text in latin-1")
    return content.encode("latin-1")


def _bytearray(content: Any = b"", encoding: Any = "latin1") -> bytearray:
    return bytearray(_bytes(content, encoding))


def _complex(real: Any, imaginary: Any) -> complex:
    if not isinstance(real, int | float) or not isinstance(imaginary, int | float):
        raise ValueError("a complex number that is not of two numbers")
    return complex(real, imaginary)


def _device(kind: Any, number: Any = None) -> str:
    if not isinstance(kind, str) or not isinstance(number, int | None):
        raise ValueError("a device that is no name and number")
    return kind if number is None else f"{kind}:{number}"


def _defaultdict(factory: Any = None, content: Any = ()) -> dict[Any, Any]:
    return _dict(content)


def _namespace() -> dict[Any, Any]:
    return {}


def _ignore(made: Any, state: Any) -> None:
    """Attributes beside the content, such as OrderedDict's `_metadata`."""


def _attributes(made: Any, state: Any) -> None:
    """A Namespace is its attributes."""
    made.update(_dict(state))


def _options(made: Any, state: Any) -> None:
    """ParlAI's Opt: (history, copies, dict), or the attributes of a dict that came before."""
    if isinstance(state, tuple) and state and isinstance(state[-1], dict):
        made.update(state[-1])


_BUILTINS: dict[str, Known] = {
    "bytearray": Known(_bytearray),
    "bytes": Known(_bytes),
    "complex": Known(_complex),
    "dict": Known(_dict),
    "frozenset": Known(plain_frozenset),
    "list": Known(_items),
    "set": Known(plain_set),
    "tuple": Known(_tuple),
    **dict.fromkeys(["bool", "float", "int", "object", "str"], Known()),
}
_DTYPES = ["bfloat16", "bool", "complex64", "complex128", "double", "float", "float16", "float32"]
_DTYPES += ["float64", "half", "int", "int8", "int16", "int32", "int64", "long", "short", "uint8"]
_OPT = Known(_dict, _options)
# Protocols 0 and 1 make objects by this, of (class, base, what the base is made of).
RECONSTRUCTORS = ("copy_reg._reconstructor", "copyreg._reconstructor")
TABLE: Mapping[str, Known] = {
    **{
        f"{module}.{name}": known
        for module in ("builtins", "__builtin__")
        for name, known in _BUILTINS.items()
    },
    **dict.fromkeys(RECONSTRUCTORS, Known()),
    **{f"torch.{name}": Known() for name in _DTYPES},
    "_codecs.encode": Known(_bytes),
    "argparse.Namespace": Known(_namespace, _attributes),
    "collections.Counter": Known(_dict),
    "collections.OrderedDict": Known(_dict, _ignore),
    "collections.defaultdict": Known(_defaultdict),
    "parlai.core.opt.Opt": _OPT,
    "parlai.core.utils.Opt": _OPT,
    "parlai.utils.misc.Opt": _OPT,
    "torch.Size": Known(_tuple),
    "torch.device": Known(_device),
}
