"""A generator's weights under the names of a causal language model of the library.

GPT and GPT-2 are what they were, with the layout's own tokens as rows of the word vectors. A BERT
that writes is a BertGenerationDecoder: of all the library's models that write, only that one is a
BERT without a further layer before the scores. A model that the library runs for us stays itself.

Who speaks: GPT and GPT-2 add the vector of a token's type, as we do (`token_type_ids`). The others
know no types. There the assistant's vector, the type of persona and reply, goes into a table that
is added to every token anyway: BERT's positions, or the word vectors that are read, which then
part from those that are written with. Only tokens of the user are left; to their vectors a caller
adds the user's vector minus the assistant's (`inputs_embeds`). So a reply is written as by us.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from rejoinder.errors import ConfigError
from rejoinder.models.bert import Bert
from rejoinder.models.causal import Hosted
from rejoinder.models.generator import Generator
from rejoinder.models.gpt import RENAMED, TURNED, Gpt

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Reading = Literal["ids", "types", "vectors"]  # ids alone, ids and types, or vectors of words

# Ids of the first, last and padding token, which have defaults beyond a small vocabulary.
NOT_NAMED: dict[str, Any] = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))


def reading_of(module: Generator) -> Reading:
    """How the library's model is told who speaks."""
    if module.speakers is None:
        return "ids"
    return "types" if isinstance(module.body.model, Gpt) else "vectors"


def settled(module: Generator) -> Generator:
    """The generator with its adapters merged, in fp32 and on the processor; a copy if need be."""
    tuned = hasattr(module.body.model, "merge_and_unload")
    if not (tuned or module.training) and all(
        weight.dtype == torch.float32 and weight.device.type == "cpu"
        for weight in module.parameters()
    ):
        return module
    other = copy.deepcopy(module).float().cpu()
    if tuned:
        other.body.model = other.body.model.merge_and_unload()  # type: ignore[operator]
    return other.eval()


@torch.no_grad()
def library_model(module: Generator) -> PreTrainedModel:
    """The library's model with a settled generator's weights, which it shares, to be saved.

    What is not saved, such as lists of positions, is not filled. Raises ConfigError where the
    library has no model of this shape.
    """
    body = module.body.model
    words = torch.cat([module.words, module.added]).detach()  # (V + added, D)
    if isinstance(module.body, Hosted):
        return _hosted(module, module.body, words)
    if isinstance(body, Gpt):
        return _filled(_gpt_config(body, len(words)), _gpt_weights(body, words))
    if isinstance(body, Bert):
        return _filled(_bert_config(body, len(words)), _bert_weights(module, body, words))
    raise ConfigError(
        f"a generator on {type(body).__name__} has no like in transformers; export one on GPT, "
        "GPT-2, BERT, or a causal model of the library"
    )


def _gpt_config(body: Gpt, size: int) -> Any:
    from transformers import GPT2Config, OpenAIGPTConfig

    shape = body.config
    sizes: dict[str, Any] = {
        "vocab_size": size,
        "n_embd": shape.n_embd,
        "n_layer": shape.n_layer,
        "n_head": shape.n_head,
        "n_positions": shape.n_positions,
        "layer_norm_epsilon": shape.layer_norm_epsilon,
    }
    if shape.norm_first:
        return GPT2Config(**sizes, **NOT_NAMED, n_inner=shape.n_inner or None)
    return OpenAIGPTConfig(**sizes, **NOT_NAMED)


def _gpt_weights(body: Gpt, words: Tensor) -> dict[str, Tensor]:
    renamed = {} if body.config.norm_first else {ours: name for name, ours in RENAMED.items()}
    found = {"lm_head.weight": words}
    for name, weight in (body.state_dict() | {"wte.weight": words}).items():
        for ours, theirs in renamed.items():
            name = theirs + name.removeprefix(ours) if name.startswith(ours) else name
        turned = weight.T.contiguous() if name.endswith(TURNED) else weight
        found[f"transformer.{name}"] = turned
    return found


def _bert_config(body: Bert, size: int) -> Any:
    from transformers import BertGenerationConfig

    shape = body.config
    return BertGenerationConfig(
        vocab_size=size,
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.num_hidden_layers,
        num_attention_heads=shape.num_attention_heads,
        intermediate_size=shape.intermediate_size,
        max_position_embeddings=shape.max_position_embeddings,
        layer_norm_eps=shape.layer_norm_eps,
        is_decoder=True,
        **NOT_NAMED,
    )


def _bert_weights(module: Generator, body: Bert, words: Tensor) -> dict[str, Tensor]:
    weights = body.state_dict()
    segments = weights.pop("embeddings.token_type_embeddings.weight")
    weights["embeddings.position_embeddings.weight"] = (
        weights["embeddings.position_embeddings.weight"] + segments[0]
    )
    if module.speakers is not None:
        weights["embeddings.position_embeddings.weight"] += words[module.speakers[0]]
    weights["embeddings.word_embeddings.weight"] = words
    none = torch.zeros(len(words))
    head = {"decoder.weight": words, "decoder.bias": none, "bias": none}
    return {f"bert.{name}": weight for name, weight in weights.items()} | {
        f"lm_head.{name}": weight for name, weight in head.items()
    }


def _hosted(module: Generator, body: Hosted, words: Tensor) -> PreTrainedModel:
    config: Any = copy.deepcopy(body.model.config)
    settings = config.get_text_config()
    settings.vocab_size = len(words)
    out = words if body.head is None else torch.cat([body.out, module.added]).detach()
    read = words if module.speakers is None else words + words[module.speakers[0]]
    config.tie_word_embeddings = settings.tie_word_embeddings = read is out
    model = _empty(config)
    weights = {f"{model.base_model_prefix}.{n}": w for n, w in body.model.state_dict().items()}
    weights[_name_of(model, model.get_input_embeddings()) + ".weight"] = read
    head = model.get_output_embeddings()
    assert isinstance(head, nn.Linear)  # that is how its weights came to us
    weights[_name_of(model, head) + ".weight"] = out
    if head.bias is not None:  # which we do not read
        weights[_name_of(model, head) + ".bias"] = torch.zeros(len(out))
    return _filled(config, weights)


def _name_of(model: nn.Module, part: nn.Module) -> str:
    return str(next(name for name, one in model.named_modules() if one is part))


def _empty(config: Any) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model


def _filled(config: Any, weights: Mapping[str, Tensor]) -> PreTrainedModel:
    model = _empty(config)
    try:
        model.load_state_dict(weights, strict=True, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split()[:40])
        raise ConfigError(
            f"the library's {type(model).__name__} does not take this generator's weights "
            f"({reason}); export a generator on GPT, GPT-2, BERT, Llama or Qwen"
        ) from None
    model.tie_weights()
    return model
