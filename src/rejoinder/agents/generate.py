"""Write the reply."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from rejoinder.agents.protocol import newest, said_in
from rejoinder.decoding import Decoding
from rejoinder.errors import ConfigError
from rejoinder.generator import TextGenerator
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue, Reply, Scored
from rejoinder.words import folded

MEANING = (
    "mean probability of the reply's tokens as the generator sees them (geometric), which tells "
    "how usual its words are here, not whether they are true"
)
TRIES = 4  # replies written at once where what was written had been said already
LATER = 1000  # added to the seed for every message before, so that no two replies share draws
Heard = Callable[[str], None]


class GenerateAgent:
    """Writes a reply; with `best_of` several, of which the one is said that scores best.

    Those are scored by the generator's next-utterance head, or by `chooser`, a ranker. The
    confidence is the mean likelihood of the reply's tokens. Replies that were said already are
    written anew, sampled where the way of writing would give the same again, unless `repeat`.
    """

    def __init__(
        self,
        generator: TextGenerator,
        how: Decoding | None = None,
        *,
        best_of: int = 1,
        chooser: TextRanker | None = None,
        max_history: int = 0,
        repeat: bool = False,
    ) -> None:
        if best_of < 1:
            raise ConfigError(f"best_of is {best_of}; expected at least 1 reply to choose from")
        how = how or Decoding()
        if best_of > 1 and (how.greedy or how.beams > 1):
            raise ConfigError(
                f"best_of is {best_of}, but greedy and beams write one and the same reply each "
                "time; leave them out to sample, or best_of"
            )
        self.generator = generator
        self.how = how
        self.best_of = best_of
        self.chooser = chooser
        self.max_history = max_history
        self.repeat = repeat

    def respond(self, dialogue: Dialogue) -> Reply:
        """The reply to say next, with what else was written."""
        seen = newest(dialogue, self.max_history)
        texts = self.write(dialogue, seen)
        return self.said(seen, texts)

    def stream(self, dialogue: Dialogue, heard: Heard) -> Reply:
        """`respond`, telling `heard` each piece of the reply as it is written.

        It comes in one piece where several are written to choose from. What begins like something
        that was said already is held back until it differs, as what was heard cannot be taken back.
        """
        if self.best_of > 1 or self.how.beams > 1:
            reply = self.respond(dialogue)
            heard(reply.text)
            return reply
        seen = newest(dialogue, self.max_history)
        text = ""
        for piece in self._unsaid(dialogue, seen):
            heard(piece)
            text += piece
        return self.said(seen, [text])

    def _unsaid(self, dialogue: Dialogue, seen: Dialogue) -> Iterator[str]:
        """Pieces of a reply, held back as long as they are the beginning of something said."""
        how = self._seeded(dialogue)
        said = set() if self.repeat else said_in(dialogue)
        held = ""
        pieces = self.generator.stream(seen, how)
        for piece in pieces:
            held += piece
            if not any(old.startswith(folded(held)) for old in said):
                yield held
                yield from pieces
                return
        if folded(held) not in said:
            yield held
            return
        yield self.said(seen, self.write(dialogue, seen)).text

    def write(self, dialogue: Dialogue, seen: Dialogue) -> list[str]:
        """Distinct new replies, at least one; `seen` is what the generator reads."""
        how = self._seeded(dialogue)
        said = set() if self.repeat else said_in(dialogue)
        texts = self._several(seen, how, self.best_of)
        fresh = [text for text in texts if folded(text) not in said]
        if not fresh:  # write others: hotter each time, as a model may be very sure of one
            for number, heat in enumerate((1.0, 1.5, 2.0), 1):
                drawn = replace(
                    how,
                    greedy=False,
                    beams=1,
                    temperature=max(heat, how.temperature),
                    top_k=0,
                    top_p=1.0,
                    seed=how.seed + number * LATER // 4,
                )
                more = self._several(seen, drawn, TRIES)
                fresh = [text for text in more if folded(text) not in said]
                if fresh:
                    break
        return list(dict.fromkeys(fresh or texts))

    def said(self, seen: Dialogue, texts: Sequence[str], plain: Dialogue | None = None) -> Reply:
        """The best of some replies as what is said, the others as what was considered.

        `plain` is what the chooser reads, where the generator has seen more than was said.
        """
        learned = self.generator.config.mc_coef > 0  # else its head says nothing
        if len(texts) > 1 and self.chooser:
            scores = self.chooser.scores(plain or seen, texts).tolist()
        elif len(texts) > 1 and learned:
            scores = self.generator.scores(seen, texts).tolist()
        else:
            scores = self.generator.likelihoods([seen], [texts])[0].tolist()
        ranked = sorted(zip(scores, texts, strict=True), key=lambda one: -one[0])
        considered = tuple(Scored(text, score) for score, text in ranked)
        best = considered[0].text
        likely = considered[0].score
        if len(texts) > 1:  # then the scores may be another model's
            likely = float(self.generator.likelihoods([seen], [[best]])[0][0])
        return Reply(best, min(1.0, math.exp(likely)), considered, MEANING)

    def _several(self, seen: Dialogue, how: Decoding, count: int) -> list[str]:
        if how.greedy or how.beams > 1:
            return self.generator.write([seen], how)
        return self.generator.several(seen, how, count)

    def _seeded(self, dialogue: Dialogue) -> Decoding:
        return replace(self.how, seed=self.how.seed + LATER * len(dialogue.messages))
