"""Count what is in dialogues, and note what is odd about them, one dialogue at a time."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

from rejoinder.data.messages import to_json
from rejoinder.data.personal import mask, personal
from rejoinder.schema import Dialogue, Example, examples
from rejoinder.words import composed, written

PLACEHOLDER = re.compile(r"\[[^][]*\bname\b[^][]*\]|\{[\w\x80-\U0010ffff]+\}", re.IGNORECASE)
JOINERS = "\u200c\u200d\u200e\u200f\u061c"  # that some scripts and emoji need, and direction marks
SAMPLES = 3
SHOWN_TURNS = 4  # of the context of a sample
SHOWN_WIDTH = 160  # characters of a text in a sample


class Tally:
    """Counts over the dialogues of a file; of texts it keeps fingerprints, so it stays small."""

    def __init__(
        self, path: Path, measure: Callable[[str], int], max_context: int, max_reply: int
    ) -> None:
        self.path = path
        self.measure = measure
        self.max_context = max_context
        self.max_reply = max_reply
        self.counts: Counter[str] = Counter()
        self.context_words: Counter[int] = Counter()  # how many contexts have so many words
        self.reply_words: Counter[int] = Counter()
        self.samples: list[str] = []
        self.findings: list[str] = []
        self.odd: Counter[str] = Counter()
        self.odd_first: dict[str, str] = {}
        self.seen: set[bytes] = set()

    def add(self, line: int, dialogue: Dialogue) -> None:
        """Count one dialogue, which begins at that line."""
        self.counts["dialogues"] += 1
        where = f"{self.path}:{line} (dialogue {self.counts['dialogues']})"
        roles = [message.role for message in dialogue.messages]
        self.counts["messages"] += len(roles)
        self.counts["with_persona"] += bool(dialogue.persona)
        self.counts["with_partner_persona"] += bool(dialogue.partner_persona)
        self.counts["assistant_openers"] += roles[:1] == ["assistant"]
        self.counts["duplicate_dialogues"] += self._again(
            "dialogue", json.dumps(to_json(dialogue), ensure_ascii=False)
        )
        self._note("assistant" not in roles, "dialogues without an assistant message", where)
        self._add_lengths(dialogue)
        found = list(examples([dialogue]))
        for example in found:
            self._add_example(example, where)
        if found and len(self.samples) < SAMPLES:
            self.samples.append(_rendered(found[-1]))
        self._look_into(dialogue, where)

    def _add_lengths(self, dialogue: Dialogue) -> None:
        words = sum(len(written(text)) for text in dialogue.persona)
        tokens = sum(map(self.measure, dialogue.persona))
        for message in dialogue.messages:
            length = len(written(message.content))
            if message.role == "assistant":
                self.context_words[words] += 1
                self.reply_words[length] += 1
                self.counts["too_long"] += tokens > self.max_context
                self.counts["replies_too_long"] += self.measure(message.content) > self.max_reply
            words += length
            tokens += self.measure(message.content)

    def _add_example(self, example: Example, where: str) -> None:
        among = example.reply in example.candidates
        self.counts["examples"] += 1
        self.counts["with_candidates"] += bool(example.candidates)
        self.counts["reply_among_candidates"] += among
        self.counts["duplicate_replies"] += self._again("reply", example.reply)
        self._note(not example.reply.strip(), "blank replies", where)
        missing = bool(example.candidates) and not among
        self._note(missing, "replies that are not among their candidates", where)

    def _look_into(self, dialogue: Dialogue, where: str) -> None:
        texts = [*dialogue.persona, *dialogue.partner_persona]
        for message in dialogue.messages:
            texts += [message.content, *message.alternatives, *message.candidates]
        for text in texts:
            unfilled = PLACEHOLDER.search(text) is not None
            self._note(unfilled, "texts with a name left open, as in [name]", where)
            for finding in personal(text):
                if not self._again(finding.kind, finding.text):
                    note = f"{where}: looks like {finding.kind}: {finding.masked}"
                    self.findings.append(f"{note}; take it out, or be sure that it may be shown")

    def _again(self, kind: str, text: str) -> bool:
        """Whether a text of this kind was here before, by a fingerprint of 64 bits."""
        mark = blake2b(f"{kind}\0{composed(text)}".encode(), digest_size=8).digest()
        if mark in self.seen:
            return True
        self.seen.add(mark)
        return False

    def _note(self, is_odd: bool, what: str, where: str) -> None:
        if is_odd:
            self.odd[what] += 1
            self.odd_first.setdefault(what, where)

    def warnings(self) -> tuple[str, ...]:
        """Tell what is odd, with how often and where first, then all that looks personal."""
        odd = (f"{count} {what}, first {self.odd_first[what]}" for what, count in self.odd.items())
        return (*odd, *self.findings)


def _rendered(example: Example) -> str:
    """Show an example as lines, the reply last, with nothing personal and no control characters."""
    context = example.context
    cut = max(0, len(context.messages) - SHOWN_TURNS)
    lines = [f"persona: {text}" for text in context.persona]
    lines += [f"persona of the user: {text}" for text in context.partner_persona]
    lines += [f"({cut} messages)"] * bool(cut)
    lines += [f"{message.role}: {message.content}" for message in context.messages[cut:]]
    lines.append(f"reply: {example.reply}")
    if example.candidates:
        lines.append(f"({len(example.candidates)} candidates)")
    return "\n".join(_short(line) for line in lines)


def _short(line: str) -> str:
    line = mask(" ".join(line.split()))
    line = "".join(sign if sign.isprintable() or sign in JOINERS else "\ufffd" for sign in line)
    return line if len(line) <= SHOWN_WIDTH else line[:SHOWN_WIDTH] + "..."
