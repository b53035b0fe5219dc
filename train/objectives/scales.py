"""Scales of cosines, and biases, that may learn: what turns the likeness of a patch and a name into a probability."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from train.recipe.kept_settings import KeptCrops


class Scales(nn.Module):
    """softmax: of a choice among names. binary, presence: of a name for itself, in a patch and in a picture."""

    def __init__(self, settings: KeptCrops):
        super().__init__()
        self.softmax_log = nn.Parameter(torch.tensor(math.log(settings.softmax)))
        self.binary_log = nn.Parameter(torch.tensor(math.log(settings.binary)))
        self.binary_bias = nn.Parameter(torch.tensor(float(settings.bias)))
        self.presence_log = nn.Parameter(torch.tensor(math.log(settings.binary)))
        self.presence_bias = nn.Parameter(torch.tensor(float(settings.bias)))
        self.requires_grad_(settings.scale_rate > 0)

    def softmax(self, cosines: Tensor) -> Tensor:
        """Logits of a softmax over the last dimension."""
        return cosines * self.softmax_log.exp()

    def binary(self, cosines: Tensor) -> Tensor:
        """Logits of patches."""
        return cosines * self.binary_log.exp() + self.binary_bias

    def presence(self, cosines: Tensor) -> Tensor:
        """Logits of pictures."""
        return cosines * self.presence_log.exp() + self.presence_bias
