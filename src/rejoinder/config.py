"""Settings as frozen dataclasses, read from TOML and dotted overrides, written as JSON.

`ModelConfig` says what a ranker is and is saved in its checkpoint; `TrainConfig` says how one was
made and is saved beside it. An unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from rejoinder.errors import ConfigError

Kind = Literal["bi", "poly", "cross"]
Metric = Literal["hits@1", "hits@5", "hits@10", "mrr", "f1", "mean_rank", "perplexity"]
T = TypeVar("T")
NOT_BELOW_ZERO = (
    *("epochs", "max_steps", "max_time", "negatives", "lr", "eps", "weight_decay", "clip"),
    *(
        "warmup",
        "patience",
        "decay",
        "eval_every",
        "eval_limit",
        "eval_batch_size",
        "mine_every",
        "mine_draw",
        "seed",
    ),
    *("momentum", "eval_epochs", "eval_minutes", "stop_after", "hints"),
)
AT_LEAST_ONE = (
    "batch_size",
    "buffer",
    "mine_keep",
    "update_every",
    "max_tokens",
    "log_every",
    "save_every",
)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What a ranker is made of. The lines under the fields are the help of the command line."""

    kind: Kind = "bi"
    """What is scored how; the command line says it first, `rejoinder train bi`."""
    base: str = "minilm"
    """Pretrained encoder: minilm, a hub name, or a folder; native: one of our own, from scratch."""
    base_sha256: str = ""
    """Of the base's model.safetensors; filled in by itself, an error if it differs."""
    towers: Literal["shared", "separate"] = "shared"
    """One encoder for both sides, or one each; of a cross-encoder, one that reads the sides
    together and one that reads them apart."""
    pooling: Literal["mean", "first", "max"] = "mean"
    """How states become one vector."""
    normalise: bool = True
    """Vectors of length one (bi and poly)."""
    scale: float = 0.0
    """Factor on the score at the start; 0 = 20 for vectors of length one, 1 for raw ones."""
    learn_scale: bool = True
    """Learn that factor; of raw vectors it stays as it is."""
    poly: Literal["codes", "n_first", "all"] = "all"
    """What stands for the context: learned codes, its first states, or all states."""
    codes: int = 64
    """How many codes or first states (poly types codes and n_first)."""
    attention: Literal["basic", "sqrt", "multihead"] = "basic"
    """How a candidate attends over them."""
    heads: int = 4
    """Of multihead attention."""
    code_attention: Literal["basic", "sqrt", "multihead"] = "basic"
    """How the learned codes look at the context's states."""
    code_heads: int = 4
    """Of multihead attention of the codes."""
    mlp: bool = False
    """Of a bi-encoder: two linear layers behind a candidate's vector (ParlAI's share_encoders)."""
    head: Literal["both", "linear", "prefix"] = "both"
    """Of a cross-encoder: linear (the paper's), both: the sides apart too, prefix: context once."""
    lora: int = 32
    """Rank of the adapters on all linear layers; 0 = train all weights."""
    lora_alpha: int = 64
    """Adapters are multiplied by lora_alpha / lora."""
    dropout: float = 0.0
    """Of states inside the encoder; more than 0 costs 60 % of the speed on a CPU."""
    attention_dropout: float = 0.0
    """Of the attention's weights, likewise."""
    activation_dropout: float = 0.0
    """Between the two linear layers of every layer (of a base that has it, as BERT)."""
    share_embeddings: bool = False
    """Separate towers with one matrix of word vectors."""
    freeze_embeddings: bool = False
    """Keep the base's word vectors; with adapters they are kept anyway."""
    freeze_apart: bool = False
    """Of a cross-encoder with separate towers, keep the one that reads the sides apart."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_finite(self)
        least_of = {"codes": 1, "heads": 1, "code_heads": 1, "lora": 0, "lora_alpha": 1}
        for name, least in least_of.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected at least {least}")
        if self.scale < 0:
            raise ConfigError(f"scale is {self.scale}; expected at least 0")
        _check_rates(self, ("dropout", "attention_dropout", "activation_dropout"))


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """What a generator is made of."""

    kind: Literal["generator"] = "generator"
    """What it does."""
    base: str = "minilm"
    """Pretrained language model: a hub name or a folder; or an encoder, which becomes one."""
    base_sha256: str = ""
    """Of the base's model.safetensors; filled in by itself, an error if it differs."""
    layout: Literal["speakers", "template"] = "speakers"
    """Tokens that say who speaks, or the chat template of the base, for an instruct model."""
    lora: int = 32
    """Rank of the adapters on all linear layers; 0 = train all weights."""
    lora_alpha: int = 64
    """Adapters are multiplied by lora_alpha / lora."""
    dropout: float = 0.0
    """Of states inside the base."""
    attention_dropout: float = 0.0
    """Of the attention's weights."""
    choice_dropout: float = 0.1
    """Of what the next-utterance head sees."""
    freeze_embeddings: bool = False
    """Keep the base's word vectors; with adapters they are kept anyway."""
    words_rank: int = 0
    """Rank of what is learned on top of word vectors that are kept; 0 = nothing."""
    lm_coef: float = 2.0
    """Weight of the loss of the right reply's tokens, each one alike."""
    mc_coef: float = 1.0
    """Weight of the loss of choosing the right reply among the candidates; 0 = none are read."""
    context_coef: float = 0.0
    """Weight of the loss of the context's tokens, each one alike; 0 = they are only read."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_finite(self)
        least_of = {"lora": 0, "lora_alpha": 1, "words_rank": 0}
        least_of |= {"lm_coef": 0, "mc_coef": 0, "context_coef": 0}
        for name, least in least_of.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected at least {least}")
        _check_rates(self, ("dropout", "attention_dropout", "choice_dropout"))
        if self.words_rank and not (self.lora or self.freeze_embeddings):
            raise ConfigError(
                f"words_rank is {self.words_rank}, but all word vectors are learned anyway; take "
                "freeze_embeddings or adapters, or leave it out"
            )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a ranker is trained."""

    epochs: float = 2.0
    """Passes over the data; the last one may be a part."""
    max_steps: int = 0
    """Optimizer steps; 0 = as the epochs say."""
    max_time: float = 0.0
    """Minutes of training, over all resumed parts; 0 = no limit."""
    batch_size: int = 64
    """Contexts of a batch, over all processes; each reply is a candidate for all of them."""
    update_every: int = 1
    """Batches whose gradients are summed up before a step."""
    max_tokens: int = 8192
    """Tokens encoded at once, padding included: bounds the memory, whatever the batch size."""
    negatives: int = 0
    """Candidates drawn beside the batch's own; of a cross-encoder per context, 0 = 3."""
    candidates: Literal["batch", "inline", "batch-all", "batch-hard", "fixed"] = "batch"
    """Candidates of a row: the batch's replies (cross: drawn ones); its own list; the batch's
    replies and all their lists; the batch's replies and its own list; a fixed set."""
    fixed_candidates: str = ""
    """File of the fixed set; negatives are drawn from it, 0 = all of it (a cross-encoder: 3)."""
    mine_every: int = 0
    """Optimizer steps between two searches for hard negatives with the model as it is then, which
    become each example's own list; 0 = none."""
    mine_keep: int = 4
    """Hard negatives of an example, at most."""
    mine_draw: int = 0
    """Random candidates to search for each example; 0 = all (a cross-encoder needs some, as 24)."""
    mine_margin: float = 0.0
    """Candidates scored above the right reply minus this may be right, and are left out."""
    lr: float = 0.0
    """Peak learning rate; if none is given 1e-3 with adapters, 5e-5 when all weights are learned,
    5e-4 from scratch."""
    optimizer: Literal["adamw", "adamax", "sgd"] = "adamw"
    """What moves the weights."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Of adamw and adamax."""
    eps: float = 1e-8
    """Of adamw and adamax."""
    momentum: float = 0.0
    """Of sgd."""
    weight_decay: float = 0.01
    """Of the optimizer."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 = any."""
    schedule: Literal["linear", "cosine", "inverse-sqrt", "plateau", "constant"] = "linear"
    """Learning rate after warm-up: down to 0, or when dev stands still (plateau), or as it is."""
    warmup: int = 50
    """Optimizer steps in which the learning rate rises from 0."""
    patience: int = 0
    """Plateau: validations without progress before the rate falls."""
    decay: float = 0.4
    """Plateau: factor on the rate."""
    shuffle: bool = True
    """Examples in a new order each epoch, or as in the files."""
    stream: bool = False
    """Read the data while learning, never holding all of it: files larger than memory."""
    buffer: int = 20_000
    """Examples held at once with stream; they are what the order is shuffled in."""
    both_sides: bool = False
    """Learn the user's messages too, roles swapped, with partner_persona."""
    by_dialogue: bool = False
    """The replies of a dialogue one after the other, dialogues in random order: a generator reads
    what the contexts of a batch share only once."""
    one_per_dialogue: bool = False
    """Only the last reply of a dialogue, which has all before it as context; with context_coef
    a generator still learns every message that is read, each one once."""
    drop_persona: float = 0.1
    """Share of examples that are read without persona."""
    shuffle_persona: bool = True
    """Persona sentences in a new order each time."""
    hints: int = 0
    """Of an example's own candidates, so many stand in a generator's context as what others said;
    mine them with `rejoinder mine`, so that they are what a ranker finds."""
    hint_share: float = 0.5
    """Share of examples that have hints."""
    hint_right: float = 0.2
    """Share of those in which one hint is the right reply, so that hints are worth a look."""
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    """Products in 16 bits and weights in 32, or all in 32; fp16 is for GPUs without bf16."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """Of several processes each holds all weights, or a piece of them (FSDP2)."""
    eval_every: int = 0
    """Optimizer steps between validations; 0 = as the other two say, or once an epoch."""
    eval_epochs: float = 0.0
    """Epochs between validations, such as 0.5."""
    eval_minutes: float = 0.0
    """Minutes of training between validations; where they fall hangs on the machine."""
    eval_batch_size: int = 0
    """Texts encoded at once in validation; 0 = as many as 4,096 tokens are."""
    eval_limit: int = 1000
    """Dev examples per validation, spread evenly over the file; 0 = all."""
    metric: Metric = "hits@1"
    """What the best checkpoint is the best in; perplexity is a generator's."""
    stop_after: int = 0
    """Validations in a row without progress that end training; 0 = none do."""
    log_every: int = 10
    """Optimizer steps between two lines of progress."""
    save_every: int = 50
    """Optimizer steps between saves that training can resume from."""
    seed: int = 0
    """Of everything random."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_finite(self)
        for name, low in {
            **dict.fromkeys(NOT_BELOW_ZERO, 0),
            **dict.fromkeys(AT_LEAST_ONE, 1),
        }.items():
            if getattr(self, name) < low:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected at least {low}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(
                f"betas are {self.betas}; expected two from 0 up to (not including) 1"
            )
        if self.seed >= 2**32:
            raise ConfigError(f"seed is {self.seed}; expected less than 2**32")
        if self.epochs <= 0 and self.max_steps <= 0:
            raise ConfigError(
                "neither epochs nor max_steps is above 0: nothing would be trained; give either"
            )
        for name in ("drop_persona", "hint_share", "hint_right"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 0 to 1")
        self._check_together()

    def _check_together(self) -> None:
        """Settings that are fine alone, but not beside each other."""
        if (self.candidates == "fixed") != bool(self.fixed_candidates):
            raise ConfigError(
                f"candidates is {self.candidates!r} and fixed_candidates is "
                f"{self.fixed_candidates!r}; expected the file with candidates = fixed, and none "
                "otherwise"
            )
        if self.mine_every and self.candidates in ("batch", "fixed"):
            raise ConfigError(
                f"mine_every gives each example a list, but candidates is {self.candidates!r}; "
                "expected batch-hard, batch-all or inline"
            )
        if self.stream and self.mine_every:
            raise ConfigError(
                "mine_every looks at all examples, which stream never holds; mine beforehand with "
                "rejoinder mine"
            )
        if self.stream and self.by_dialogue:
            raise ConfigError(
                "by_dialogue puts dialogues in a new order, but a stream's examples are shuffled "
                "one by one; leave one of them out"
            )
        if self.precision == "fp16" and self.parallel == "fsdp":
            raise ConfigError("precision fp16 does not go with parallel fsdp; take bf16")


def check_finite(config: Any) -> None:
    """Raise ConfigError for a number that is none."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{field.name} is {value}; expected a number")


def _check_rates(config: Any, names: Sequence[str]) -> None:
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise ConfigError(
                f"{name} is {getattr(config, name)}; expected 0 up to (not including) 1"
            )


def check_choices(config: Any) -> None:
    """Raise ConfigError for a word that its field does not know."""
    for name, hint in get_type_hints(type(config)).items():
        if get_origin(hint) is Literal and getattr(config, name) not in get_args(hint):
            known = ", ".join(map(str, get_args(hint)))
            raise ConfigError(f"{name} is {getattr(config, name)!r}; known: {known}")


def from_mapping(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """Fill a settings class from plain values; `where` is named in errors."""
    return kind(**fitted(kind, values, where))


def fitted(kind: type[Any], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Plain values as a settings class wants them: names and types, not yet their sizes."""
    hints = get_type_hints(kind)
    filled = {}
    for name, value in values.items():
        if name not in hints:
            near = difflib.get_close_matches(name, hints, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else f" Known: {', '.join(sorted(hints))}."
            raise ConfigError(f"{where}: unknown setting {name!r}.{hint}")
        filled[name] = _fitted(value, hints[name], f"{where}: {name}")
    return filled


def _fitted(value: Any, hint: Any, where: str) -> Any:
    if get_origin(hint) is tuple:
        if isinstance(value, (list, tuple)) and len(value) == len(get_args(hint)):
            return tuple(_fitted(x, float, where) for x in value)
    elif get_origin(hint) is Literal:
        if value in get_args(hint):
            return value
        raise ConfigError(f"{where} is {value!r}; known: {', '.join(get_args(hint))}")
    elif hint is bool and isinstance(value, bool):
        return value
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    name = getattr(hint, "__name__", str(hint))
    raise ConfigError(f"{where} is {value!r}; expected {name}")


def read_toml(path: Path, sections: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The sections of a TOML settings file; any other section is an error."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; expected a TOML settings file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: not TOML: {error}; expected sections {_listed(sections)} of lines like "
            "lr = 1e-3"
        ) from None
    for name, section in values.items():
        if name not in sections or not isinstance(section, dict):
            raise ConfigError(f"{path}: unknown section {name!r}; known: {_listed(sections)}")
    return values


def _listed(sections: Sequence[str]) -> str:
    return ", ".join(f"[{name}]" for name in sections)


def read_settings(path: Path, kinds: Mapping[str, type[Any]]) -> dict[str, Any]:
    """All settings of a TOML file in one mapping; a section holds the fields of its class."""
    found: dict[str, Any] = {}
    for section, values in read_toml(path, list(kinds)).items():
        for name, value in values.items():
            where = f"{path}:{_line_of(path, section, name)}: [{section}]"
            found |= fitted(kinds[section], {name: value}, where)
    return found


def read_overrides(words: Sequence[str], kinds: Mapping[str, type[Any]]) -> dict[str, Any]:
    """Settings out of words such as train.lr=3e-5 or model.kind=poly; values as TOML has them.

    A value that is no TOML is taken as text, so quotes may be left out.
    """
    found: dict[str, Any] = {}
    for word in words:
        place, equals, value = word.partition("=")
        section, dot, name = place.partition(".")
        if not equals or not dot or section not in kinds:
            known = ", ".join(f"{known}.NAME=VALUE" for known in kinds)
            raise ConfigError(f"{word!r} sets nothing; expected {known}, such as train.lr=3e-5")
        try:
            given = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            given = value
        found |= fitted(kinds[section], {name: given}, word)
    return found


def _line_of(path: Path, section: str, name: str) -> int:
    """The line of a TOML file that sets a name in a section, or else opens the section."""
    here, found = "", 1
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if line.lstrip().startswith("["):
            here = line.partition("]")[0].strip("[ \t\"'")
            found = number if here == section else found
        elif here == section and line.partition("=")[0].strip(" \t\"'") == name:
            return number
    return found


def to_mapping(config: Any) -> dict[str, Any]:
    """Plain values of a settings object, ready for JSON."""
    return dataclasses.asdict(config)
