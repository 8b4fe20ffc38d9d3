"""One self-describing folder per generator (see `saved`).

Weights under `body.` carry the names of the base's own state, adapters those names with
`.lora_A.weight` and `.lora_B.weight`; `added` are the vectors of the layout's own tokens, and
`choice.` is the next-utterance head. An imported generator (base `native`) has no base to be found
again: config.json tells its shape and which of its tokens are the layout's, and all weights are its
own.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from tokenizers import Tokenizer
from torch import Tensor

from rejoinder import checkpoint
from rejoinder.checkpoint import LENGTHS
from rejoinder.config import GeneratorConfig, Kind, ModelConfig, from_mapping, to_mapping
from rejoinder.errors import CheckpointError, ConfigError
from rejoinder.generator import TextGenerator
from rejoinder.layouts import Layout, Render, Speakers, Template
from rejoinder.models.build import add_lora, build_generator
from rejoinder.models.generator import Generator
from rejoinder.models.gpt import Gpt, GptShape
from rejoinder.models.pretrained import find_base
from rejoinder.saved import card_of, kind_of, read_config, read_weights, resolve, write_folder
from rejoinder.shape import NATIVE
from rejoinder.text import SPEAKERS, TextFormat
from rejoinder.tokens import read_tokenizer
from rejoinder.weights import (
    OWN_WORDS,
    assign,
    fill,
    fill_on_base,
    plain_name,
    state,
    to_save,
    word_names,
)


@dataclass(frozen=True)
class ChatTemplate:
    """What a base says of its chat template, and the tokens that it names."""

    text: str
    bos: str
    eos: str


def fresh(config: GeneratorConfig, style: TextFormat, *, trainable: bool = False) -> TextGenerator:
    """A generator on its pretrained base, not trained yet; with `trainable` adapters are put on.

    Raises CheckpointError for a base that cannot be read, ConfigError for settings beyond it.
    """
    base = find_base(config.base, config.base_sha256)
    config = replace(config, base_sha256=base.sha256)
    module = build_generator(config, base)
    if trainable and config.lora:
        add_lora(module, config.lora, config.lora_alpha)
    tokenizer = read_tokenizer(base.folder / "tokenizer.json")
    template = chat_template(base.folder) if config.layout == "template" else None
    check_room(module, style)
    layout = _layout(module, tokenizer, style, template)
    made = TextGenerator(module, layout, config, name=f"untuned generator on {config.base}")
    made.template = asdict(template) if template else None
    return made


def fresh_native(
    config: GeneratorConfig,
    shape: GptShape,
    special: Sequence[int],
    tokenizer: Tokenizer,
    style: TextFormat,
) -> TextGenerator:
    """A generator on a GPT of our own, not trained yet; `special` are the ids of SPEAKERS in it.

    Raises ConfigError for settings beyond it.
    """
    if config.lora:
        raise ConfigError(
            f"lora is {config.lora}, but the base is native: its weights are the model's own and "
            "all learned; take lora 0"
        )
    module = build_generator(config, shape, special)
    check_room(module, style)
    layout = Speakers(tokenizer, special, style, rows=shape.vocab_size)
    return TextGenerator(module, layout, config, name=f"untuned generator on {NATIVE}")


def save(
    generator: TextGenerator,
    folder: Path,
    *,
    card: str = "",
    training: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    write: bool = True,
) -> None:
    """Write the folder whole or not at all; `dtype` rounds the weights.

    Of several processes only one should `write`; the others put weights in pieces together.
    """
    config = generator.config
    weights = to_save(
        generator.module,
        generator.adapters,
        folder,
        lora=config.lora,
        frozen=config.freeze_embeddings and config.base != NATIVE,
        dtype=dtype,
    )
    if not write:
        return
    settings = {
        "model": to_mapping(config),
        **_native(generator),
        "text": asdict(generator.layout.style),
        "template": generator.template,
        "training": dict(training or {}),
    }
    write_folder(
        folder, settings, weights, {"tokenizer.json": generator.layout.tokenizer.to_str()}, card
    )


def load(folder: Path, *, trainable: bool = False) -> TextGenerator:
    """Read a folder that `save` wrote; adapters are merged into the base unless `trainable`.

    Raises CheckpointError naming the file and what does not fit.
    """
    folder = resolve(folder)
    told = _settings(folder)
    config, template = told.model, told.template
    weights = read_weights(folder / "model.safetensors")
    module = _filled(told, weights, folder, trainable=trainable)
    try:
        check_room(module, told.text)
    except ConfigError as error:
        raise CheckpointError(
            f"{folder / 'config.json'}: {error}; save or fetch the model again"
        ) from None
    tokenizer = read_tokenizer(folder / "tokenizer.json")
    layout = _layout(module, tokenizer, told.text, template, told.special)
    made = TextGenerator(module, layout, config, name=folder.name)
    made.card, made.training = card_of(folder), dict(read_config(folder).get("training") or {})
    made.template = asdict(template) if template else None
    if not trainable:
        kept = [name for name in weights if ".lora_" in name]
        if not getattr(module, OWN_WORDS, False):  # those are saved, so nothing may be added
            module.merge_words()
            kept += [name for name in weights if name.startswith("shift_")]
        made.adapters = {name: weights[name] for name in kept}
    return made


def _filled(
    told: Settings, weights: Mapping[str, Tensor], folder: Path, *, trainable: bool
) -> Generator:
    """The module with a checkpoint's weights; a native one takes them as they are, uncopied."""
    config = told.model
    if told.shape:
        with torch.device("meta"):
            module = build_generator(config, told.shape, told.special)
        assign(module, weights, folder)
        return module.eval()
    module = build_generator(config, find_base(config.base, config.base_sha256))
    fill_on_base(module, config, weights, folder, trainable=trainable)
    return module


# What goes with the weights of a checkpoint that training starts from.
INHERITED = ("base", "base_sha256", "lora", "lora_alpha")
OF_GENERATORS = ("layout", "words_rank")
OF_NATIVE = ("dropout", "attention_dropout", "choice_dropout")  # where nothing else is asked for
ENCODERS = ("context_encoder", "encoder")  # of a ranker: the tower that a generator takes up


def initialise(
    folder: Path,
    config: GeneratorConfig,
    given: Collection[str] = (),
    style: TextFormat | None = None,
) -> tuple[TextGenerator, list[str], list[str]]:
    """A trainable generator with the weights of a checkpoint, of a generator or of a ranker.

    Base and adapters are the checkpoint's; so are a generator's layout and text format, but for how
    much text is read (LENGTHS), which is that of `style` where `given` names it. Of a ranker the
    tower is taken that reads contexts. Returns the generator, the names of weights that the
    checkpoint does not have, and of those that a generator has no place for.
    """
    folder = resolve(folder)
    old: GeneratorConfig | ModelConfig
    told = None
    taken_up: dict[str, Any] = {}
    if kind_of(folder) == "generator":
        told = _settings(folder)
        old = told.model
        asked = {name: getattr(style, name) for name in LENGTHS if style and name in given}
        style = replace(told.text, **asked)
        same = [*OF_GENERATORS, *(name for name in OF_NATIVE if told.shape and name not in given)]
        taken_up = {name: getattr(old, name) for name in same}
        if old.words_rank:  # which stands on vectors that are kept
            taken_up["freeze_embeddings"] = old.freeze_embeddings
    else:
        old = checkpoint.config_of(folder)
        if old.base == NATIVE:
            raise ConfigError(
                f"{folder}: is a {old.kind}-encoder on an encoder of its own, which cannot become "
                "a language model; begin with a generator, or with a base (--base)"
            )
    wanted = replace(config, **taken_up, **{name: getattr(old, name) for name in INHERITED})
    style = style or TextFormat()
    if told and told.shape:
        tokenizer = read_tokenizer(folder / "tokenizer.json")
        made = fresh_native(wanted, told.shape, told.special, tokenizer, style)
    else:
        made = fresh(wanted, style, trainable=True)
    target = {plain_name(name): tensor for name, tensor in made.module.state_dict().items()}
    taken, left = {}, set()
    for name, weight in read_weights(folder / "model.safetensors").items():
        tower, _, rest = name.partition(".")
        heir = f"body.{rest}" if tower in ENCODERS else name
        if heir in target:
            taken[heir] = weight
        else:
            left.add(tower)
    fill(made.module, taken, folder)
    own = set(state(made.module, only_adapters=old.lora > 0))
    kept = old.freeze_embeddings and old.base != NATIVE
    own -= word_names(made.module) if kept else set()  # those of the base
    return made, sorted(own - set(taken)), sorted(left)


class Settings(NamedTuple):
    """What config.json says of a generator; `shape` and `special` of a native one."""

    model: GeneratorConfig
    text: TextFormat
    template: ChatTemplate | None
    shape: GptShape | None
    special: tuple[int, ...]


def _settings(folder: Path) -> Settings:
    settings = read_config(folder)
    where = str(folder / "config.json")
    if kind_of(folder) in get_args(Kind):
        raise CheckpointError(
            f"{folder}: is a {kind_of(folder)}-encoder, which chooses among replies; expected a "
            "generator, which writes them, so name one that `rejoinder train generator` made"
        )
    try:
        config = from_mapping(GeneratorConfig, settings["model"], where)
        style = from_mapping(TextFormat, settings["text"], where)
        told = settings.get("template")
        template = ChatTemplate(**told) if told else None
        if config.base != NATIVE:
            return Settings(config, style, template, None, ())
        shape = from_mapping(GptShape, settings["shape"], where)
        special = tuple(int(settings["special"][token]) for token in SPEAKERS)
        if len(set(special)) < len(SPEAKERS) or not all(0 <= i < shape.vocab_size for i in special):
            raise ValueError(f"special is {special}; expected five ids below {shape.vocab_size}")
        return Settings(config, style, template, shape, special)
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
        what = str(error).removeprefix(f"{where}: ")
        what += " is missing" if isinstance(error, KeyError) else ""
        raise CheckpointError(
            f"{where}: not a generator's settings: {what}; save or fetch the model again"
        ) from None


def _native(generator: TextGenerator) -> dict[str, Any]:
    """What config.json says of a generator that has no base: its shape, and the layout's tokens."""
    if generator.config.base != NATIVE:
        return {}
    model, layout = generator.module.body.model, generator.layout
    assert isinstance(model, Gpt)
    assert isinstance(layout, Speakers)
    special = dict(zip(SPEAKERS, layout.ids, strict=True))
    return {"shape": asdict(model.config), "special": special}


def _layout(
    module: Generator,
    tokenizer: Tokenizer,
    style: TextFormat,
    template: ChatTemplate | None,
    special: Sequence[int] = (),
) -> Layout:
    if template is None:
        size = len(module.body.words)
        ids = special or range(size, size + len(SPEAKERS))
        return Speakers(tokenizer, ids, style, rows=size)
    eos = tokenizer.token_to_id(template.eos)
    if eos is None:
        raise CheckpointError(
            f"the base says that {template.eos!r} ends a text, but its tokenizer.json has no such "
            "token; take layout = speakers"
        )
    return Template(tokenizer, _renderer(tokenizer, template), style, eos=eos)


def chat_template(folder: Path) -> ChatTemplate:
    """The chat template of a base's folder. Raises ConfigError where it has none."""
    told: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        file = folder / name
        if file.is_file():
            told |= json.loads(file.read_text(encoding="utf-8"))
    separate = folder / "chat_template.jinja"
    text = told.get("chat_template")
    if separate.is_file():
        text = separate.read_text(encoding="utf-8")
    if not isinstance(text, str) or not text:
        raise ConfigError(
            f"layout is 'template', but {folder} has no chat template; take layout = speakers, or "
            "an instruct model"
        )
    return ChatTemplate(text, _token(told.get("bos_token")), _token(told.get("eos_token")))


def _token(told: Any) -> str:
    """A token is told by its text, or as an object that has it."""
    return str(told.get("content", "")) if isinstance(told, dict) else str(told or "")


def _renderer(tokenizer: Tokenizer, template: ChatTemplate) -> Render:
    from transformers import PreTrainedTokenizerFast

    named = {"bos_token": template.bos or None, "eos_token": template.eos or None}
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer.to_str()),
        **{name: text for name, text in named.items() if text},
    )

    def render(messages: list[dict[str, str]], going_on: bool) -> str:
        return str(
            made.apply_chat_template(
                messages,
                chat_template=template.text,
                tokenize=False,
                add_generation_prompt=going_on,
            )
        )

    return render


def check_room(module: Generator, style: TextFormat) -> None:
    """Raise ConfigError where context and reply together are longer than the base reads."""
    need, limit = style.max_context + style.max_reply, module.body.limit
    if need > limit:
        raise ConfigError(
            f"contexts and replies of {need} tokens together, but the base reads at most {limit}; "
            f"lower max_context by {need - limit}, or take a base that reads more"
        )
