"""What crosses processes, with autograd; with one process every function is the identity.

    torchrun --nproc-per-node 2 -m train pretrain --recipe nano --data scenes --out runs/nano

Convention: every process computes the loss of the joined batch and the engine averages parameter gradients, so a
gathered tensor's gradient is summed over processes and the average comes out as the one-process gradient.
"""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import Tensor


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


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(world())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return total(gradient).chunk(world())[rank()]
