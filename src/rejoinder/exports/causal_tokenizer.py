"""The tokenizer of a generator as the library loads it: special tokens at the model's own ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken, Tokenizer

from rejoinder.errors import CheckpointError
from rejoinder.generator import TextGenerator
from rejoinder.layouts import Speakers
from rejoinder.text import SPEAKERS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Named = dict[str, tuple[str, int]]  # bos, eos, pad; of speakers both too -> text and id
INPUTS = ["input_ids", "attention_mask"]  # types are a matter of who speaks, not of one text
ENDLESS = 1 << 30  # the limit of a base that names none


def library_tokenizer(generator: TextGenerator) -> tuple[PreTrainedTokenizerFast, Named]:
    """The tokenizer, and the special tokens that it has by what they are.

    Raises CheckpointError where it cannot have a token of the layout at the layout's id.
    """
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer.from_str(generator.layout.tokenizer.to_str())
    named = _speakers(tokenizer, generator.layout) or _of_template(tokenizer, generator)
    told: dict[str, Any] = {
        f"{name}_token": text for name, (text, _) in named.items() if name in ("bos", "eos", "pad")
    }
    told["extra_special_tokens"] = [
        text for name, (text, _) in named.items() if name in ("assistant", "user")
    ]
    if generator.module.body.limit < ENDLESS:
        told["model_max_length"] = generator.module.body.limit
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_input_names=INPUTS,
        padding_side="left",  # where rows that are gone on with must have it
        clean_up_tokenization_spaces=False,
        **told,
    )
    if generator.template:
        made.chat_template = generator.template["text"]
    return made, named


def _speakers(tokenizer: Tokenizer, layout: object) -> Named | None:
    """The five tokens of the layout, put into the tokenizer; None for another layout."""
    if not isinstance(layout, Speakers):
        return None
    tokenizer.post_processor = None  # what the base puts around a text is no part of the layout
    ids = (layout.bos, layout.eos, layout.assistant, layout.user, layout.pad)
    found = {}
    for role, text, place in sorted(
        zip(("bos", "eos", "assistant", "user", "pad"), SPEAKERS, ids, strict=True),
        key=lambda one: one[2],
    ):
        found[role] = (_put(tokenizer, text, place), place)
    return found


def _put(tokenizer: Tokenizer, text: str, place: int) -> str:
    """Make the token at `place` a special one, there already or new -> its text."""
    text = tokenizer.id_to_token(place) or text
    if tokenizer.token_to_id(text) not in (None, place):  # the base has one of that name
        text = f"<rejoinder {text.strip('<>')}>"
    size = tokenizer.get_vocab_size()
    spare = [f"<spare {i}>" for i in range(size, place)]  # rows of the base without a token
    tokenizer.add_special_tokens([_special(one) for one in (*spare, text)])
    if tokenizer.token_to_id(text) != place:
        raise CheckpointError(
            f"the tokenizer gives {text!r} the id {tokenizer.token_to_id(text)}, but the model's "
            f"is {place}; the tokenizer.json does not belong to the base, so fetch or save the "
            "model again"
        )
    return text


def _special(text: str) -> AddedToken:
    return AddedToken(text, special=True, normalized=False)


def _of_template(tokenizer: Tokenizer, generator: TextGenerator) -> Named:
    """What a base with a chat template calls its first, last and padding token."""
    template = generator.template or {}
    named = {}
    for name in ("bos", "eos"):
        text = template.get(name, "")
        place = tokenizer.token_to_id(text) if text else None
        if place is not None:
            named[name] = (text, place)
    padding = _padding(tokenizer, generator)
    if padding is not None:
        named["pad"] = padding
    elif "eos" in named:  # as everybody does whose base has none
        named["pad"] = named["eos"]
    return named


def _padding(tokenizer: Tokenizer, generator: TextGenerator) -> tuple[str, int] | None:
    config = getattr(generator.module.body.model, "config", None)
    place = getattr(config, "pad_token_id", None)
    text = tokenizer.id_to_token(place) if isinstance(place, int) else None
    if text is not None and isinstance(place, int):
        return text, place
    special = tokenizer.get_added_tokens_decoder()
    known = [(one.content, i) for i, one in special.items() if "pad" in one.content.lower()]
    return known[0] if known else None
