"""The tokens of a model that transfer-learning-conv-ai trained: its text's, and its five own.

Two orders of the five are in the wild, since 2019's first code added them as a list (speakers
third) and later code as a dictionary (padding third). So their ids are read from the files, never
guessed; files that contradict each other are refused.

    special_tokens.txt      one a line, ids from the end of the vocabulary on (the first code)
    added_tokens.json       token -> id (2019 to 2025)
    tokenizer_config.json   id -> token, as added_tokens_decoder (since 2023)
    tokenizer.json          the tokens among its added ones (since 2020, from 2025 on alone)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from rejoinder.errors import CheckpointError
from rejoinder.legacy.transfertransfo_eras import reads_a_blank
from rejoinder.text import SPEAKERS

END = "</w>"  # closes a word in GPT's vocabulary
UNKNOWN = "<unk>"  # GPT's
END_OF_TEXT = "<|endoftext|>"  # GPT-2's
MOST_UNMADE = 0.01  # of all words: some people added words by hand


@dataclass(frozen=True)
class FoundTokens:
    """A tokenizer of the base's own tokens, and the ids of SPEAKERS, in that order."""

    tokenizer: Tokenizer
    special: tuple[int, ...]
    notes: list[str]


def find_tokens(
    folder: Path, rows: int, config: Mapping[str, Any], *, bytewise: bool
) -> FoundTokens:
    """The tokens of a model with so many `rows` of word vectors; `bytewise` as GPT-2's are.

    Raises CheckpointError naming the file and what does not fit.
    """
    tokenizer, added, blank = _tokenizer(folder, config, bytewise=bytewise)
    size = tokenizer.get_vocab_size()
    told = _told(folder, size, added)
    notes = ["every text is read with a blank before it, as it was there"] if blank else []
    if told:
        special = _agreed(folder, told)
    elif config.get("n_special") == len(SPEAKERS) and rows == size + len(SPEAKERS):
        special = dict(zip(SPEAKERS, range(size, rows), strict=True))
        notes.append(
            "no file says which ids the special tokens have; config.json is of the first code "
            f"(n_special {len(SPEAKERS)}), which added {' '.join(SPEAKERS)} in this order"
        )
    else:
        raise CheckpointError(
            f"{folder}: no file says which ids {' '.join(SPEAKERS)} have, and two orders are in "
            "use; put the added_tokens.json beside it that the model was saved with, such as "
            f'{{"<bos>": {size}, "<eos>": {size + 1}, ...}}'
        )
    ids = _checked(folder, special, rows, tokenizer)
    if rows > size + len(SPEAKERS):
        notes.append(f"{rows - size - len(SPEAKERS)} further word vectors, which no token has")
    return FoundTokens(tokenizer, ids, notes)


def _tokenizer(
    folder: Path, config: Mapping[str, Any], *, bytewise: bool
) -> tuple[Tokenizer, dict[str, int], bool]:
    """The tokenizer without added tokens, those, and whether a blank is put before texts.

    A tokenizer.json is only there where it was used.
    """
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    whole, file = folder / "tokenizer.json", folder / "tokenizer_config.json"
    if whole.is_file():
        added = _in_tokenizer(folder)
        return _bare(whole), added, False
    if not (vocabulary.is_file() and merges.is_file()):
        raise CheckpointError(
            f"{folder}: has neither vocab.json and merges.txt nor tokenizer.json; copy what stood "
            "beside the model"
        )
    blank = bytewise and reads_a_blank(config, read_object(file) if file.is_file() else {})
    return _made(vocabulary, merges, bytewise=bytewise, blank=blank), {}, blank


def _in_tokenizer(folder: Path) -> dict[str, int]:
    """The added tokens of a tokenizer.json, if there is one."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        return {}
    listed = read_object(file).get("added_tokens") or []
    try:
        return {str(one["content"]): int(one["id"]) for one in listed}
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{file}: added_tokens cannot be read ({type(error).__name__}: {error}); expected a "
            "list of objects with id and content, so copy the file again"
        ) from None


def _bare(file: Path) -> Tokenizer:
    """A tokenizer.json without the tokens behind its model's, which are told apart."""
    told = read_object(file)
    model = told.get("model")
    known = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(known, dict):
        raise CheckpointError(
            f"{file}: its model has no vocabulary; expected that of GPT or GPT-2, so copy the "
            "file again"
        )
    listed = told.get("added_tokens") or []
    # <|endoftext|> and its like: never what a user's text becomes, whatever the file says
    told["added_tokens"] = [
        {**one, "special": True} for one in listed if one.get("content") in known
    ]
    told["post_processor"] = None  # may name tokens that are gone; rows are framed by us
    try:
        return Tokenizer.from_str(json.dumps(told))
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(
            f"{file}: not a readable tokenizer.json ({error}); copy it again"
        ) from None


def _made(vocabulary: Path, merges: Path, *, bytewise: bool, blank: bool = False) -> Tokenizer:
    """A tokenizer of vocabulary and merges: the byte pairs of GPT-2, or GPT's of lower-case words.

    blank: one is put before every text, and others around it are taken away.
    GPT's words are cut as BERT's basic tokenizer does, which is what the first code took where
    spaCy was not installed.
    """
    words = _words(vocabulary)
    pairs = _pairs(merges)
    try:
        if bytewise:
            model = models.BPE(vocab=words, merges=pairs)
        else:
            model = models.BPE(vocab=words, merges=pairs, unk_token=UNKNOWN, end_of_word_suffix=END)
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(
            f"{merges}: {error}, says the tokenizer; expected the merges that {vocabulary.name} "
            "was made with, so copy both again"
        ) from None
    _check_merges(words, pairs, merges)
    made = Tokenizer(model)
    if bytewise:
        made.normalizer = normalizers.Strip() if blank else None
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=blank)
        made.decoder = decoders.ByteLevel()
    else:
        made.normalizer = normalizers.BertNormalizer(lowercase=True)
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        made.decoder = decoders.BPEDecoder(suffix=END)
    own = [token for token in (UNKNOWN, END_OF_TEXT) if token in words]
    made.add_special_tokens([AddedToken(token, special=True) for token in own])
    return made


def _check_merges(words: Mapping[str, int], pairs: list[tuple[str, str]], file: Path) -> None:
    """Raise CheckpointError where many words are made by no merge: the file of merges is cut."""
    made = {left + right for left, right in pairs}
    named = {UNKNOWN, END_OF_TEXT, *SPEAKERS}
    unmade = [
        word
        for word in words
        if len(word.removesuffix(END)) > 1 and word not in made and word not in named
    ]
    if len(unmade) > MOST_UNMADE * len(words):
        raise CheckpointError(
            f"{file}: {len(unmade)} of {len(words)} words, such as {unmade[0]!r}, are made by none "
            f"of its {len(pairs)} merges, so it is cut; copy it again"
        )


def _words(file: Path) -> dict[str, int]:
    words = read_object(file)
    if sorted(words.values(), key=str) != sorted(range(len(words)), key=str):
        raise CheckpointError(
            f"{file}: its {len(words)} tokens do not have the ids 0 to {len(words) - 1}; expected "
            "the vocabulary as the model was trained with, so copy it again"
        )
    return words


def _pairs(file: Path) -> list[tuple[str, str]]:
    """The merges in order; the first line is a version, and what follows the last line's end none.

    As the old code read them, which took no heed of what the first line says.
    """
    try:
        lines = file.read_text(encoding="utf-8").split("\n")[1:-1]
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file}: cannot be read ({error}); copy it again") from None
    pairs = []
    for number, line in enumerate(lines, 2):
        pair = line.split()
        if len(pair) != 2:
            raise CheckpointError(
                f"{file}:{number}: {line[:40]!r}; expected two parts of a word, so copy it again"
            )
        pairs.append((pair[0], pair[1]))
    return pairs


def _told(folder: Path, size: int, added: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """What each file says of the special tokens: file -> token -> id."""
    told: dict[str, Mapping[str, Any]] = {"tokenizer.json": added}
    file = folder / "added_tokens.json"
    if file.is_file():
        listed = read_object(file)
        if listed and all(isinstance(token, str) for token in listed.values()):
            # the other way round, as pytorch-transformers 1.0 wrote it
            listed = {token: int(i) for i, token in listed.items() if i.isdecimal()}
        told[file.name] = listed
    file = folder / "special_tokens.txt"
    if file.is_file():
        try:
            lines = file.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{file}: cannot be read ({error}); copy it again") from None
        in_order = [line.strip() for line in lines if line.strip()]
        if not in_order:
            raise CheckpointError(f"{file}: is empty; expected the special tokens, one a line")
        told[file.name] = {token: size + place for place, token in enumerate(in_order)}
    file = folder / "tokenizer_config.json"
    if file.is_file():
        decoder = read_object(file).get("added_tokens_decoder") or {}
        told[file.name] = {
            str(one.get("content")): int(i)
            for i, one in decoder.items()
            if isinstance(one, dict) and i.isdecimal()
        }
    found = {}
    for name, tokens in told.items():
        ours = {token: i for token, i in tokens.items() if token in SPEAKERS}
        if ours:
            found[name] = ours
    return found


def _agreed(folder: Path, told: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The ids, which all files must say alike."""
    (first, special), *others = told.items()
    for name, tokens in others:
        for token in SPEAKERS:
            if tokens.get(token) != special.get(token):
                raise CheckpointError(
                    f"{folder / name}: {token} is {tokens.get(token)!r}, but {first} says "
                    f"{special.get(token)!r}; take away the file that the model was not "
                    "trained with"
                )
    lacking = [token for token in SPEAKERS if token not in special]
    if lacking:
        raise CheckpointError(
            f"{folder / first}: has no {' and no '.join(lacking)}; expected the ids of "
            f"{' '.join(SPEAKERS)}, so copy the file that the model was saved with"
        )
    return dict(special)


def _checked(
    folder: Path, special: Mapping[str, Any], rows: int, tokenizer: Tokenizer
) -> tuple[int, ...]:
    """The ids in the order of SPEAKERS, if there can be a model that was trained with them."""
    ids = [special[token] for token in SPEAKERS]
    words = tokenizer.get_vocab()
    for token, i in zip(SPEAKERS, ids, strict=True):
        if type(i) is not int or not 0 <= i < rows:
            raise CheckpointError(
                f"{folder}: {token} is {i!r}, but the model has word vectors 0 to {rows - 1}; "
                "tokens and weights do not belong together"
            )
        if i < len(words) and words.get(token) != i:
            is_unknown = "the one for unknown words" if i == words.get(UNKNOWN) else "another word"
            raise CheckpointError(
                f"{folder}: {token} has id {i}, which is {is_unknown}; expected ids behind the "
                f"{len(words)} of the vocabulary. The tokens were not added when the model was "
                "trained or saved: put its own added_tokens.json or special_tokens.txt beside it"
            )
    if len(set(ids)) < len(ids):
        raise CheckpointError(
            f"{folder}: two of {' '.join(SPEAKERS)} have the same id ({ids}); expected five, so "
            "put the file beside it that the model was saved with"
        )
    return tuple(ids)


def read_object(file: Path) -> dict[str, Any]:
    """A JSON object. Raises CheckpointError where it is none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: broken JSON ({error}); copy the file again") from None
    if not isinstance(found, dict):
        raise CheckpointError(
            f"{file}: holds a {type(found).__name__}; expected an object, so copy the file again"
        )
    return found
