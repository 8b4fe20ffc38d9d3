"""Optional libraries, told apart from broken ones."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from rejoinder.errors import MissingExtra


def require(module: str, extra: str) -> ModuleType:
    """Import an optional library, or say how to get it.

    Raises MissingExtra only if a library is not installed; one that is there but broken raises
    its own error.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"{error.name} is not installed; run: pip install 'rejoinder[{extra}]'"
        ) from None
