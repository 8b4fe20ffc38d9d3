"""A language model without its head, whatever it is built like: word vectors in, states out.

Three kinds of base: our GPT and GPT-2; a BERT such as the default MiniLM, which becomes a causal
model by being shown earlier tokens only; and any other causal model of the library (Llama, Qwen,
SmolLM ...). All of them read the same way, so nothing above knows which it is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor, nn

from rejoinder.errors import CheckpointError
from rejoinder.models.bert import Bert, Dropout, restore, shape_of
from rejoinder.models.gpt import Gpt, GptShape, gpt_shape, restore_gpt
from rejoinder.models.past import Past
from rejoinder.models.pretrained import (
    NO_DROPOUT,
    Base,
    config_of,
    loaded,
    no_bars,
    read_base,
    with_dropout,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Cache(Protocol):
    """What was read before; `select` keeps some of its rows, in the order given."""

    @property
    def length(self) -> int: ...
    def select(self, rows: Tensor) -> None: ...


class Causal(nn.Module):
    """Holds the pretrained model; `width` is the size D of its states, `limit` its positions."""

    def __init__(self, model: Bert | Gpt) -> None:
        super().__init__()
        self.model: nn.Module = model  # or that with adapters
        if isinstance(model, Bert):
            self.width, self.limit = model.config.hidden_size, model.config.max_position_embeddings
        else:
            self.width, self.limit = model.config.n_embd, model.config.n_positions

    @property
    def words(self) -> Tensor:
        """(V, D) vectors of the base's tokens, which are its output layer too."""
        weight: Tensor = self.model.get_input_embeddings().weight  # type: ignore[operator]
        return weight

    @property
    def out(self) -> Tensor:
        """(V, D) what states are multiplied with for the scores of the next token."""
        return self.words

    def cache(self) -> Cache:
        """An empty one, to read on from."""
        return Past()

    def forward(
        self, words: Tensor, seen: Tensor, positions: Tensor, past: Cache | None = None
    ) -> Tensor:
        """Word vectors (B, T, D), seen (B, T, K) bool, positions (B, T) -> states (B, T, D).

        With `past`, K counts the tokens in it too, and those of this call are added to it.
        """
        states: Tensor = self.model.read(words, seen, positions, past)  # type: ignore[operator]
        return states


class Hosted(Causal):
    """A causal model of the library."""

    def __init__(self, model: PreTrainedModel) -> None:
        nn.Module.__init__(self)
        self.model = cast("nn.Module", getattr(model, model.base_model_prefix))
        head = cast("nn.Linear", model.get_output_embeddings())
        tied = head.weight is self.words
        self.head = None if tied else head  # large models have an output layer of its own
        settings = model.config.get_text_config()
        self.width = int(settings.hidden_size)
        self.limit = int(getattr(settings, "max_position_embeddings", 0) or 1 << 30)

    @property
    def out(self) -> Tensor:
        weight: Tensor = self.words if self.head is None else self.head.weight
        return weight

    def cache(self) -> Cache:
        return HostedPast()

    def forward(
        self, words: Tensor, seen: Tensor, positions: Tensor, past: Cache | None = None
    ) -> Tensor:
        states: Tensor = self.model(
            inputs_embeds=words,
            attention_mask=seen[:, None],
            position_ids=positions,
            past_key_values=past.kept if isinstance(past, HostedPast) else None,
            use_cache=past is not None,
        ).last_hidden_state
        return states


class HostedPast:
    """The library's own cache."""

    def __init__(self) -> None:
        from transformers import DynamicCache

        self.kept = DynamicCache()

    @property
    def length(self) -> int:
        return int(self.kept.get_seq_length())

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may come several times."""
        self.kept.batch_select_indices(rows)


def load_causal(base: Base | GptShape, dropout: Dropout = NO_DROPOUT) -> Causal:
    """The base in fp32, in evaluation mode; of a shape alone, our GPT with fresh weights.

    Raises CheckpointError where it cannot be read.
    """
    if isinstance(base, GptShape):
        return Causal(Gpt(base, dropout).eval())
    config = config_of(base.folder)
    bert = shape_of(config, dropout)
    if bert is not None:
        return Causal(_filled(base, lambda: Bert(bert), restore))
    gpt = gpt_shape(config)
    if gpt is not None:
        return Causal(_filled(base, lambda: Gpt(gpt, dropout), restore_gpt))
    return Hosted(_hosted(base, dropout))


def _filled(base: Base, make: Callable[[], Any], fill: Callable[[Any, Any], None]) -> Any:
    def read(folder: Path) -> Any:
        with torch.device("meta"):
            model = make()
        fill(model, read_base(folder))
        return model

    return loaded(base, read).eval()


def _hosted(base: Base, dropout: Dropout) -> PreTrainedModel:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = loaded(base, AutoConfig.from_pretrained)
    if getattr(config, "is_encoder_decoder", False):
        raise CheckpointError(
            f"{base.folder}: {config.model_type} reads with one half and writes with another; "
            "expected a model that only writes, such as GPT-2, Llama, Qwen or SmolLM"
        )
    with_dropout(config, dropout)
    with no_bars():
        model: PreTrainedModel = loaded(
            base,
            AutoModelForCausalLM.from_pretrained,
            config=config,
            dtype=torch.float32,
            attn_implementation="sdpa",
        )
    return model.eval()
