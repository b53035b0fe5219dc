"""A classifier's names at every patch, softly, and the wider words above them: names without any label map.

The classifier says where it is sure; its thousand names then reach patches of any photograph, and each hypernym of
them ("dog", "vehicle") as the sum of its classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from train.objectives.term import CountOrNone, KeptTerm, Parts, Weight

if TYPE_CHECKING:
    from train.objectives.view import KeptView


@dataclass(frozen=True)
class SoftNames(KeptTerm):
    """Kept crops with a classifier's soft names: patches learn these, and the wider words above them. Parts `soft_*`
    and `groups_*`.
    """

    WEIGHTS: ClassVar = ("weight", "groups")
    ARRAY: ClassVar = ("soft", "--classifier")

    weight: Weight = 0.0  # of the cross-entropy over the classifier's names
    groups: Weight = 0.0  # of the sums over hypernyms, every one for itself
    patches: CountOrNone = 700  # of a step and set that are compared with all names; 0: all

    def losses(self, view: KeptView) -> Parts:
        from train.objectives import losses
        from train.objectives.view import cosines
        from train.parallel.distributed import mean

        if "soft" not in view.part:
            return {}
        out = {}
        at, classes, chance = view.part["soft_at"], view.part["soft"], view.part["chance"]
        for kind, counts, patches in view.kinds():
            chosen = patches.flatten(0, 1)[at]
            if self.weight:
                logits = view.scales.softmax(cosines(chosen, view.classes))
                out[f"soft_{kind}"] = self.weight * counts, losses.soft_named(logits, classes, chance, mean)
            if self.groups and view.groups is not None:
                targets = losses.group_chances(classes, chance, view.members)
                logits = view.scales.binary(cosines(chosen, view.groups))
                loss = losses.binary(logits, targets, chance[:, 0], mean)
                out[f"groups_{kind}"] = self.groups * counts, loss
        return out
