"""Text that any terminal may get and any file can hold."""

from __future__ import annotations

import re

_UNREADABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def readable(text: str) -> str:
    """Replace control characters, which steer terminals, and halves of characters.

    Line breaks and tabs stay.
    """
    return _UNREADABLE.sub("\ufffd", text)
