"""The card of a ranker as ONNX: Python that runs its graphs."""

from __future__ import annotations

import json
from collections.abc import Collection

from rejoinder.exports.cards import card, filled
from rejoinder.exports.joined import Joined
from rejoinder.ranker import TextRanker

RUN = """

def run(graph, inputs):
    return onnxruntime.InferenceSession(f"{{folder}}/{{graph}}.onnx").run(None, inputs)

"""
BY_STRINGS = (
    """\
import numpy as np
import onnxruntime
from tokenizers import Tokenizer

folder = {folder}
tokenizer = Tokenizer.from_file(f"{{folder}}/tokenizer.json")
tokenizer.encode_special_tokens = True  # what a user types is text, whatever it spells
tokenizer.enable_padding(pad_id={pad_id}, pad_token={pad})


def read(texts):
    rows = tokenizer.encode_batch(texts)
    ids, mask = [row.ids for row in rows], [row.attention_mask for row in rows]
    return {{"input_ids": np.array(ids), "attention_mask": np.array(mask)}}
"""
    + RUN
    + """\
context = {context}
candidates = {candidates}
"""
)
BY_PIECES = (
    """\
import onnxruntime
import rejoinder
from rejoinder.batching import pad

folder = {folder}
ranker = rejoinder.load("the ranker that this was made from")


def read(rows):
    ids, mask = pad(rows, {pad_id})
    return {{"input_ids": ids.numpy(), "attention_mask": mask.long().numpy()}}
"""
    + RUN
    + """\
dialogue = rejoinder.Dialogue((rejoinder.Message("user", "hi , how are you ?"),))
context = ranker.tokens.contexts([dialogue])[0]
candidates = ranker.tokens.candidates({replies})
"""
)
SCORED = {
    "bi": """\
(left,), (right,) = run("{left}", read([context])), run("{right}", read(candidates))
print(left @ right.T)
""",
    "poly": """\
codes, mask = run("context", read([context]))
(vectors,) = run("candidate", read(candidates))
print(run("score", {{"codes": codes, "codes_mask": mask, "candidates": vectors}}))
""",
    "cross": """\
pairs = [(context, candidate) for candidate in candidates]
types = np.array([row.type_ids for row in tokenizer.encode_batch(pairs)])
print(run("cross", read(pairs) | {{"token_type_ids": types}}))
""",
    "cross by pieces": """\
pairs = [[*context, *candidate] for candidate in candidates]
types = [[0] * len(context) + [1] * len(candidate) for candidate in candidates]
print(run("cross", read(pairs) | {{"token_type_ids": pad(types)[0].numpy()}}))
""",
}
USE = (
    "`config.json` names what goes into each graph and what comes out of it. Scores are those that "
    "rejoinder gives: higher is better, and they compare candidates of one context."
)
PIECES_USE = (
    " The tokenizer reads every piece of a context by itself, and their ids stand one behind the "
    "other between a start and an end, which is what rejoinder does here."
)
PADDING_USE = (
    " Padding is part of these scores, as it was where the ranker learned: give contexts one by "
    "one, and pad the candidates of one context to the longest of them."
)


def onnx_card(ranker: TextRanker, folder: str, graphs: Collection[str], text: Joined | None) -> str:
    """Markdown text of an ONNX folder's card; text: how a context is one string, if it can be."""
    kind, one = ranker.config.kind, "encoder.onnx" in graphs
    scored = SCORED["cross by pieces" if kind == "cross" and text is None else kind]
    start = BY_PIECES if text is None else BY_STRINGS
    pad = text.tokenizer.id_to_token(text.pad) if text else ""
    code = filled(
        start + scored,
        ranker,
        folder,
        pad_id=str(ranker.tokens.pad),
        pad=json.dumps(pad),
        left="encoder" if one else "context",
        right="encoder" if one else "candidate",
    )
    use = USE + (PIECES_USE if text is None else "")
    use += PADDING_USE if ranker.module.reads_padding else ""
    return card(ranker, folder, ("onnx", "text-ranking"), code, use)
