"""Several processes that train one model: who does what, and how it is put together.

`torchrun --nproc-per-node N -m rejoinder train ...` starts them. All make the same plan from the
same seed; of every batch each encodes its share of the rows, and vectors, gradients and ranks are
exchanged. So what is learned does not hang on how many they are: `batch_size` is the batch of all
of them together, and every row has all candidates of it.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from rejoinder.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process among its like. Every method that exchanges must be called by all of them."""

    number: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """The one that writes files and talks."""
        return self.number == 0

    @property
    def own(self) -> slice:
        """Its share of a list: every `count`-th, from its own number on."""
        return slice(self.number, None, self.count)

    def gather(self, part: Tensor, total: int) -> Tensor:
        """Own rows of a tensor (total, D) -> all rows, in order; no gradients."""
        if self.count == 1:
            return part
        room = part.new_zeros(-(-total // self.count), *part.shape[1:])  # all send as much
        room[: len(part)] = part
        parts = [torch.empty_like(room) for _ in range(self.count)]
        dist.all_gather(parts, room)
        whole = part.new_empty(total, *part.shape[1:])
        for number, some in enumerate(parts):
            place = whole[number :: self.count]
            place.copy_(some[: len(place)])
        return whole

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Replace each by its sum over the processes; all go over the wire as one."""
        listed = list(tensors)
        if self.count == 1 or not listed:
            return
        flat = torch.cat([tensor.flatten() for tensor in listed])
        dist.all_reduce(flat)
        done = 0
        for tensor in listed:
            tensor.copy_(flat[done : done + tensor.numel()].view_as(tensor))
            done += tensor.numel()

    def most(self, value: int) -> int:
        """The largest of their values."""
        return max(self.collect([value]))

    def told(self, value: T) -> T:
        """What the first one has, for what must be the same everywhere, such as the time."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def collect(self, own: Sequence[T]) -> list[T]:
        """Their shares of a list (see `own`) -> the list."""
        if self.count == 1:
            return list(own)
        shares: list[list[T]] = [[] for _ in range(self.count)]
        dist.all_gather_object(shares, list(own))
        whole: list[T] = [None] * sum(map(len, shares))  # type: ignore[list-item]
        for number, share in enumerate(shares):
            whole[number :: self.count] = share
        return whole


ALONE = Processes()


def join(device: str) -> tuple[Processes, str]:
    """Find the other processes that torchrun started, if it did; -> them, and the device to use.

    Raises ConfigError where they cannot find one another.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE, device
    from accelerate import PartialState

    cuda = device.startswith("cuda")
    backend = {"backend": "cuda:nccl,cpu:gloo"} if cuda else {}  # small numbers stay on the CPU
    if not dist.is_initialized():
        atexit.register(_part)
    try:
        state = PartialState(cpu=not cuda, **backend)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"the processes cannot join ({str(error)[:160]}); start them all with torchrun "
            "--nproc-per-node N -m rejoinder train ..., on every machine with the same --nnodes, "
            "--rdzv-id and --rdzv-endpoint"
        ) from None
    if state.num_processes != int(os.environ["WORLD_SIZE"]):
        raise ConfigError(
            f"{state.num_processes} processes came together of WORLD_SIZE "
            f"{os.environ['WORLD_SIZE']}; start them with torchrun, which tells each of the others"
        )
    here = f"cuda:{state.local_process_index}" if cuda else device
    return Processes(state.process_index, state.num_processes), here


def end(code: int) -> None:
    """End this process with an exit code, if it is one of several; alone it goes on.

    Output is written out and the group left; exit hooks of others are not run, and Python does not
    take itself apart: threads of gloo that are still there abort a process in which that has
    begun, now and then even after the group was left (terminate called without an active
    exception, exit code -6).
    """
    if not dist.is_initialized():
        return
    _part()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or nobody reads it
            stream.flush()
    os._exit(code)


def _part() -> None:
    """Leave the others, once this process has nothing more to exchange."""
    if dist.is_initialized():
        dist.destroy_process_group()
