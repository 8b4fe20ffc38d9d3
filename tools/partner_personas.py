"""Guess the user's persona of each dialogue, so that both sides can be learned.

    python tools/partner_personas.py DATA PERSONAS.jsonl OUT.jsonl --model persona-bi --keep 0.7

Persona-Chat gives both speakers a persona out of one collection, but ConvAI2's files tell only that
of the replying one. PERSONAS.jsonl has lines {"personas": [sentence, ...]}; each is weighed against
all that the user says, and the likeliest becomes `partner_persona` of the dialogue, in the share
`--keep` of dialogues where it stands out most. The same guess is made for the assistant, whose
persona is known, and the share of right ones printed: that is how far to trust the others.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

import rejoinder
from rejoinder.baselines import untuned
from rejoinder.data import read, write_jsonl
from rejoinder.data.files import numbered_lines
from rejoinder.errors import RejoinderError
from rejoinder.schema import Dialogue, Message, Role

SHARPNESS = 8.0  # of the probability that an utterance came of a persona sentence


class Guess(NamedTuple):
    """The likeliest persona and by how much (nats) it beats the best that shares no sentence."""

    persona: tuple[str, ...]
    margin: float


def main() -> None:
    """Parse, guess, check, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("data")
    parser.add_argument("personas")
    parser.add_argument("out")
    parser.add_argument("--model", default="persona-bi")
    parser.add_argument("--keep", type=float, default=0.7)
    asked = parser.parse_args()
    dialogues = list(read(asked.data))
    lines = numbered_lines(Path(asked.personas))
    known = {tuple(sorted(json.loads(line)["personas"])) for _, line in lines}
    personas = sorted(known | {tuple(sorted(dialogue.persona)) for dialogue in dialogues})
    guesser = Guesser(personas, dialogues, asked.model)
    trial = [guesser.guess(dialogue, "assistant") for dialogue in dialogues]
    right = [
        bool(set(guess.persona) & set(dialogue.persona))
        for guess, dialogue in zip(trial, dialogues, strict=True)
    ]
    sure = clearest(trial, asked.keep)
    print(
        f"assistant's persona guessed: {sum(right) / len(right):.3f} of all,"
        f" {sum(right[i] for i in sure) / len(sure):.3f} of the clearest {asked.keep:.0%}"
    )
    guesses = [guesser.guess(dialogue, "user") for dialogue in dialogues]
    for i in clearest(guesses, asked.keep):
        dialogues[i] = replace(dialogues[i], partner_persona=guesses[i].persona)
    write_jsonl(dialogues, Path(asked.out))


def clearest(guesses: Sequence[Guess], share: float) -> list[int]:
    """Numbers of the guesses with the largest margins."""
    order = sorted(range(len(guesses)), key=lambda i: -guesses[i].margin)
    return order[: round(share * len(order))]


class Guesser:
    """How well each utterance of some dialogues goes with each sentence of some personas."""

    def __init__(
        self, personas: Sequence[tuple[str, ...]], dialogues: Sequence[Dialogue], model: str
    ) -> None:
        self.personas = personas
        sentences = sorted({sentence for persona in personas for sentence in persona})
        texts = sorted({message.content for d in dialogues for message in d.messages})
        self.row = {text: i for i, text in enumerate(texts)}
        number = {sentence: i for i, sentence in enumerate(sentences)}
        longest = max(map(len, personas))
        self.members = torch.full((len(personas), longest), -1)  # (P, 6) sentence numbers
        for i, persona in enumerate(personas):
            self.members[i, : len(persona)] = torch.tensor([number[s] for s in persona])
        likeness = _alike(texts, sentences) + _answers(texts, sentences, model)
        self.fit = (SHARPNESS * likeness).log_softmax(-1)  # (texts, sentences)

    def guess(self, dialogue: Dialogue, role: Role) -> Guess:
        """Weigh every persona against what `role` says: a mixture of its sentences and of chance.

        Without the part of chance, one utterance that fits no sentence would decide.
        """
        said = [self.row[m.content] for m in dialogue.messages if m.role == role]
        empty = self.members < 0
        each = self.fit[said][:, self.members.clamp(min=0)].masked_fill(empty, -torch.inf)
        mixed = each.logsumexp(-1) - (~empty).sum(-1).log()  # (utterances, personas)
        chance = -torch.tensor(float(self.fit.shape[1])).log()
        weight = torch.logaddexp(mixed, chance).sum(0)
        order = weight.argsort(descending=True).tolist()
        best = self.personas[order[0]]
        other = next((i for i in order if not set(best) & set(self.personas[i])), order[-1])
        return Guess(best, float(weight[order[0]] - weight[other]))


def _alike(texts: Sequence[str], sentences: Sequence[str]) -> Tensor:
    """Cosine of the untuned encoder's vectors: -> (texts, sentences)."""
    ranker = untuned().halved()
    return ranker.encode_candidates(texts) @ ranker.encode_candidates(sentences).T


def _answers(texts: Sequence[str], sentences: Sequence[str], model: str) -> Tensor:
    """How well a text answers a greeting for one whose persona is the sentence alone."""
    ranker = rejoinder.load(model).halved()
    greeted = (Message("user", "hi"),)
    contexts = torch.cat(
        [
            ranker.encode_contexts([Dialogue(greeted, persona=(s,)) for s in part]).vectors[:, 0]
            for part in (sentences[i : i + 256] for i in range(0, len(sentences), 256))
        ]
    )
    return ranker.encode_candidates(texts) @ contexts.T


if __name__ == "__main__":
    try:
        main()
    except (RejoinderError, OSError) as error:
        sys.exit(f"{Path(__file__).name}: {error}")
