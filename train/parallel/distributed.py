"""What crosses processes, with autograd; with one process every function is the identity.

    torchrun --nproc-per-node 2 -m train pretrain --recipe nano --data scenes --out runs/nano

Convention: every process computes the loss of the joined batch and the engine averages parameter gradients, so a
gathered tensor's gradient is summed over processes and the average comes out as the one-process gradient.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeGuard

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0; before the processes have met, what the launcher says."""
    return dist.get_rank() if world() > 1 else int(os.environ.get("RANK", 0))


def gather(rows: Tensor) -> Tensor:
    """[b, ...] of every process, in order of rank: [world * b, ...], with gradients."""
    return rows if world() == 1 else _Gather.apply(rows)


@torch.no_grad()
def total(values: Tensor) -> Tensor:
    """The sum over processes of a tensor of equal shape everywhere; a new tensor, no gradient."""
    values = values.clone()
    if world() > 1:
        dist.all_reduce(values)
    return values


def mean(values: Tensor) -> Tensor:
    """The mean over processes of a tensor of equal shape everywhere; a new tensor, no gradient."""
    return total(values) / world()


def in_any(here: bool, device: torch.device | None = None) -> bool:
    """Whether it is so in any process. Waits for all of them, so that all find what the first one wrote."""
    return bool(total(torch.tensor(float(here), device=device)))


def is_part(value: Tensor) -> TypeGuard[DTensor]:
    """Whether `value` is a DTensor: of what it says it is, this process holds a part (see
    train/parallel/sharding.py).
    """
    return hasattr(value, "full_tensor")


def whole(value: Tensor) -> Tensor:
    """All of a divided tensor, in host memory, and any other tensor as it is; every process must call it."""
    return value.full_tensor().cpu() if is_part(value) else value


def part(value: Tensor, like: Tensor) -> Tensor:
    """This process's part of a whole tensor, where `like` is divided and of its shape; else `value`."""
    if not is_part(like) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor  # not in every build of torch

    divided = distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
    return divided.clone()  # a part is a view, which would keep the whole in memory


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(world())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return total(gradient).chunk(world())[rank()]
