"""Is an export the model it was made from? Both score a few sample texts, and must agree."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rejoinder.candidates import SAMPLE
from rejoinder.data import read
from rejoinder.errors import CheckpointError
from rejoinder.exports.joined import Joined
from rejoinder.exports.texts import candidate_line, context_line
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue, Message, examples

CLOSE = 1e-5  # of the largest score, and of 1 at least: what rounding does, and no more
HELLO = (Dialogue((Message("user", "hi"),)), Dialogue((Message("user", "how are you?"),)))
REPLIES = ("", "yes.", "i am fine, and you?")
EACH = 3  # dialogues, and replies, of the sample


@dataclass(frozen=True)
class Checked:
    """Texts to compare on: nothing of them is cut within a word."""

    dialogues: list[Dialogue]
    contexts: list[str]  # the same as strings
    replies: list[str]
    candidates: list[str]  # the same with their marks


def sample_texts(ranker: TextRanker, joined: Joined, out: Path) -> Checked:
    """Short and long sample texts.

    Raises CheckpointError, naming `out`, where the joined tokenizer reads one of them otherwise
    than the ranker does.
    """
    tokens = ranker.tokens
    found = Checked([], [], [], [])
    dialogues, replies = sample()
    for dialogue in dialogues:
        line = context_line(tokens, dialogue)
        if line.exact:
            _check_ids(joined, line.text, tokens.contexts([dialogue])[0], out)
            found.dialogues.append(dialogue)
            found.contexts.append(line.text)
    for reply in replies:
        line = candidate_line(tokens, reply)
        if line.exact:
            _check_ids(joined, line.text, tokens.candidates([reply])[0], out)
            found.replies.append(reply)
            found.candidates.append(line.text)
    return found


def share(ours: Tensor, theirs: Tensor, out: Path, library: str) -> float:
    """The largest difference of scores, as a share of the largest score, or of 1 if that is more.

    Raises CheckpointError, naming `out`, where it is more than rounding.
    """
    largest = max(1.0, float(ours.abs().max()))
    found = float((ours.double() - theirs.double()).abs().max()) / largest
    if not found <= CLOSE:  # nor where it is not a number
        raise CheckpointError(
            f"{out}: not written: {library} scores it off by {found:.1e} of the largest score, "
            f"expected at most {CLOSE:.0e}, so that one is another model; use it with rejoinder"
        )
    return found


def ours(ranker: TextRanker, texts: Checked) -> Tensor:
    """The ranker's scores of every sample dialogue with every sample reply: -> (B, N)."""
    return torch.stack([ranker.scores(dialogue, texts.replies) for dialogue in texts.dialogues])


def _check_ids(joined: Joined, text: str, row: list[int], out: Path) -> None:
    found = joined.ids(text)
    if found != row:
        raise CheckpointError(
            f"{out}: not written: as one string {text[:60]!r} becomes {len(found)} other tokens "
            f"than the ranker reads ({len(row)}), as its tokenizer looks beyond the end of a "
            "piece; export to onnx, which takes token ids"
        )


def sample() -> tuple[list[Dialogue], list[str]]:
    """Dialogues and replies, short and long."""
    dialogues, replies = [*HELLO], [*REPLIES]
    for dialogue, _ in zip(read(SAMPLE / "dev.jsonl"), range(EACH), strict=False):
        found = [*examples([dialogue])]
        dialogues += [found[0].context, found[-1].context]
        replies.append(found[0].reply)
    return dialogues, replies
