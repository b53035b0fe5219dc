"""Projection heads onto prototypes, and the teacher's heads that follow them (head-only EMA, TIPSv2 Sec. 3.4).

The teacher shares the student's backbone; only its heads are an exponential moving average. All state that losses
need (teacher heads, centres) lives here and changes in `update`, after an optimiser step, never in evaluation.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from train.objectives import losses
from train.parallel import distributed


class ProjectionHead(nn.Module):
    """3-layer MLP, L2 norm, weight-normalised map to K prototypes (TIPS Sec. 3.2, DINO): [..., D] -> [..., K]."""

    def __init__(self, width: int, hidden: int, bottleneck: int, prototypes: int):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        self.prototypes = nn.Parameter(torch.empty(prototypes, bottleneck))
        nn.init.normal_(self.prototypes)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.normalize(self.mlp(x), dim=-1, eps=1e-6)
        return nn.functional.linear(x, nn.functional.normalize(self.prototypes, dim=-1))


class Heads(nn.Module):
    """Student heads for CLS and patches, their EMA teachers, and the teachers' centres.

    `targets="sinkhorn"` balances prototypes within the batch; `"centre"` subtracts a running mean (App. A.9).
    """

    def __init__(self, width: int, hidden: int, bottleneck: int, prototypes: int, targets: str = "sinkhorn"):
        super().__init__()
        if targets not in ("sinkhorn", "centre"):
            raise ValueError(f"targets={targets!r} is unknown; choose sinkhorn or centre.")
        self.targets = targets
        self.student = nn.ModuleDict(
            {kind: ProjectionHead(width, hidden, bottleneck, prototypes) for kind in ("cls", "patch")}
        )
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        for kind in self.student:
            self.register_buffer(f"centre_{kind}", torch.zeros(prototypes))
        self._seen: dict[str, Tensor] = {}

    @torch.no_grad()
    def target(self, kind: str, features: Tensor, temperature: float) -> Tensor:
        """Teacher probabilities [..., K] for features [..., D] of the clean view; kind is "cls" or "patch"."""
        scores = self.teacher[kind](features.detach()).float()
        self._seen[kind] = distributed.total(scores.flatten(0, -2).mean(0)) / distributed.world()
        if self.targets == "sinkhorn":
            return losses.sinkhorn(scores, temperature, total=distributed.total)
        return losses.sharpen(scores, getattr(self, f"centre_{kind}"), temperature)

    @torch.no_grad()
    def update(self, momentum: float, centre_momentum: float = 0.9) -> None:
        """After an optimiser step: teacher <- momentum * teacher + (1 - momentum) * student; centres likewise."""
        for ours, theirs in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            ours.lerp_(theirs, 1 - momentum)
        for kind, mean in self._seen.items():
            getattr(self, f"centre_{kind}").lerp_(mean, 1 - centre_momentum)
        self._seen.clear()
