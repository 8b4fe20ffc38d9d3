"""A generator as a folder of the library: a plain causal language model, loaded without rejoinder.

    facts = export_causal(zoo.load_generator("persona-generator"), Path("plain"))

    config.json, generation_config.json    what it is; which tokens end a reply, which never come
    model.safetensors                      weights in fp32, adapters merged
    tokenizer.json, tokenizer_config.json  with the layout's own tokens as special ones
    chat_template.jinja                    of a base that has one and is used by it
    README.md                              where it is from, and a dialogue laid out in Python

Read `causal_models` for what becomes of the weights. The folder is loaded again as anybody would,
and only kept where its scores of every next token are ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rejoinder.errors import CheckpointError
from rejoinder.exports.causal_card import PERSONA, SAID, card
from rejoinder.exports.causal_models import Reading, library_model, reading_of, settled
from rejoinder.exports.causal_tokenizer import Named, library_tokenizer
from rejoinder.exports.checking import CLOSE
from rejoinder.exports.quiet import quiet
from rejoinder.files import check_new, whole_folder
from rejoinder.generator import TextGenerator
from rejoinder.layouts import Layout
from rejoinder.models.generator import Generator, Rows
from rejoinder.schema import Dialogue, Message

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHECKED = (  # dialogues and replies whose scores are compared
    (
        Dialogue(tuple(Message(role, text) for role, text in SAID), PERSONA),
        "i show people round a museum .",
    ),
    (Dialogue((Message("user", "hello there !"),)), "hi ! do you like dogs ?"),
)


def export_causal(generator: TextGenerator, out: Path) -> dict[str, Any]:
    """Write the generator to `out` as a causal language model of the library.

    -> its architecture, rows of its vocabulary, parameters, and the largest difference between
    its scores and ours, as a share of the largest score (or of 1, if that is more). Raises
    ConfigError where the library has no model of this shape, CheckpointError where what was
    written does not load or does not score as the generator does; then nothing is written.
    """
    check_new(out)  # now, not after all the work
    module = settled(generator.module)
    reading = reading_of(module)
    with quiet(), whole_folder(out) as new:
        tokenizer, named = library_tokenizer(generator)
        model = library_model(module)
        _name_tokens(model, generator, named)
        facts: dict[str, Any] = {
            "architecture": type(model).__name__,
            "vocabulary": len(module.words) + len(module.added),
            "parameters": sum(weight.numel() for weight in model.parameters()),
        }
        model.save_pretrained(new)
        tokenizer.save_pretrained(new)
        text = card(generator, out.name, reading, named, facts)
        (new / "README.md").write_text(text, encoding="utf-8", errors="replace")
        facts["difference"] = _checked(generator.layout, module, new, out, named)
    return facts


def _name_tokens(model: PreTrainedModel, generator: TextGenerator, named: Named) -> None:
    """Tell the model which tokens begin and end texts, and how replies are written."""
    from transformers import GenerationConfig

    meaning = generator.meaning()
    ids = {f"{name}_token_id": named[name][1] for name in ("bos", "pad") if name in named}
    if "eos" in named:
        model.config.eos_token_id = named["eos"][1]
    for name, place in ids.items():
        setattr(model.config, name, place)
    model.generation_config = GenerationConfig(
        **ids,
        eos_token_id=sorted(meaning.stop),
        max_new_tokens=generator.layout.style.max_reply,
        min_new_tokens=1,
        suppress_tokens=sorted(meaning.never) or None,
        begin_suppress_tokens=sorted(meaning.not_first) or None,
    )


def _checked(layout: Layout, module: Generator, new: Path, out: Path, named: Named) -> float:
    """How far the folder's scores are from ours. CheckpointError where it is not the generator."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    load: Any = AutoModelForCausalLM.from_pretrained
    try:
        tokenizer = AutoTokenizer.from_pretrained(new, local_files_only=True)
        model, info = load(
            new, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).split("\n")[0][:160]
        raise CheckpointError(
            f"{out}: not written, since it could not be loaded: {reason}"
        ) from None
    wrong = [name for names in info.values() for name in names]
    if wrong:
        raise CheckpointError(
            f"{out}: not written: {len(wrong)} weights would be missing or unknown, e.g. "
            f"{wrong[0]}; expected all of them to fit the library's {type(model).__name__}"
        )
    _check_tokens(tokenizer, layout, out, named)
    found = _difference(layout, module, model)
    if not found <= CLOSE:  # nor where it is not a number
        raise CheckpointError(
            f"{out}: not written: scores of the library's {type(model).__name__} are off by "
            f"{found:.1e} of the largest one, expected at most {CLOSE:.0e}, so it reads otherwise "
            "than this generator; export one on GPT, GPT-2, BERT, Llama or Qwen"
        )
    return found


def _check_tokens(tokenizer: Any, layout: Layout, out: Path, named: Named) -> None:
    ids: dict[str, Any] = {text: place for text, place in named.values()}
    found = dict(zip(ids, tokenizer.convert_tokens_to_ids(list(ids)), strict=True))
    for dialogue, reply in CHECKED:
        for text in (reply, *(message.content for message in dialogue.messages)):
            ids[text] = layout.pieces.ids([text])[0]
            found[text] = tokenizer.encode(
                text, add_special_tokens=False, split_special_tokens=True
            )
    for text, expected in ids.items():
        if found[text] != expected:
            raise CheckpointError(
                f"{out}: not written: the library's {type(tokenizer).__name__} makes "
                f"{found[text]} of {text!r}, expected {expected}: for this kind of base it builds "
                "a tokenizer of its own; take a base whose tokenizer.json it reads as it is"
            )


@torch.inference_mode()
def _difference(layout: Layout, module: Generator, model: PreTrainedModel) -> float:
    """The largest one on dialogues with their replies, as a share of the largest score."""
    differences, sizes = [], [torch.ones(1)]
    for dialogue, reply in CHECKED:
        ids = torch.tensor([layout.context(dialogue) + layout.reply(reply)])
        ours = module.next_tokens(module(Rows(ids, torch.ones_like(ids, dtype=torch.bool))))
        theirs = library_scores(model, ids, module)
        differences.append((ours - theirs).abs().flatten())
        sizes.append(ours.abs().flatten())
    return float(torch.cat(differences).max() / torch.cat(sizes).max())


def library_scores(model: PreTrainedModel, ids: Tensor, module: Generator) -> Tensor:
    """What the exported model says of the token behind each of a row's: (1, T) -> (1, T, V)."""
    reading: Reading = reading_of(module)
    types = module.types(ids)
    if types is None or module.speakers is None:
        scores: Tensor = model(input_ids=ids).logits
    elif reading == "types":
        scores = model(input_ids=ids, token_type_ids=types).logits
    else:
        assistant, user = module.speakers
        table: Any = model.get_input_embeddings()
        turned = table.weight[user] - table.weight[assistant]
        vectors = table(ids) + (types == user)[..., None] * turned
        scores = model(inputs_embeds=vectors).logits
    return scores
