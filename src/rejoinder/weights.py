"""The weights of a model under names that do not hang on how it was trained.

With adapters only those and the model's own weights are saved; the base, named by its sha256, is
found again on loading.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from rejoinder.config import GeneratorConfig, ModelConfig
from rejoinder.errors import CheckpointError
from rejoinder.models.build import add_lora, merge_lora, towers
from rejoinder.rounding import rounded
from rejoinder.sharded import whole

OWN_WORDS = "own_words"  # set on a module whose word vectors are not its base's


def state(
    module: nn.Module, *, only_adapters: bool, without: Collection[str] = ()
) -> dict[str, Tensor]:
    """What is saved of a model, under names that do not depend on how it was trained."""
    own = towers(module)
    kept = {}
    for name, tensor in each_once(module).items():
        in_tower = name.split(".")[0] in own
        if in_tower and only_adapters and ".lora_" not in name:
            continue
        if plain_name(name) in without:
            continue
        kept[plain_name(name)] = whole(tensor.detach()).cpu().contiguous()
    return kept


def to_save(
    module: nn.Module,
    merged: Mapping[str, Tensor],
    folder: Path,
    *,
    lora: int,
    frozen: bool = False,
    dtype: torch.dtype | None = None,
) -> dict[str, Tensor]:
    """The weights of a model's folder, rounded to `dtype` if given.

    `merged` are adapters that were merged into the base on loading; word vectors that are `frozen`
    are left out as long as they are the base's. Raises CheckpointError, naming `folder`, where a
    model of adapters (`lora` is their rank) has none.
    """
    left = word_names(module) if frozen and not getattr(module, OWN_WORDS, False) else ()
    weights = {**merged, **state(module, only_adapters=lora > 0, without=left)}
    if lora and not any(".lora_" in name for name in weights):
        raise CheckpointError(
            f"{folder}: not saved: the model should have adapters of rank {lora}, but has none; "
            "make it with trainable=True"
        )
    return rounded(weights, dtype)


def fill(module: nn.Module, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Copy some weights, by plain name, into a module that is to be trained further.

    Raises CheckpointError, naming `folder`, for one that it does not have in this shape.
    """
    target = {plain_name(name): tensor for name, tensor in module.state_dict().items()}
    check_shapes(weights, target, folder)
    with torch.no_grad():
        for name, weight in weights.items():
            target[name].copy_(weight)
    setattr(module, OWN_WORDS, bool(word_names(module) & set(weights)))


def word_names(module: nn.Module) -> set[str]:
    """What the word vectors of a model's towers are called."""
    own = [tower.model.get_input_embeddings().weight for tower in towers(module).values()]  # type: ignore[operator]
    return {
        plain_name(name)
        for name, tensor in each_once(module).items()
        if any(tensor is words for words in own)
    }


def each_once(module: nn.Module) -> dict[str, Tensor]:
    """All tensors of a module; one that has two names, under the first."""
    by_identity: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        by_identity.setdefault(id(tensor), (name, tensor))
    return dict(by_identity.values())


def plain_name(name: str) -> str:
    """peft's name of a parameter -> the base's own."""
    for part in ("base_model.model.", "base_layer.", ".default"):
        name = name.replace(part, "")
    return name


def restore(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    folder: Path,
    *,
    lora: int,
    factor: float,
    trainable: bool,
    frozen: bool = False,
) -> None:
    """Fill a module on its base with saved weights, in fp32.

    Adapters of rank `lora` are merged into the base, times `factor`, unless `trainable`. Word
    vectors that were `frozen` may be missing. Raises CheckpointError, naming `folder`, for what
    else is missing, unknown or of another shape.
    """
    weights = {name: w.float() if w.is_floating_point() else w for name, w in weights.items()}
    target = {plain_name(name): tensor for name, tensor in module.state_dict().items()}
    adapters = {name: w for name, w in weights.items() if ".lora_" in name}
    if lora and not trainable:
        weights = {name: w for name, w in weights.items() if name not in adapters}
    check_shapes(weights, target, folder)
    own = set(towers(module))
    expected = {
        name
        for name in map(plain_name, each_once(module))
        if (name.split(".")[0] in own and not (lora and ".lora_" not in name))
        or name.split(".")[0] not in own
    }
    if lora and not trainable:  # target has no adapters to compare with
        bare = own - {name.split(".")[0] for name in adapters}
        expected |= {f"{tower}.*.lora_A.weight" for tower in bare}
    vectors = word_names(module)
    expected -= vectors if frozen else set()
    setattr(module, OWN_WORDS, bool(vectors & set(weights)))
    missing = sorted(expected - set(weights))
    if missing:
        raise CheckpointError(
            f"{folder / 'model.safetensors'}: {len(missing)} weights are missing, e.g. "
            f"{missing[0]}; the file does not belong to this config.json"
        )
    with torch.no_grad():
        for name, tensor in weights.items():
            target[name].copy_(tensor)
        if lora and not trainable:
            try:
                merge_lora(target, adapters, factor)
            except (KeyError, RuntimeError) as error:
                raise CheckpointError(
                    f"{folder / 'model.safetensors'}: adapters do not fit the base: {error}"
                ) from None


def fill_on_base(
    module: nn.Module,
    config: ModelConfig | GeneratorConfig,
    weights: Mapping[str, Tensor],
    folder: Path,
    *,
    trainable: bool,
) -> None:
    """Fill a module on its bare base as `restore` does; if `trainable`, adapters are put on it."""
    if config.lora and trainable:
        add_lora(module, config.lora, config.lora_alpha)
    restore(
        module,
        weights,
        folder,
        lora=config.lora,
        factor=config.lora_alpha / max(1, config.lora),
        trainable=trainable,
        frozen=config.freeze_embeddings,
    )


def assign(module: nn.Module, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Give a module, made on the device `meta`, saved weights without copying them, in fp32.

    Raises CheckpointError, naming `folder`, for what is missing, unknown or of another shape.
    """
    check_shapes(weights, module.state_dict(), folder)
    missing = sorted(set(each_once(module)) - set(weights))
    if missing:
        raise CheckpointError(
            f"{folder / 'model.safetensors'}: {len(missing)} weights are missing, e.g. "
            f"{missing[0]}; the file does not belong to this config.json"
        )
    hold(module, weights)


def hold(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put tensors into a module in the place of its own, in fp32; what has two names stays one."""
    first = {id(place): name for name, place in each_once(module).items()}
    put: dict[int, Tensor] = {}
    for name, place in module.state_dict(keep_vars=True).items():
        learned = isinstance(place, nn.Parameter)
        if id(place) not in put:
            found = weights[first[id(place)]]
            found = found.float() if found.is_floating_point() else found
            put[id(place)] = nn.Parameter(found, place.requires_grad) if learned else found
        holder, _, last = name.rpartition(".")
        setattr(module.get_submodule(holder), last, put[id(place)])


def check_shapes(weights: Mapping[str, Tensor], target: Mapping[str, Tensor], folder: Path) -> None:
    """Raise CheckpointError for a weight that the target lacks or has in another shape."""
    for name, tensor in weights.items():
        if name not in target:
            raise CheckpointError(
                f"{folder / 'model.safetensors'}: holds {name}, which this kind of ranker does not "
                "have; the file does not belong to this config.json"
            )
        if tensor.shape != target[name].shape:
            raise CheckpointError(
                f"{folder / 'model.safetensors'}: {name} has shape {tuple(tensor.shape)}, expected "
                f"{tuple(target[name].shape)}; the file does not belong to this config.json"
            )
