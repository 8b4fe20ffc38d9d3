"""The card of an exported generator: what it is, a dialogue laid out in Python, its licence."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from rejoinder.exports.causal_models import Reading
from rejoinder.exports.causal_tokenizer import Named
from rejoinder.generator import TextGenerator
from rejoinder.layouts import Template
from rejoinder.schema import Role
from rejoinder.shape import NATIVE

PERSONA: tuple[str, ...] = ("i love tea .", "i am a guide .")
SAID: tuple[tuple[Role, str], ...] = (
    ("user", "hi , how are you ?"),
    ("assistant", "fine , and you ?"),
    ("user", "good . what do you do ?"),
)
LOADED = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({folder})
model = AutoModelForCausalLM.from_pretrained({folder})
"""
BY_TURNS = """

def read(text):
    return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)


assistant, user = tokenizer.convert_tokens_to_ids({names})
persona = {persona}
said = [
    {said},
]
ids = [tokenizer.bos_token_id, *(i for line in persona for i in read(line))]
types = [assistant] * len(ids)  # of what stands before any turn
for who, text in said:
    turn = [who, *read(text)]
    ids, types = ids + turn, types + [who] * len(turn)
ids, types = ids + [assistant], types + [assistant]  # behind this token the reply begins
ids, types = torch.tensor([ids]), torch.tensor([types])
"""
# How the reply is written, by how the model is told who speaks.
WRITTEN: dict[Reading, str] = {
    "ids": """\
written = model.generate(ids)[0, ids.shape[1] :]
""",
    "types": """\
written = model.generate(ids, token_type_ids=types)[0, ids.shape[1] :]
""",
    "vectors": """\
table = model.get_input_embeddings()
turned = table.weight[user] - table.weight[assistant]
vectors = table(ids) + (types == user)[..., None] * turned
written = model.generate(inputs_embeds=vectors)[0]
""",
}
BY_TEMPLATE = """
messages = [
    {messages},
]
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
)
written = model.generate(**inputs)[0, inputs["input_ids"].shape[1] :]
"""
SHOWN = """\
print(tokenizer.decode(written, skip_special_tokens=True))
"""
TOLD: dict[Reading, str] = {
    "ids": "Who speaks is told by the tokens alone.",
    "types": (
        "Who speaks is told twice: by the token that opens a turn, and by `token_type_ids`, which "
        "name for every token the speaker that came last. `generate` goes on with the last of "
        "them. Without them the scores are wrong."
    ),
    "vectors": (
        "Who speaks is told twice: by the token that opens a turn, and by a vector that every "
        "token has of its speaker. This architecture has no `token_type_ids`, so the assistant's "
        "vector is already in its weights, and tokens of the user get the difference, as above. A "
        "dialogue given as plain `input_ids` is read as if the assistant had said everything."
    ),
}


def snippet(generator: TextGenerator, folder: str, reading: Reading, named: Named) -> str:
    """Python that loads the folder, lays out a dialogue, and prints a reply."""
    loaded = LOADED.format(folder=json.dumps(folder))
    if isinstance(generator.layout, Template):
        messages = map(json.dumps, _messages(generator.layout))
        return loaded + BY_TEMPLATE.format(messages=",\n    ".join(messages)) + SHOWN
    turns = BY_TURNS.format(
        names=json.dumps([named["assistant"][0], named["user"][0]]),
        persona=json.dumps(PERSONA),
        said=",\n    ".join(f"({role}, {json.dumps(text)})" for role, text in SAID),
    )
    return f"import torch\n{loaded}{turns}{WRITTEN[reading]}{SHOWN}"


def _messages(layout: Template) -> list[dict[str, str]]:
    """The dialogue as the template takes it: with a system message, or without."""
    told = [{"role": "system", "content": " ".join(PERSONA)}]
    said = [{"role": role, "content": text} for role, text in SAID]
    try:
        layout.render([*told, *said], True)
    except Exception:  # templates raise what they like
        first = {"role": "user", "content": f"{told[0]['content']}\n{said[0]['content']}"}
        return [first, *said[1:]]
    return [*told, *said]


def card(
    generator: TextGenerator,
    folder: str,
    reading: Reading,
    named: Named,
    facts: Mapping[str, object],
) -> str:
    """Markdown text of the card."""
    million = int(str(facts["parameters"])) / 1e6
    return "\n".join(
        [
            "---",
            "library_name: transformers",
            "pipeline_tag: text-generation",
            "---",
            "",
            f"# {folder}",
            "",
            "A causal language model that writes the next reply of a dialogue: the generator "
            f"`{generator.name or folder}` of rejoinder, made on {_base(generator)}, as the "
            f"library's `{facts['architecture']}`. It has {million:.1f} M parameters in fp32, "
            f"adapters merged, and {facts['vocabulary']} tokens. It loads without rejoinder.",
            "",
            "```python",
            snippet(generator, folder, reading, named).rstrip("\n"),
            "```",
            "",
            *_reading(generator, reading),
            "",
            "`generation_config.json` says which tokens end a reply and which are never written. "
            "For livelier replies than the likeliest one add "
            "`do_sample=True, temperature=0.7, top_p=0.9`, as rejoinder does.",
            "",
            "The second head of the generator, which scores given replies, is left out, as a "
            "causal language model has no place for it. So a folder like this one cannot be taken "
            "back; keep the one that it was made from.",
            "",
            "## Licence",
            "",
            licence(generator),
            "",
        ]
    )


def _base(generator: TextGenerator) -> str:
    config = generator.config
    if config.base == NATIVE:
        return "a model of its own"
    return f"the base `{config.base}` (sha256 of its weights {config.base_sha256[:16]})"


def _reading(generator: TextGenerator, reading: Reading) -> list[str]:
    """What is to be known of how dialogues are read and replies come out."""
    style = generator.layout.style
    laid_out = f"as above, and texts are tokenized one by one. {TOLD[reading]}"
    if isinstance(generator.layout, Template):
        laid_out = (
            "by the chat template of its base. The persona is the system message, or opens the "
            "first message where the template knows none."
        )
    newest = f"the newest {style.max_history} messages, and " if style.max_history else ""
    blanks = " Blanks before points and around apostrophes are the tokenizer's."
    return [
        f"Dialogues are laid out {laid_out} Several at once are padded on the left, with an "
        "`attention_mask`.",
        "",
        f"It reads {newest}at most {style.max_context} tokens before a reply: of a longer dialogue "
        f"leave out the oldest messages. A reply has at most {style.max_reply} tokens."
        f"{blanks if generator.layout.forgets else ''}",
    ]


def licence(generator: TextGenerator) -> str:
    """What the card of the generator says of its licence, or what to look up."""
    said = [
        line for line in generator.card.splitlines() if re.search(r"\blicen[cs]e\b", line, re.I)
    ]
    if said:
        return "\n".join(said)
    based = f"That of its base, `{generator.config.base}`, holds on, and those of"
    if generator.config.base == NATIVE:
        based = "Look it up where the generator is from, and those of"
    return f"The card of the generator names none. {based} the dialogues it learned from."
