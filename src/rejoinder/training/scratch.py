"""What a ranker on an encoder of our own begins with: its sizes, and tokens to read texts with.

The tokenizer is learned from the data, by the first process, and kept in the folder of the run, so
that a resumed run reads as it did before. Or it is a dictionary that ParlAI made.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from rejoinder.checkpoint import check_all_learned
from rejoinder.config import GeneratorConfig, ModelConfig, to_mapping
from rejoinder.dictionary import Dictionary, Words, read_codes, read_dictionary
from rejoinder.errors import CheckpointError, ConfigError
from rejoinder.learned_tokens import learn_tokens
from rejoinder.parlai_text import ParlaiTokens
from rejoinder.schema import Dialogue
from rejoinder.shape import NATIVE, Shape
from rejoinder.text import TextFormat, candidate_piece, persona_pieces, turn_pieces
from rejoinder.tokens import Rows, Tokens, read_tokenizer
from rejoinder.training.folder import TOKENIZER
from rejoinder.training.processes import ALONE, Processes

MOST_TEXTS = 500_000  # distinct ones that a tokenizer is learned from, of about 150 bytes each
# ParlAI's dictionaries know no marks but these; a line break stands between two messages.
MARKS = {
    "persona_mark": "your persona:",
    "user_mark": "",
    "assistant_mark": "",
    "system_mark": "",
}
Say = Callable[[str], None]


@dataclass(frozen=True)
class Scratch:
    """What is asked of an encoder of our own."""

    shape: Shape = Shape()
    dictionary: Path | None = None  # of ParlAI; without it a tokenizer is learned
    output_scaling: float | None = None  # of one that --init-model brings; None = as it is

    def as_json(self) -> dict[str, Any]:
        """What a run notes down; with other wishes it is another run."""
        name = self.dictionary.name if self.dictionary else None
        return {"shape": to_mapping(self.shape), "dictionary": name}


USUAL = Scratch()


class Ready(NamedTuple):
    """A shape that knows its vocabulary, and the tokens."""

    shape: Shape
    tokens: Rows


def from_scratch(
    scratch: Scratch,
    model: ModelConfig | GeneratorConfig,
    init_model: Path | None,
    given: Collection[str],
) -> bool:
    """Whether the model begins with nothing.

    Raises ConfigError for settings of such a beginning elsewhere, and those that it cannot have.
    """
    asked = [field.name for field in fields(Shape) if field.name in given]
    asked += ["dictionary"] if scratch.dictionary else []
    if init_model:  # its factor may be set anew: no weight hangs on it
        asked = [name for name in asked if name != "output_scaling"]
    if asked and init_model:
        raise ConfigError(
            f"{asked[0]} is of an encoder that begins with nothing, but --init-model brings its "
            "own; leave it out, or train without --init-model"
        )
    if isinstance(model, ModelConfig) and model.base == NATIVE and init_model is None:
        _check(scratch, model, given)
        return True
    if asked:  # without --init-model
        raise ConfigError(
            f"{asked[0]} is of a ranker's own encoder, but this is a {model.kind} on the base "
            f"{model.base!r}; leave it out, or train bi, poly or cross with --base {NATIVE}"
        )
    return False


def _check(scratch: Scratch, model: ModelConfig, given: Collection[str]) -> None:
    if "lora" in given:
        check_all_learned(model)
    for name in ("freeze_embeddings", "freeze_apart"):
        if getattr(model, name):
            raise ConfigError(
                f"{name} keeps weights as they are, but from scratch they are drawn at random; "
                "leave it out"
            )
    if scratch.dictionary and scratch.shape.vocabulary:
        raise ConfigError(
            f"vocabulary is {scratch.shape.vocabulary}, but {scratch.dictionary} has as many "
            "tokens as it has; leave one of them out"
        )


def make_ready(
    scratch: Scratch,
    style: TextFormat,
    given: Collection[str],
    out: Path,
    dialogues: Iterable[Dialogue],
    say: Say,
    processes: Processes = ALONE,
) -> Ready:
    """Read the dictionary, or take the tokenizer of the run in `out`, or learn one of `dialogues`.

    The format is `style`; with a dictionary marks are ParlAI's, but for those in `given`. Raises
    CheckpointError for a dictionary that cannot be read, ConfigError for a vocabulary too small.
    """
    if scratch.dictionary:
        marks: dict[str, Any] = {name: MARKS[name] for name in MARKS.keys() - set(given)}
        words = read_words(scratch.dictionary)
        say(
            f"{scratch.dictionary}: {len(words.tokens):,} tokens of kind {words.kind}, "
            f"{'lower case' if words.lower else 'with capitals'}"
        )
        read = ParlaiTokens(Dictionary(words), replace(style, **marks))
        return Ready(replace(scratch.shape, vocabulary=len(words.tokens)), read)
    size, text = scratch.shape.vocabulary, ""
    if processes.first:
        text = _tokenizer(out, dialogues, style, size, say)
    tokenizer = Tokenizer.from_str(processes.told(text))
    shape = replace(scratch.shape, vocabulary=tokenizer.get_vocab_size())
    return Ready(shape, Tokens(tokenizer, style))


def _tokenizer(
    out: Path, dialogues: Iterable[Dialogue], style: TextFormat, size: int, say: Say
) -> str:
    """The text of the run's tokenizer.json, or of a new one."""
    kept = out / TOKENIZER
    if (out / "settings.json").is_file() and kept.is_file():
        return read_tokenizer(kept).to_str()
    texts: dict[str, None] = {}
    for text in texts_of(dialogues, style):
        texts[text] = None
        if len(texts) == MOST_TEXTS:
            break
    made = learn_tokens(texts, size)
    part = "the first " if len(texts) == MOST_TEXTS else ""
    say(f"{made.get_vocab_size():,} tokens learned from {part}{len(texts):,} distinct texts")
    return made.to_str()


def texts_of(dialogues: Iterable[Dialogue], style: TextFormat) -> Iterator[str]:
    """All texts of dialogues as they are read: with the marks of a format, nothing cut off."""
    whole = replace(style, max_history=0)
    for dialogue in dialogues:
        yield from persona_pieces(dialogue, whole)
        yield from persona_pieces(dialogue.swapped(), whole)
        yield from turn_pieces(dialogue, whole)
        for message in dialogue.messages:
            for reply in (*message.alternatives, *message.candidates):
                yield candidate_piece(reply, whole)


def read_words(file: Path) -> Words:
    """A dictionary that ParlAI made: `bpe` if FILE.codecs lies beside it, or else `re`.

    Where no token has a capital, texts are lowered, as they were when it was made; where it has no
    __end__, texts end with __start__, as in ParlAI's recipes. Raises CheckpointError, naming the
    file, where it cannot be read.
    """
    words = Words(tokens=(), kind="re")
    codes = file.with_name(f"{file.name}.codecs")
    if codes.is_file():
        merges, version = read_codes(codes)
        words = replace(words, kind="bpe", merges=merges, version=version)
    words = replace(words, tokens=_tokens_of(file, words))
    if words.end not in words.tokens:
        words = replace(words, end=words.start)
    own = set(words.special)
    words = replace(words, lower=all(t == t.lower() for t in words.tokens if t not in own))
    try:
        Dictionary(words)
    except ConfigError as error:
        raise CheckpointError(f"{file}: {error}") from None
    return words


def _tokens_of(file: Path, words: Words) -> list[str]:
    """All tokens of the file; of the special ones __end__ only if it is there."""
    with_end = read_dictionary(file, words)
    tokens = read_dictionary(file, replace(words, end=words.start))
    told = file.read_bytes().lower()
    if words.unknown.encode() not in told:
        raise CheckpointError(
            f"{file}: has no {words.unknown}; expected a dictionary that ParlAI made, which has "
            "it among its first lines"
        )
    return with_end if words.end in tokens else tokens
