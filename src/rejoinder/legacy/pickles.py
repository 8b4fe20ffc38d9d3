"""Pickles as data: what a pickle holds is read, nothing that it names is ever imported or run.

A pickle is a program for a small machine with a stack, and one of its instructions calls any
function by name. The machine here has the same instructions, but a name stays a `Name`, and calling
one looks into a table (`names`): a function of ours that gives plain data, or the file is refused.
Start with `read_pickle`; `_Machine` is the instructions.

What comes back are dicts, lists, tuples, sets, texts, bytes and numbers, at most 200 deep and never
one inside itself, so that other code may walk through it with recursion. Instructions and sizes are
counted, so that a small file takes neither all memory nor all day.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pickletools import genops
from typing import IO, Any, cast

from rejoinder.errors import CheckpointError
from rejoinder.legacy.names import (
    RECONSTRUCTORS,
    TABLE,
    UNREAD,
    Known,
    Name,
    Unread,
    alternated,
    plain_frozenset,
    plain_set,
)

MOST_STEPS = 5_000_000  # instructions, and items copied by calls; a model takes some 100,000
MOST_NESTED = 200  # levels; repr gives up at 1,000, an optimizer's state has 6
MOST_BITS = 8192  # of a whole number; str() refuses those of over 4,300 digits
CONTAINERS = (dict, list, tuple, set, frozenset)


def read_pickle(
    data: bytes | memoryview,
    where: str,
    *,
    persistent: Callable[[Any], Any] | None = None,
    table: Mapping[str, Known] = TABLE,
) -> Any:
    """The plain value that a pickle holds; `where` is the file's name for messages.

    persistent: what stands for an outside object, by its id; without it there may be none.
    table: what names may do, whose functions say ValueError if they refuse.
    Raises CheckpointError if the pickle is broken or holds any other name.
    """
    return read_pickle_at(data, where, 0, persistent=persistent, table=table)[0]


def read_pickle_at(
    data: bytes | memoryview,
    where: str,
    start: int,
    *,
    persistent: Callable[[Any], Any] | None = None,
    table: Mapping[str, Known] = TABLE,
) -> tuple[Any, int]:
    """Like `read_pickle` for one that begins at `start`, and the byte behind its end."""
    source = _Source(memoryview(data), start)
    machine = _Machine(where, persistent, table)
    try:
        for opcode, argument, _ in genops(cast(IO[bytes], source)):
            machine.step(opcode.name, argument)
        value = machine.pop()
        check_nesting(value)
    # Warning: Python warns of odd escapes in texts, and may have been told to stop at warnings.
    except (ArithmeticError, LookupError, TypeError, ValueError, Warning) as error:
        raise CheckpointError(
            f"{where}: cannot be read near byte {source.at} ({str(error)[:200]}); expected a "
            "pickle of plain data. The file may be cut or broken: fetch it again"
        ) from None
    return value, source.at


class _Source:
    """The bytes as pickletools wants to read them, without a copy of the whole."""

    def __init__(self, data: memoryview, at: int) -> None:
        self.data = data
        self.at = at

    def tell(self) -> int:
        return self.at

    def read(self, count: int) -> bytes:
        found = bytes(self.data[self.at : self.at + count])
        self.at += len(found)
        return found

    def readline(self) -> bytes:
        parts: list[bytes] = []
        while not parts or (parts[-1] and not parts[-1].endswith(b"\n")):
            chunk = bytes(self.data[self.at : self.at + 4096])
            end = chunk.find(b"\n") + 1
            parts.append(chunk[:end] if end else chunk)
            self.at += len(parts[-1])
        return b"".join(parts)


def check_nesting(value: Any) -> None:
    """ValueError if anything in `value` holds itself or is nested deeper than MOST_NESTED."""
    heights: dict[int, int] = {}  # levels of a container, by its id
    inside: set[int] = set()  # containers that we are in
    rest = [(value, False)]  # and whether all that is in it has been seen
    while rest:
        one, seen = rest.pop()
        if seen:
            inside.discard(id(one))
            heights[id(one)] = 1 + max(
                (heights.get(id(part), 0) for part in _parts(one)), default=0
            )
            if heights[id(one)] > MOST_NESTED:
                raise ValueError(f"more than {MOST_NESTED} levels")
        elif id(one) in inside:
            raise ValueError("something that holds itself")
        elif isinstance(one, CONTAINERS) and id(one) not in heights:
            inside.add(id(one))
            rest.append((one, True))
            rest.extend((part, False) for part in _parts(one) if isinstance(part, CONTAINERS))


def _parts(container: Any) -> Iterable[Any]:
    """What is in it; keys are left out, they are flat enough."""
    return container.values() if isinstance(container, dict) else container


_AS_IT_IS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
_AS_IT_IS |= {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_AS_IT_IS |= {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_FRESH: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_SET": set,
    "EMPTY_TUPLE": tuple,
}
_CLOSED: dict[str, Callable[[list[Any]], Any]] = {  # made of all since the last mark
    "DICT": alternated,
    "FROZENSET": plain_frozenset,
    "LIST": list,
    "TUPLE": tuple,
}
_FILLED: dict[str, tuple[type, Callable[[Any, list[Any]], None]]] = {  # what takes in what, how
    "APPEND": (list, list.extend),
    "APPENDS": (list, list.extend),
    "ADDITEMS": (set, lambda target, content: target.update(plain_set(content))),
    "SETITEM": (dict, lambda target, content: target.update(alternated(content))),
    "SETITEMS": (dict, lambda target, content: target.update(alternated(content))),
}
_SINGLE = {"APPEND": 1, "SETITEM": 2, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}  # without a mark


class _Machine:
    """The stack, what was put aside by marks, and what was kept to be used again."""

    def __init__(
        self, where: str, persistent: Callable[[Any], Any] | None, table: Mapping[str, Known]
    ) -> None:
        self.where = where
        self.persistent = persistent
        self.table = table
        self.stack: list[Any] = []
        self.aside: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        # Results that take a state, by id; kept here, so that no other gets the same id.
        self.built: dict[int, tuple[Any, Callable[[Any, Any], None]]] = {}
        self.spent = 0
        self.others: dict[str, Callable[[Any], object]] = {
            "BINPERSID": lambda _: self.outside(self.pop()),
            "BUILD": lambda _: self.build(self.pop()),
            "DUP": lambda _: self.stack.append(self.top()),
            "FRAME": lambda _: None,
            "GLOBAL": lambda pair: self.name(*pair.split(" ", 1)),
            "INST": self.instance,
            "MARK": self.mark,
            "MEMOIZE": lambda _: self.keep(len(self.memo)),
            "NEWOBJ": self.reduce,
            "NEWOBJ_EX": self.reduce_named,
            "OBJ": self.object,
            "PERSID": self.outside,
            "POP": lambda _: self.pop() if self.stack else self.close(),
            "POP_MARK": lambda _: self.close(),
            "PROTO": self.protocol,
            "REDUCE": self.reduce,
            "STACK_GLOBAL": lambda _: self.name(*self.take(2)),
            "STOP": lambda _: None,
        }

    def step(self, opcode: str, argument: Any) -> None:
        """Do one instruction; ValueError if it cannot be."""
        self.spend(1)
        if opcode in _AS_IT_IS:
            self.literal(argument)
        elif opcode in _FRESH:
            self.stack.append(_FRESH[opcode]())
        elif opcode in _FILLED:
            self.fill(*_FILLED[opcode], self.content(opcode))
        elif opcode in _CLOSED:
            made = _CLOSED[opcode](self.close())
            self.stack.append(made)  # only now, since close() changes which stack that is
        elif opcode in _SINGLE:
            self.stack.append(tuple(self.content(opcode)))
        elif opcode.endswith("PUT"):
            self.keep(argument)
        elif opcode.endswith("GET"):
            self.recall(argument)
        elif opcode.endswith("STRING"):
            self.stack.append(_text(argument))
        elif opcode in self.others:
            self.others[opcode](argument)
        else:
            raise ValueError(f"the instruction {opcode}, which no model needs")

    def spend(self, count: int) -> None:
        self.spent += count
        if self.spent > MOST_STEPS:
            raise ValueError(f"more than {MOST_STEPS:,} instructions and items")

    def top(self) -> Any:
        if not self.stack:
            raise ValueError("an empty stack")
        return self.stack[-1]

    def pop(self) -> Any:
        self.top()
        return self.stack.pop()

    def take(self, count: int) -> list[Any]:
        """The last values, in the order in which they came."""
        if len(self.stack) < count:
            raise ValueError("an empty stack")
        found = self.stack[-count:]
        del self.stack[-count:]
        return found

    def mark(self, _: Any) -> None:
        self.aside.append(self.stack)
        self.stack = []

    def close(self) -> list[Any]:
        """All since the last mark."""
        if not self.aside:
            raise ValueError("no mark")
        found, self.stack = self.stack, self.aside.pop()
        return found

    def content(self, opcode: str) -> list[Any]:
        return self.take(_SINGLE[opcode]) if opcode in _SINGLE else self.close()

    def literal(self, value: Any) -> None:
        if isinstance(value, int) and value.bit_length() > MOST_BITS:
            raise ValueError(f"a number of {value.bit_length():,} bits")
        self.stack.append(value)

    def protocol(self, number: int) -> None:
        if number > 5:
            raise ValueError(f"protocol {number}, when 0 to 5 are known")

    def keep(self, number: int) -> None:
        if not 0 <= number <= MOST_STEPS:
            raise ValueError(f"a memo of {number:,} values")
        self.memo[number] = self.top()

    def recall(self, number: int) -> None:
        if number not in self.memo:
            raise ValueError("a memo of what never came")
        self.stack.append(self.memo[number])

    def fill(self, kind: type, add: Callable[[Any, list[Any]], None], content: list[Any]) -> None:
        """Add to the list, set or dict on top; what is unread stays so."""
        target = self.top()
        if isinstance(target, Unread):
            return
        if type(target) is not kind:
            raise ValueError(f"items for a {type(target).__name__}")
        add(target, content)

    def outside(self, which: Any) -> None:
        if self.persistent is None:
            raise ValueError("an object that is kept outside of it")
        self.stack.append(self.persistent(which))

    def name(self, module: Any, name: Any) -> None:
        """Push a name that is known; refuse the file otherwise, whether it would be called or not.

        Raises CheckpointError.
        """
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a name that is no text")
        whole = f"{module}.{name}"
        if whole in self.table:
            self.stack.append(Name(module, name))
        elif whole.startswith(UNREAD):
            self.stack.append(Unread(whole))
        else:
            shown = ascii(whole[:100])[1:-1]
            raise CheckpointError(
                f"{self.where}: holds {shown}, which is no part of a model; nothing of it was run. "
                "Expected weights and options alone: ask where the file came from, and take one "
                "that was saved as a state dict"
            )

    def reduce(self, _: Any) -> None:
        what, arguments = self.take(2)
        self.stack.append(self.call(what, arguments))

    def reduce_named(self, _: Any) -> None:
        what, arguments, named = self.take(3)
        if named and not isinstance(what, Unread):
            raise ValueError("a call with named arguments")
        self.stack.append(self.call(what, arguments))

    def instance(self, pair: str) -> None:
        arguments = tuple(self.close())
        self.name(*pair.split(" ", 1))
        self.stack.append(self.call(self.pop(), arguments))

    def object(self, _: Any) -> None:
        what, *arguments = self.close() or [None]
        self.stack.append(self.call(what, tuple(arguments)))

    def call(self, what: Any, arguments: Any) -> Any:
        """What our function for a name makes of the arguments."""
        if isinstance(what, Unread):
            return what
        if not isinstance(what, Name) or not isinstance(arguments, tuple):
            raise ValueError(f"a call of a {type(what).__name__}")
        if str(what) in RECONSTRUCTORS:
            made_of, _, content = arguments
            return self.call(made_of, () if content is None else (content,))
        known = self.table[str(what)]
        if known.make is None:
            raise ValueError(f"a call of {what}")
        try:
            made = known.make(*arguments)
        except TypeError:
            raise ValueError(f"a call of {what} with {len(arguments)} arguments") from None
        if known.build:
            self.built[id(made)] = (made, known.build)
        self.spend_on(made)
        return made

    def build(self, state: Any) -> None:
        """Give the object on top its state."""
        target = self.top()
        if isinstance(target, Unread):
            return
        if id(target) not in self.built:
            raise ValueError(f"a state for a {type(target).__name__}")
        self.built[id(target)][1](target, state)
        self.spend_on(target)

    def spend_on(self, made: Any) -> None:
        """Calls copy, and what they copy may be kept: a few bytes could ask for it a million times.

        Values without a length are small; a letter is an eighth of an item.
        """
        if isinstance(made, list | tuple | dict | set | frozenset):
            self.spend(len(made))
        elif isinstance(made, str | bytes | bytearray):
            self.spend(len(made) // 8)


def _text(text: str) -> str:
    """Texts of Python 2 are bytes, which pickletools gives as latin-1: UTF-8 in most files."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except ValueError:
        return text
