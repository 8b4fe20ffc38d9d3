"""The members of one large JSON value, parsed one by one.

A file like `{"train": [...], "valid": [...]}` may be one line of a gigabyte. `json_members` walks
through its outer object and lists, and holds no more than one member and one block of text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from rejoinder.data.files import LONGEST, text_blocks
from rejoinder.errors import DataError

SPACE = re.compile(r"[ \t\r\n]*")
NEAR = 16  # characters; an error this close to the end of the text may mend itself with more text


def json_members(path: Path) -> Iterator[tuple[int, str, object]]:
    """Line, place such as `train[3]`, and value of each member of the outer list or lists.

    An outer object may hold other things beside lists; they are passed over.
    """
    text = _Cursor(path)
    if text.take("["):
        yield from _members(text, "")
    elif text.take("{"):
        first = True
        while not text.take("}"):
            if not first:
                text.expect(",")
            first = False
            key = text.value()
            text.expect(":")
            if text.take("["):
                yield from _members(text, str(key))
            else:
                text.value()
    else:
        raise text.problem("expected a list [...] or an object of lists {...}")
    if text.peek():
        raise text.problem("expected the end of the file; one record a line is the format jsonl")


def _members(text: _Cursor, name: str) -> Iterator[tuple[int, str, object]]:
    count = 0
    while not text.take("]"):
        if count:
            text.expect(",")
        text.peek()  # to the line where the value begins
        yield text.line, f"{name}[{count}]", text.value()
        count += 1


class _Cursor:
    """A place in a JSON text of which only a window is in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.blocks = text_blocks(path)
        self.window = ""
        self.at = 0  # place in the window
        self.line = 1
        self.decoder = json.JSONDecoder()

    def peek(self) -> str:
        """Give the next character that is not white space, "" at the end."""
        while True:
            space = SPACE.match(self.window, self.at)
            self._move(space.end() if space else self.at)
            if self.at < len(self.window):
                return self.window[self.at]
            if not self._more(1):
                return ""

    def take(self, character: str) -> bool:
        """Step over a character if it comes next."""
        found = self.peek() == character
        self.at += found
        return found

    def expect(self, character: str) -> None:
        """Step over a character that has to come next."""
        if not self.take(character):
            raise self.problem(f"expected {character!r}")

    def value(self) -> object:
        """Parse the next value and step over it."""
        self.peek()
        while True:
            held = len(self.window) - self.at  # characters to parse
            try:
                found, end = self.decoder.raw_decode(self.window, self.at)
                length = end - self.at
                if length < held or not self._more(1):
                    self._move(self.at + length)
                    return found
            except json.JSONDecodeError as error:
                length = error.pos - self.at
                cut = length > held - NEAR or error.msg.startswith("Unterminated")
                if not cut or not self._more(held):
                    self._move(self.at + length)
                    raise self.problem(error.msg) from error
            except (ValueError, RecursionError) as error:
                raise self.problem(str(error)) from error

    def problem(self, what: str) -> DataError:
        """Say what is wrong at this place."""
        got = self.window[self.at : self.at + 40] or "the end of the file"
        return DataError(
            f"{self.path}:{self.line}: not the JSON that it should be: {what}, got {got!r}. "
            "Is the file cut off, or of another format?"
        )

    def _move(self, at: int) -> None:
        self.line += self.window.count("\n", self.at, at)
        self.at = at

    def _more(self, size: int) -> bool:
        """Drop what was read and add `size` characters or more; False at the end of the file.

        A value that did not fit is parsed anew with twice the text, so it costs linear time.
        """
        self.window, self.at = self.window[self.at :], 0
        if len(self.window) > LONGEST:
            raise self.problem(f"a single value of more than {LONGEST >> 20} Mi characters")
        added: list[str] = []
        while sum(map(len, added)) < size:
            block = next(self.blocks, "")
            if not block:
                break
            added.append(block)
        self.window += "".join(added)
        return bool(added)
