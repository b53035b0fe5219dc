"""A running mean of what is trained (EMA): what a run exports, where single steps are noisy. State that changes only
after an optimiser step, and is a part of the checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

WARM = 10  # the mean of the first steps is of few: decay (1 + step) / (WARM + step) until that is larger


class Averages(nn.Module):
    """mean <- decay * mean + (1 - decay) * parameter, of every parameter that `module` trains."""

    def __init__(self, module: nn.Module, decay: float):
        super().__init__()
        self.decay = decay
        self._trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]  # a list: no submodules
        for name, parameter in self._trained:
            self.register_buffer(_key(name), parameter.detach().clone())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After optimiser step `step` (0-based)."""
        decay = min(self.decay, (1 + step) / (WARM + step))
        for name, parameter in self._trained:
            getattr(self, _key(name)).lerp_(parameter.detach(), 1 - decay)

    @contextmanager
    @torch.no_grad()
    def in_place(self) -> Iterator[None]:
        """While it lasts, the parameters are their means."""
        last = [parameter.detach().clone() for _, parameter in self._trained]
        for name, parameter in self._trained:
            parameter.copy_(getattr(self, _key(name)))
        try:
            yield
        finally:
            for (_, parameter), value in zip(self._trained, last, strict=True):
                parameter.copy_(value)


def _key(name: str) -> str:
    return name.replace(".", "/")  # a buffer's name has no dots
