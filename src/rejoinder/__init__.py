"""Train, evaluate and talk with models that choose the best reply to a dialogue, or write one.

The names below are loaded when they are first used, so `import rejoinder` costs next to nothing
and leaves torch alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "Decoding",
    "Dialogue",
    "Example",
    "Index",
    "Message",
    "Ranking",
    "RejoinderError",
    "Reply",
    "RetrieveAgent",
    "TextGenerator",
    "TextRanker",
    "__version__",
    "evaluate",
    "examples",
    "load",
    "load_generator",
    "load_ranker",
    "read",
    "train",
]

HOMES = {
    "Decoding": "rejoinder.decoding",
    "Dialogue": "rejoinder.schema",
    "Example": "rejoinder.schema",
    "Index": "rejoinder.index",
    "Message": "rejoinder.schema",
    "Ranking": "rejoinder.schema",
    "RejoinderError": "rejoinder.errors",
    "Reply": "rejoinder.schema",
    "RetrieveAgent": "rejoinder.agents",
    "TextGenerator": "rejoinder.generator",
    "TextRanker": "rejoinder.ranker",
    "evaluate": "rejoinder.tasks",
    "examples": "rejoinder.schema",
    "load": "rejoinder.zoo",
    "load_generator": "rejoinder.zoo",
    "load_ranker": "rejoinder.zoo",
    "read": "rejoinder.data",
    "train": "rejoinder.tasks",
}

if TYPE_CHECKING:  # the same once more, for type checkers and editors; a test compares the two
    from rejoinder.agents import RetrieveAgent
    from rejoinder.data import read
    from rejoinder.decoding import Decoding
    from rejoinder.errors import RejoinderError
    from rejoinder.generator import TextGenerator
    from rejoinder.index import Index
    from rejoinder.ranker import TextRanker
    from rejoinder.schema import Dialogue, Example, Message, Ranking, Reply, examples
    from rejoinder.tasks import evaluate, train
    from rejoinder.zoo import load, load_generator, load_ranker
else:  # hidden from type checkers, which would take any name for granted

    def __getattr__(name: str) -> object:
        """Load a public name on its first use (PEP 562)."""
        if name not in HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(HOMES[name]), name)
        return value


def __dir__() -> list[str]:
    """List public names, loaded or not."""
    return sorted({*globals(), *__all__})
