"""Patch distillation on kept crops (TIPSv2 Sec. 3.2): an earlier run teaches one that starts again from its base.

Teacher and student share the frozen blocks, so the teacher's own blocks read the same kept tokens: it costs a forward
pass of these. Final features learn from final ones, value features from value features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from train.objectives.term import KeptTerm, Parts, Weight

if TYPE_CHECKING:
    from train.objectives.view import KeptView


@dataclass(frozen=True)
class KeptDistillation(KeptTerm):
    """The patches of an earlier run with the same frozen part, for one that starts again from its base."""

    weight: Weight = 0.0
    teacher: str = ""  # its model folder
    digest: str = ""  # of its weights; found when the run starts

    def losses(self, view: KeptView) -> Parts:
        from train.objectives import losses

        return {
            kind: (self.weight * counts, losses.patch_distillation(patches, view.targets[kind]))
            for kind, counts, patches in view.kinds()
        }
