"""The cards of exported rankers: what they are, Python that uses them, the text of a context."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from rejoinder.config import ModelConfig
from rejoinder.exports.texts import BREAK, candidate_line, context_line, joint
from rejoinder.parlai_text import ParlaiTokens
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue, Message
from rejoinder.shape import NATIVE
from rejoinder.text import TextFormat
from rejoinder.tokens import Rows, Tokens

ASKED = Dialogue((Message("user", "hi , how are you ?"),), ("i love tea .",))
REPLIES = ("fine , and you ?", "i am a guide .")
SENTENCE = """\
from sentence_transformers import SentenceTransformer

model = SentenceTransformer({folder})
contexts = model.encode_query([{context}])
candidates = model.encode_document({replies})
print(model.similarity(contexts, candidates))
"""
CROSS = """\
from sentence_transformers import CrossEncoder

model = CrossEncoder({folder})
context = {context}
print(model.predict([(context, candidate) for candidate in {candidates}]))
"""
SCORES = (
    "gives the scores that rejoinder gives: higher is better, and they compare candidates of one "
    "context."
)


def sentence_card(ranker: TextRanker, folder: str) -> str:
    """Markdown text of a SentenceTransformer's card."""
    mark = "" if isinstance(ranker.tokens, ParlaiTokens) else ", and gets its mark by itself"
    return card(
        ranker,
        folder,
        ("sentence-transformers", "sentence-similarity"),
        filled(SENTENCE, ranker, folder),
        f"A context is a query; a candidate is a document{mark}. `similarity` {SCORES}",
    )


def cross_card(ranker: TextRanker, folder: str) -> str:
    """Markdown text of a CrossEncoder's card."""
    return card(
        ranker,
        folder,
        ("sentence-transformers", "text-ranking"),
        filled(CROSS, ranker, folder),
        f"`predict`, which has no sigmoid here, {SCORES}",
    )


def filled(code: str, ranker: TextRanker, folder: str, **more: str) -> str:
    """Code with the name of its folder, a context and candidates of a ranker's format."""
    lines = [candidate_line(ranker.tokens, reply).text for reply in REPLIES]
    return code.format(
        folder=json.dumps(folder),
        context=json.dumps(context_line(ranker.tokens, ASKED).text),
        candidates=json.dumps(lines),
        replies=json.dumps(REPLIES),
        **more,
    )


def card(ranker: TextRanker, folder: str, place: tuple[str, str], code: str, use: str) -> str:
    """Markdown text of a card: its library and task, code, and what is to be said of it."""
    library, task = place
    lines = [
        "---",
        f"library_name: {library}",
        f"pipeline_tag: {task}",
        "---",
        "",
        f"# {folder}",
        "",
        f"A {ranker.config.kind}-encoder that scores candidate replies to a dialogue: "
        f"`{ranker.name or folder}` of rejoinder, {_made_on(ranker.config)}. Its weights are in "
        "fp32, with adapters merged.",
        "",
        "```python",
        code.rstrip("\n"),
        "```",
        "",
        use,
        "",
        "## The text of a context",
        "",
        "Pieces, the oldest first:",
        "",
        *_pieces(ranker.tokens.style),
        "",
        f"{_between(ranker.tokens)} A context has at most {ranker.tokens.style.max_context} "
        f"tokens, a candidate {ranker.tokens.style.max_reply}, start and end included. Cut longer "
        "ones yourself: a context by its oldest messages, a candidate at its end. With rejoinder "
        "at hand, `rejoinder.exports.context_text(ranker, dialogue)` makes such a string of a "
        "dialogue.",
        "",
        "## Licence",
        "",
        _licence(ranker),
        "",
    ]
    return "\n".join(lines)


def _made_on(config: ModelConfig) -> str:
    if config.base == NATIVE:
        return "on a transformer of its own"
    return f"made on the base `{config.base}` (sha256 of its weights {config.base_sha256[:16]})"


def _pieces(style: TextFormat) -> Iterator[str]:
    marks = {
        "a sentence of the persona": style.persona_mark,
        "a message of the user": style.user_mark,
        "a message of the assistant, and a candidate": style.assistant_mark,
        "a system message": style.system_mark,
    }
    for name, mark in marks.items():
        yield f"- {name}: `{mark} ...`" if mark else f"- {name}: as it is"


def _between(tokens: Rows) -> str:
    if isinstance(tokens, ParlaiTokens):
        return (
            f"Between two of them stands `{json.dumps(tokens.dictionary.words.delimiter)}`. Here a "
            "candidate has no mark."
        )
    if isinstance(tokens, Tokens) and joint(tokens.tokenizer) == BREAK:
        return 'Between two of them stands the sign `"\\x1e"`, and no blank.'
    return "Between two of them stands a blank."


def _licence(ranker: TextRanker) -> str:
    said = [line for line in ranker.card.splitlines() if re.search(r"\blicen[cs]e\b", line, re.I)]
    if said:
        return "\n".join(said)
    of_base = f"That of its base, `{ranker.config.base}`, holds on, and those"
    native = ranker.config.base == NATIVE
    return (
        f"The card of the ranker names none. {'Those' if native else of_base} of the dialogues it "
        f"learned from{' hold on' if native else ''}."
    )
