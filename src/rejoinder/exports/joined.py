"""A tokenizer that reads a context as one string and gives the ids that the ranker gives."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, pre_tokenizers, processors

from rejoinder.exports.parlai_words import as_tokenizer
from rejoinder.exports.texts import BREAK, joint
from rejoinder.parlai_text import ParlaiTokens
from rejoinder.tokens import Rows, Tokens


@dataclass(frozen=True)
class Joined:
    """The tokenizer of an export.

    Ids from `known` on are none of the ranker's: they stand for `unknown`, and so do their vectors.
    """

    tokenizer: Tokenizer
    pad: int
    known: int
    unknown: int = 0

    @property
    def more(self) -> int:
        """How many ids it has that the ranker has not."""
        return max(0, self.tokenizer.get_vocab_size() - self.known)

    def ids(self, text: str) -> list[int]:
        """The ranker's ids of a text."""
        found = self.tokenizer.encode(text).ids
        return [self.unknown if one >= self.known else one for one in found]


def joined(tokens: Rows) -> Joined:
    """The tokenizer for a ranker's texts.

    Of a pair the second is of type 1 and has start and end of its own. Raises ConfigError where no
    tokenizer of the library reads texts as the ranker does.
    """
    if isinstance(tokens, ParlaiTokens):
        words = tokens.dictionary
        tokenizer = as_tokenizer(words.words)
        _frame(tokenizer, [words.start], [words.end])
        return Joined(tokenizer, words.pad, len(words), words.unknown)
    assert isinstance(tokens, Tokens)  # the two ways there are
    tokenizer = Tokenizer.from_str(tokens.tokenizer.to_str())
    if joint(tokenizer) == BREAK:
        cut = pre_tokenizers.Split(BREAK, "removed")
        rest = [tokenizer.pre_tokenizer] if tokenizer.pre_tokenizer else []
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cut, *rest])
    _frame(tokenizer, tokens.prefix, tokens.suffix)
    tokenizer.encode_special_tokens = True
    return Joined(tokenizer, tokens.pad, tokenizer.get_vocab_size())


def write_tokenizer(joined: Joined, folder: Path, longest: int, *, types: bool = False) -> None:
    """Write tokenizer.json, and what transformers wants to know beside it.

    longest: tokens to which it cuts. types: it also tells the two sides of a pair apart.
    """
    joined.tokenizer.save(str(folder / "tokenizer.json"))
    names = ["input_ids", *(["token_type_ids"] if types else []), "attention_mask"]
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": longest,
        "model_input_names": names,
        "pad_token": joined.tokenizer.id_to_token(joined.pad),
        "padding_side": "right",
        "truncation_side": "right",
        "split_special_tokens": True,  # a user who types [SEP] gets five ordinary characters
        "clean_up_tokenization_spaces": False,
    }
    text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")


def _frame(tokenizer: Tokenizer, prefix: Sequence[int], suffix: Sequence[int]) -> None:
    """Put these ids around a text, and around each of two."""
    name = {one: tokenizer.id_to_token(one) for one in (*prefix, *suffix)}
    one = [*(name[i] for i in prefix), "$A", *(name[i] for i in suffix)]
    two = [*(name[i] for i in prefix), "$B", *(name[i] for i in suffix)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[f"{part}:0" for part in one],
        pair=[*(f"{part}:0" for part in one), *(f"{part}:1" for part in two)],
        special_tokens=[(token, i) for i, token in name.items()],
    )
