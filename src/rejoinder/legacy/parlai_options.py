"""What the options of a ParlAI ranker say about its model, its dictionary, and its text.

Every option that changes a score is read here or refused; all others are left. A missing one has
the value that ParlAI takes for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rejoinder.config import Kind
from rejoinder.dictionary import Kind as Splitting
from rejoinder.errors import CheckpointError
from rejoinder.legacy.torchfiles import read_plain_pickle
from rejoinder.text import TextFormat

KINDS: dict[str, Kind] = {"biencoder": "bi", "polyencoder": "poly", "crossencoder": "cross"}
UNLIMITED = 1024  # tokens, where no option says how many
# Options that change scores in a way that we do not have; the values that leave them as they are.
PLAIN: dict[str, tuple[Any, ...]] = {
    "use_memories": (False, None),
    "history_reversed": (False, None),
    "use_reply": ("label", "model", None),
    "polyencoder_attention_keys": ("context", None),
    "history_add_global_end_token": (None,),
    "special_tok_lst": (None, ""),
    "add_p1_after_newln": (False, None),
}
VARIANTS = {"bart": "xlm", "xlm": "xlm", "aiayn": "aiayn", "prelayernorm": "prelayernorm"}


@dataclass(frozen=True)
class Options:
    """The options of a model, and the file they came from."""

    file: Path
    values: Mapping[str, Any]

    def get(self, name: str, usual: Any) -> Any:
        """An option's value, or the usual one where it is not said."""
        found = self.values.get(name)
        return usual if found is None else found

    def number(self, name: str, usual: int, least: int = 0) -> int:
        """A whole number. Raises CheckpointError for anything else."""
        found = self.get(name, usual)
        if isinstance(found, bool) or not isinstance(found, int) or found < least:
            raise self.odd(name, f"a whole number of at least {least}")
        return found

    def flag(self, name: str, usual: bool) -> bool:
        """True or false. Raises CheckpointError for anything else."""
        found = self.get(name, usual)
        if not isinstance(found, bool):
            raise self.odd(name, "true or false")
        return found

    def choice(self, name: str, usual: str, known: tuple[str, ...]) -> Any:
        """One of a few words. Raises CheckpointError for anything else."""
        found = self.get(name, usual)
        if found not in known:
            raise self.odd(name, " or ".join(known))
        return found

    def odd(self, name: str, expected: str) -> CheckpointError:
        """An error about the value of an option."""
        came = repr(self.values.get(name))[:60]
        return CheckpointError(f"{self.file}: {name} is {came}; expected {expected}")


def read_options(file: Path) -> Options:
    """A `.opt` file: JSON, or a pickle of old versions, of which nothing is run.

    Raises CheckpointError if it is neither.
    """
    try:
        start = file.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{file}: {error.strerror}; expected the options that ParlAI saved beside the model, "
            "so put them there"
        ) from None
    if start.lstrip()[:1] == b"{":
        try:
            values = json.loads(start)
        except (ValueError, RecursionError) as error:
            raise CheckpointError(
                f"{file}: broken JSON ({error}); copy the file of options again"
            ) from None
    else:
        values = read_plain_pickle(file)
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise CheckpointError(f"{file}: holds no options by name; name a ParlAI model's .opt file")
    return Options(file, values)


def kind_of(options: Options) -> Kind:
    """Which ranker it is. Raises CheckpointError for another model, or one with what we lack."""
    name = str(options.get("model", ""))
    last = name.replace(":", "/").split("/")[-1].lower().removesuffix("agent")
    if last not in KINDS:
        raise CheckpointError(
            f"{options.file}: model is {name!r}; expected transformer/biencoder, polyencoder or "
            "crossencoder, the rankers that rejoinder imports"
        )
    for option, plain in PLAIN.items():
        if options.values.get(option) not in plain:
            raise options.odd(option, f"{plain[0]!r}; a model that learned otherwise cannot be had")
    return KINDS[last]


@dataclass(frozen=True)
class TextOptions:
    """How texts are read."""

    style: TextFormat
    splitting: Splitting
    lower: bool
    delimiter: str
    split_lines: bool
    null: str
    start: str
    end: str
    unknown: str
    multiple: Literal[1, 8]
    """Word vectors are a multiple of that, as fp16 wants them."""


def _most(options: Options, name: str, places: int) -> int:
    """Tokens that an option leaves: 0 means what `truncate` says, less that nothing is cut."""
    found = options.number(name, 0, -1) or options.number("truncate", UNLIMITED, -1)
    return found if found > 0 else places


def text_of(options: Options, places: int, *, together: bool) -> TextOptions:
    """How a model reads text, with `places` for tokens; `together` with a candidate or alone.

    Raises CheckpointError for texts of fewer than eight tokens, which nobody can mean.
    """
    max_context = min(_most(options, "text_truncate", places) + 2, places)
    max_reply = min(_most(options, "label_truncate", places), places)
    if together and max_context + max_reply > places:  # there a pair too long was an error
        max_reply = min(max_reply, max(places // 4, places - max_context))
        max_context = places - max_reply
    persons = options.flag("person_tokens", False)
    for name, count in (("text_truncate", max_context), ("label_truncate", max_reply)):
        if count < 8:
            raise options.odd(name, "room for eight tokens")
    style = TextFormat(
        persona_mark="your persona:",
        user_mark="__p1__" if persons else "",
        assistant_mark="__p2__" if persons else "",
        system_mark="__p1__" if persons else "",
        max_context=max_context,
        max_reply=max_reply,
        max_history=max(0, options.number("history_size", -1, -1)),
        keep="newest",
    )
    half = options.flag("fp16", False) or options.flag("force_fp16_tokens", False)
    return TextOptions(
        style=style,
        splitting=options.choice("dict_tokenizer", "re", ("bpe", "re", "space", "split")),
        lower=options.flag("dict_lower", False),
        delimiter=str(options.get("delimiter", "\n")),
        split_lines=options.flag("split_lines", False),
        null=str(options.get("dict_nulltoken", "__null__")),
        start=str(options.get("dict_starttoken", "__start__")),
        end=str(options.get("dict_endtoken", "__end__")),
        unknown=str(options.get("dict_unktoken", "__unk__")),
        multiple=8 if half else 1,
    )
