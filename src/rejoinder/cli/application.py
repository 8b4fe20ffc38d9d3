"""What all commands share: the application, kinds of options, tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from rejoinder.decoding import Decoding

app = App(name="rejoinder", help="Train, evaluate, and talk with dialogue models.")

typed: list[str] = []  # the words of the command that is run, filled in by `main`

Files = Annotated[list[Path], Parameter(consume_multiple=True, negative=())]
Json = Annotated[bool, Parameter(name="--json", negative=())]
Flag = Annotated[bool, Parameter(negative=())]
How = Annotated[Decoding | None, Parameter(name="*")]  # a generator writes
Persona = Annotated[list[str] | None, Parameter(negative=())]


def table(values: dict[str, Any]) -> str:
    """Names and values in two columns."""

    def shown(value: Any) -> str:
        if isinstance(value, list):
            return " to ".join(shown(one) for one in value)
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    width = max(map(len, values))
    return "\n".join(f"{name:{width}}  {shown(value)}" for name, value in values.items())


def given(part: Any) -> dict[str, Any]:
    """The settings that flags have set, also to what is the default: they win over a file."""
    if part is None:
        return {}
    flags = {word[2:].partition("=")[0] for word in typed if word.startswith("--")}
    names = {flag.replace("-", "_") for flag in flags}
    names |= {name.removeprefix("no_") for name in names}  # --no-shuffle, but also --no-repeat
    return {name: getattr(part, name) for name in part.__dataclass_fields__ if name in names}
