"""Weights that several processes hold in pieces (FSDP2, torch.distributed.fsdp.fully_shard).

Each process keeps its piece of every weight, its gradient and its optimizer state; a layer is put
together only while it is at work. For bases that one device does not hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


def shard(encoders: Iterable[nn.Module], device: str, *, only_layers: bool = False) -> None:
    """Cut the weights of some encoders into pieces, layer by layer, in place.

    only_layers: what is in no list of layers, such as word vectors, stays whole in every process,
    for models that use it outside of the encoder's own forward.
    """
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.partition(":")[0], (dist.get_world_size(),))
    for encoder in encoders:
        lists = [m for m in encoder.modules() if isinstance(m, nn.ModuleList)]
        for layers in reversed(lists):  # inner ones before those that they are in
            for layer in layers:
                if not isinstance(layer, nn.ModuleList):
                    fully_shard(layer, mesh=mesh)
        if not only_layers:
            fully_shard(encoder, mesh=mesh)


@contextmanager
def put_together(module: nn.Module) -> Iterator[None]:
    """All weights whole in every process, for work in which each goes its own way."""
    pieces: list[Any] = [m for m in module.modules() if hasattr(m, "unshard")]
    for piece in pieces:
        piece.unshard()
        piece.set_reshard_after_forward(False)
    try:
        yield
    finally:
        for piece in pieces:
            piece.set_reshard_after_forward(True)
            piece.reshard()


def is_piece(tensor: Tensor) -> bool:
    """Whether a tensor is cut into pieces (a DTensor, whose class is slow to import)."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """The tensor put together; all processes must ask for it."""
    if not is_piece(tensor):
        return tensor
    full: Tensor = tensor.full_tensor()  # type: ignore[attr-defined]
    return full


def cut_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor in pieces as `like` is, or as it is."""
    if not is_piece(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = like.device_mesh, like.placements  # type: ignore[attr-defined]
    return distribute_tensor(tensor.to(like.device), mesh, placements)


def own_piece(tensor: Tensor) -> Tensor:
    """What of a tensor is here."""
    if not is_piece(tensor):
        return tensor
    local: Tensor = tensor.to_local()  # type: ignore[attr-defined]
    return local
