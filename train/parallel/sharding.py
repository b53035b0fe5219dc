"""Encoders that do not fit one device: FSDP, by torch's fully_shard, where a recipe says sharding=full.

    torchrun --nproc-per-node 8 -m train pretrain --recipe nano --data scenes --out runs/nano sharding=full

Every process holds a part of each weight, its gradient and its moments (ZeRO stage 3, arXiv 1910.02054). A transformer
block, of the towers or of an averaged teacher, is put together when it runs and taken apart after it, forward and
backward. The rest (embeddings, norms, heads, the last vision block) is put together once a step: value features read
the last block piece by piece (tipsv2.network.dense), and its own forward would not know. Whole everywhere are the
temperature, buffers, and frozen teachers, which have neither gradients nor moments. For large towers set
checkpointing=true too: without it activations stay, and with bf16 a cast copy of each block's weights with them.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import Tipsv2VisionModel
from transformers.modeling_layers import GradientCheckpointingLayer  # every block of transformers is one

from train.parallel import distributed


class Shards:
    """An objective in parts, one part a process. Every process must call every method."""

    def __init__(self, objective: nn.Module, device: torch.device):
        """Take `objective` apart, in place; its parameters become DTensors. Optimisers must be made after this."""
        self.objective, self.device = objective, device
        self._outline = _outline(objective.model)
        mesh = init_device_mesh(device.type, (distributed.world(),))
        single = {p for p in objective.parameters() if p.ndim == 0}  # the temperature cannot be divided
        for number in single:
            number.data = number.data.to(device)
            if number.requires_grad:
                number.register_post_accumulate_grad_hook(_average)
        pieces = {m.encoder.layer[-1] for m in objective.modules() if isinstance(m, Tipsv2VisionModel)}
        for module in list(objective.modules()):
            if isinstance(module, GradientCheckpointingLayer) and module not in pieces:
                fully_shard(module, mesh=mesh)
        fully_shard(objective, mesh=mesh, ignored_params=single)

    @torch.no_grad()
    def clip(self, largest: float) -> Tensor:
        """Scale all gradients so that their joint norm is at most `largest`; returns the norm they had, []."""
        gradients = [p.grad for p in self.objective.parameters() if p.grad is not None]
        whole = [g for g in gradients if not distributed.is_part(g)]
        parts = [g.to_local() for g in gradients if distributed.is_part(g)]
        squares = distributed.total(nn.utils.get_total_norm(parts).to(self.device).square())
        norm = (squares + nn.utils.get_total_norm(whole).square()).sqrt()
        factor = (largest / (norm + 1e-6)).clamp(max=1)  # as torch.nn.utils.clip_grad_norm_
        for gradient in parts + whole:
            gradient.mul_(factor)
        return norm

    @torch.no_grad()
    def encoder(self) -> nn.Module | None:
        """The encoder as it is now, a plain whole model of float32 on the device: in the first process, else None."""
        main = distributed.rank() == 0
        state = {}
        for name, value in self.objective.model.state_dict().items():
            value = distributed.whole(value)
            if main:
                state[name] = value
        if not main:
            return None
        model = copy.deepcopy(self._outline)
        model.load_state_dict(state, assign=True)
        return model.to(self.device)


def _outline(model: nn.Module) -> nn.Module:
    """A copy of `model` whose parameters have shapes and no values."""
    empty = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=p.requires_grad)
        for p in model.parameters()
    }
    return copy.deepcopy(model, empty)


def _average(parameter: Tensor) -> None:
    """What FSDP does to the gradients of what it divides."""
    parameter.grad = distributed.total(parameter.grad) / distributed.world()
