"""Files as they come out of a bad disk, a bad network or bad hands."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import strategies as st


class Payload:
    """What makes a file when it is unpickled by a pickle module that runs it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return os.system, (f"touch '{self.mark}'",)


def fires(attack: bytes, mark: Path) -> bool:
    """Whether an attack works against Python's own unpickler; its mark is taken away again."""
    try:
        pickle.loads(attack)
    finally:
        there = mark.exists()
        mark.unlink(missing_ok=True)
    return there


def broken(whole: bytes, chance: Random) -> bytes:
    """The bytes with up to four changes: bits flipped, bytes set, put in, taken out, cut off."""
    data = bytearray(whole)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        few = chance.randint(1, 9)
        match chance.choice(["flip", "set", "insert", "delete", "copy", "cut"]):
            case "flip":
                data[at : at + 1] = bytes(one ^ 1 << few % 8 for one in data[at : at + 1])
            case "set":
                data[at : at + few] = chance.randbytes(few)
            case "insert":
                data[at:at] = chance.randbytes(few)
            case "delete":
                del data[at : at + few]
            case "copy":
                data[at:at] = data[at : at + 4 * few]
            case _:
                del data[at:]
    return bytes(data)


# For hypothesis, which then finds the smallest change that does harm.
CHANCES = st.randoms(use_true_random=False)
