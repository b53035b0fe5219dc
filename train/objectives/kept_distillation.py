"""Patch distillation on kept crops (TIPSv2 Sec. 3.2): an earlier run teaches one that starts again from its base.

Teacher and student share the frozen blocks, so the teacher's own blocks read the same kept tokens: it costs a forward
pass of these. Final features learn from final ones, value features from value features.
"""

from __future__ import annotations

from torch import Tensor, nn

from train.objectives import losses
from train.objectives.kept_view import KeptView
from train.recipe.kept_settings import KeptDistillation


class KeptDistilling(nn.Module):
    """Terms `distillation_*`."""

    def __init__(self, settings: KeptDistillation):
        super().__init__()
        self.settings = settings

    def forward(self, view: KeptView) -> dict[str, tuple[float, Tensor]]:
        return {
            f"distillation_{kind}": (
                self.settings.weight * counts,
                losses.patch_distillation(patches, view.targets[kind]),
            )
            for kind, counts, patches in view.kinds()
        }
