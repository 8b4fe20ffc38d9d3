"""How surprised a generator is by the right replies: per token, per word, and as ParlAI counts.

The three are not the same number. A token is what the model's own tokenizer makes; a word is what
stands between spaces, and pays for all its tokens and its share of the reply's end. ParlAI asks for
the next word out of a dictionary, and pays neither for the end nor for words that are not in it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rejoinder.data.files import numbered_lines
from rejoinder.errors import DataError
from rejoinder.generator import Judge, TextGenerator
from rejoinder.models.generator import Generator, Rows
from rejoinder.schema import Example

Progress = Callable[[int, int], None]
ADDED = 5  # to every word's count in the dictionary, as TransferTransfo's evaluation does
MARKS = re.compile(r"\s*(\.\s*\.\s*\.|[.,;:!?])\s*")


def per_token_and_word(
    generator: TextGenerator, examples: Sequence[Example], progress: Progress | None = None
) -> tuple[float, float]:
    """Perplexity per token and per word: exp(-log likelihood of all replies / their number)."""
    costs = generator.surprise(
        [one.context for one in examples], [one.reply for one in examples], progress
    )
    total = sum(cost for cost, _ in costs)
    tokens = sum(count for _, count in costs)
    spaced = sum(_words(generator, one.reply) for one in examples)
    return _exp(total / tokens), _exp(total / spaced)


def _words(generator: TextGenerator, reply: str) -> int:
    """Words between spaces of what the generator reads of a reply; a long one keeps its start."""
    words, ids = reply.split(), generator.layout.pieces.ids
    row, whole = generator.layout.reply(reply), ids([reply])[0]
    read = next((i for i, (a, b) in enumerate(zip(row, whole, strict=False)) if a != b), len(whole))
    if read < len(whole):
        begun = (n for n in range(1, len(words)) if len(ids([" ".join(words[:n])])[0]) >= read)
        return next(begun, len(words))
    return max(1, len(words))


def of_dictionary(
    generator: TextGenerator,
    examples: Sequence[Example],
    counts: Mapping[str, int],
    progress: Progress | None = None,
) -> float:
    """Perplexity of the next word among those of a dictionary, words not in it left out.

    The model says which token comes; that share goes to the dictionary's words that begin with it,
    by their counts plus ADDED, and the shares of all words in it make 1 (the measure of the ConvAI2
    competition, whose dictionary has 19,304 words, as TransferTransfo answered it). Raises
    DataError where no word of the replies is in the dictionary.
    """
    words = Dictionary(generator, counts)
    replies = [" ".join(split(one.reply)) for one in examples]
    rows = generator.layout.candidates(replies)
    starts = {
        tuple(row): words.starts(reply, row) for reply, row in zip(replies, rows, strict=True)
    }
    scored = sum(len(starts[tuple(row)]) for row in rows)
    if not scored:
        raise DataError("no word of the replies is in the dictionary; give the one of their data")
    found = generator.judged(
        [one.context for one in examples],
        [[reply] for reply in replies],
        _next_words(words, starts),
        progress,
    )
    return _exp(sum(float(cost[0]) for cost in found) / scored)


@dataclass(frozen=True)
class Word:
    """A word of a reply: the place of its first token in the row, that token, and its own share."""

    place: int
    token: int
    share: float  # of the token's probability
    leads: bool  # whether it opens the reply


class Dictionary:
    """Words with counts, as a tokenizer begins them; the first of a text may begin otherwise."""

    def __init__(self, generator: TextGenerator, counts: Mapping[str, int]) -> None:
        self.tokenizer = generator.layout.pieces.tokenizer
        self.counts = counts
        self.first = {lead: self._first_tokens(lead) for lead in (True, False)}
        self.mass = {lead: self._mass(first) for lead, first in self.first.items()}
        self.tokens = {lead: torch.tensor(sorted(mass)) for lead, mass in self.mass.items()}

    def starts(self, reply: str, row: Sequence[int]) -> list[Word]:
        """The words of a spaced reply that are in the dictionary and in the row, which may be cut.

        `row` begins with the token that opens a reply.
        """
        begins = [found.start() for found in re.finditer(r"\S+", reply)]
        covering: dict[int, int] = {}  # where a word begins -> the number of its first token
        encoded = self.tokenizer.encode(reply, add_special_tokens=False)
        for number, (start, end) in enumerate(encoded.offsets):
            for begin in begins:
                if start <= begin < end:
                    covering.setdefault(begin, number)
        found = []
        for begin, word in zip(begins, reply.split(), strict=True):
            place, lead = covering.get(begin, len(row)) + 1, begin == 0
            token = self.first[lead].get(word)
            if token is not None and place < len(row) - 1 and row[place] == token:
                share = (self.counts[word] + ADDED) / self.mass[lead][token]
                found.append(Word(place, token, share, lead))
        return found

    def _first_tokens(self, lead: bool) -> dict[str, int]:
        before = "" if lead else "a "
        found = {}
        for word in self.counts:
            encoded = self.tokenizer.encode(before + word, add_special_tokens=False)
            covers = (
                i
                for i, (start, end) in zip(encoded.ids, encoded.offsets, strict=True)
                if start <= len(before) < end
            )
            token = next(covers, None)
            if token is not None:
                found[word] = token
        return found

    def _mass(self, first: Mapping[str, int]) -> dict[int, int]:
        found: Counter[int] = Counter()
        for word, token in first.items():
            found[token] += self.counts[word] + ADDED
        return dict(found)


def _next_words(words: Dictionary, starts: Mapping[tuple[int, ...], Sequence[Word]]) -> Judge:
    """What makes of the states of replies what their words cost in all."""

    def cost(module: Generator, states: Tensor, replies: Rows) -> Tensor:
        found = []
        for row, state, real in zip(replies.ids, states, replies.mask, strict=True):
            known = starts[tuple(row[real].tolist())]
            total = torch.zeros(())
            if known:
                before = torch.tensor([word.place - 1 for word in known])
                scores = module.next_tokens(state[before]).float().cpu()
                for word, score in zip(known, scores, strict=True):
                    among = score[words.tokens[word.leads]].logsumexp(0)
                    total -= score[word.token] - among + math.log(word.share)
            found.append(total)
        return torch.stack(found)

    return cost


def split(text: str) -> list[str]:
    """Words as ParlAI's dictionaries split them: lower case, marks apart, three dots together."""
    return MARKS.sub(lambda found: f" {''.join(found[1].split())} ", text.lower()).split()


def counted(texts: Iterable[str]) -> Counter[str]:
    """A dictionary of some texts: each word with how often it comes."""
    return Counter(word for text in texts for word in split(text))


def read_dictionary(file: Path) -> Counter[str]:
    """ParlAI's dictionary file: a word, a tab, and its count a line; `__` words are no words."""
    found: Counter[str] = Counter()
    for number, line in numbered_lines(file):
        word, tab, count = line.rstrip("\n").partition("\t")
        if not tab or not count.strip().isdigit():
            raise DataError(
                f"{file}:{number}: got {line[:60]!r}; expected a word, a tab and its count, as "
                "ParlAI's dictionaries have, so name such a file or leave the dictionary out"
            )
        if not (word.startswith("__") and word.endswith("__")):
            found[word] = int(count)
    if not found:
        raise DataError(f"{file}: no word in it; expected a word, a tab and its count a line")
    return found


def _exp(mean: float) -> float:
    """e to the mean; beyond all floats, infinity."""
    return math.exp(mean) if mean < 700 else math.inf
