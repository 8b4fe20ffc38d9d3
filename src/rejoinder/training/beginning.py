"""What is to be trained: a model on the bare base, from where another stands, or from scratch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from rejoinder import checkpoint, generators
from rejoinder.config import GeneratorConfig, ModelConfig, TrainConfig
from rejoinder.errors import ConfigError
from rejoinder.generator import TextGenerator
from rejoinder.models.bert import Bert
from rejoinder.models.build import towers
from rejoinder.ranker import TextRanker
from rejoinder.schema import Example
from rejoinder.text import TextFormat
from rejoinder.training.scratch import Ready

# Learning rates where none is asked for.
ADAPTERS_LR, ALL_WEIGHTS_LR, SCRATCH_LR = 1e-3, 5e-5, 5e-4
Say = Callable[[str], None]
Model = TextRanker | TextGenerator


def begin(
    model: ModelConfig | GeneratorConfig,
    settings: TrainConfig,
    style: TextFormat,
    init_model: Path | None,
    given: Collection[str],
    say: Say,
    ready: Ready | None = None,
    output_scaling: float | None = None,
) -> Model:
    """The model to train, with everything frozen that its settings freeze.

    With `ready` it is a ranker from scratch, on an encoder of that shape. output_scaling: of an
    encoder of our own that `init_model` brings, if it is to be another. Raises ConfigError for
    settings that contradict `init_model` or do not go with the kind.
    """
    torch.manual_seed(settings.seed)  # of fresh weights: codes, adapters, heads
    fresh, left = list[str](), list[str]()
    if ready and isinstance(model, ModelConfig):
        made: Model = checkpoint.fresh_native(replace(model, lora=0), ready.shape, ready.tokens)
    elif init_model is None:
        made = _fresh(model, style)
    else:
        made, fresh, left = _heir(init_model, model, style, given, output_scaling)
    if fresh:
        say(f"fresh weights, not in {init_model}: {', '.join(fresh)}")
    if left:
        say(f"left behind, no use for a {model.kind}: {', '.join(left)} of {init_model}")
    if init_model:
        _check_inherited(init_model, made, model, style, given)
    if init_model is None and isinstance(made, TextGenerator):
        _tell_of_encoder(made, say)
    if made.config.freeze_embeddings:
        freeze_embeddings(made)
    if isinstance(model, ModelConfig) and model.freeze_apart:
        freeze_apart(made)
    check_kind(made, settings)
    return made


def name_of(model: Path) -> str:
    """What people call a model: its run's name, where the folder is the run's `best`."""
    return model.parent.name if model.name == "best" else model.name


def resolve_lr(
    settings: TrainConfig, made: Model, given: Collection[str], *, scratch: bool
) -> TrainConfig:
    """The settings with a learning rate; where none was given, that for what is to be learned.

    A rate of 0 that was asked for stays: nothing moves.
    """
    if settings.lr or "lr" in given:
        return settings
    whole = SCRATCH_LR if scratch else ALL_WEIGHTS_LR
    return replace(settings, lr=ADAPTERS_LR if made.config.lora else whole)


def _fresh(model: ModelConfig | GeneratorConfig, style: TextFormat) -> Model:
    if isinstance(model, GeneratorConfig):
        return generators.fresh(model, style, trainable=True)
    return checkpoint.fresh(model, style, trainable=True)


def _heir(
    init_model: Path,
    model: ModelConfig | GeneratorConfig,
    style: TextFormat,
    given: Collection[str],
    output_scaling: float | None,
) -> tuple[Model, list[str], list[str]]:
    if isinstance(model, GeneratorConfig):
        return generators.initialise(init_model, model, given, style)
    return checkpoint.initialise(init_model, model, given, style, output_scaling)


def _check_inherited(
    init_model: Path,
    made: Model,
    model: ModelConfig | GeneratorConfig,
    style: TextFormat,
    given: Collection[str],
) -> None:
    """Raise ConfigError if a setting that was asked for is not that of the model taken up."""
    kept: Collection[str] = checkpoint.INHERITED
    if isinstance(model, GeneratorConfig):
        kept = (*generators.INHERITED, *generators.OF_GENERATORS)
    pairs: list[tuple[str, object, object]] = [(name, model, made.config) for name in kept]
    marks = [field.name for field in fields(TextFormat) if field.name not in checkpoint.LENGTHS]
    pairs += [(name, style, made.tokens.style) for name in marks]
    for name, wanted, has in pairs:
        if name in given and getattr(wanted, name) != getattr(has, name):
            raise ConfigError(
                f"{name} is {getattr(wanted, name)!r}, but {name_of(init_model)} was made with "
                f"{getattr(has, name)!r}, which goes with its weights; leave it out, or train "
                "without --init-model"
            )


def _tell_of_encoder(made: TextGenerator, say: Say) -> None:
    """An encoder has to learn to write, for which adapters are too little."""
    model: Any = made.module.body.model
    if made.config.lora and isinstance(model.get_base_model(), Bert):
        say(
            f"{made.config.base} is an encoder, which has never written anything: adapters alone "
            "teach it little; take --lora 0, or begin with --init-model persona-generator"
        )


def freeze_embeddings(made: Model) -> None:
    """Keep the word vectors as they are."""
    for tower in towers(made.module).values():
        tower.model.get_input_embeddings().requires_grad_(False)  # type: ignore[operator]


def freeze_apart(ranker: Model) -> None:
    """Keep the tower with which a cross-encoder reads the sides apart."""
    assert isinstance(ranker, TextRanker)
    if ranker.config.kind != "cross" or ranker.config.towers == "shared":
        raise ConfigError(
            "freeze_apart keeps the tower with which a cross-encoder reads the sides apart, but "
            f"this is a {ranker.config.kind}-encoder with {ranker.config.towers} towers; take "
            "train cross --towers separate, or leave it out"
        )
    ranker.module.apart_encoder.requires_grad_(False)


def check_kind(made: Model, settings: TrainConfig) -> None:
    """Raise ConfigError for settings of the training that a model of this kind cannot follow."""
    if isinstance(made, TextGenerator):
        _check_generator(settings)
    else:
        _check_ranker(made, settings)


def check_metric(made: Model, settings: TrainConfig, held: Sequence[Example]) -> None:
    """Raise ConfigError where the best checkpoint would be chosen by what nothing has learned."""
    if not held or not isinstance(made, TextGenerator) or made.config.mc_coef:
        return
    if settings.metric != "perplexity":
        raise ConfigError(
            f"metric is {settings.metric!r}, but with mc_coef 0 nothing learns to choose among "
            "replies; take --metric perplexity, or train without --dev"
        )


def _check_generator(settings: TrainConfig) -> None:
    if settings.candidates == "batch-all":
        raise ConfigError(
            "candidates batch-all shares lists between rows, but a generator reads every reply "
            "behind its own context; take batch-hard or inline"
        )
    if settings.mine_every:
        raise ConfigError(
            "mine_every ranks all replies of the data with the model as it is, and a generator is "
            "too slow for that; mine beforehand with rejoinder mine and a bi- or poly-encoder"
        )


def _check_ranker(ranker: TextRanker, settings: TrainConfig) -> None:
    if settings.hints:
        raise ConfigError(
            f"hints are shown to a generator, but this is a {ranker.config.kind}-encoder; leave "
            "hints out, or train a generator"
        )
    if ranker.is_cross and settings.mine_every and not settings.mine_draw:
        raise ConfigError(
            "mine_every asks a cross-encoder for the scores of all replies of the data, which "
            "takes days; give --mine-draw 24 to search among so many random ones, or mine "
            "beforehand with rejoinder mine and a bi- or poly-encoder"
        )
    if settings.metric == "perplexity":
        raise ConfigError(
            f"metric is 'perplexity', but a {ranker.config.kind}-encoder writes nothing; take "
            "hits@1, mrr or another one of rankings"
        )
    if ranker.is_cross and settings.candidates == "batch-all":
        raise ConfigError(
            "candidates batch-all shares lists between rows, but a cross-encoder reads every pair "
            "anew; take batch-hard or inline"
        )
    if ranker.config.share_embeddings and settings.parallel == "fsdp":
        raise ConfigError("share_embeddings does not go with parallel fsdp; take ddp")
