"""Names of the numbers in metrics.jsonl: `loss/<term>/<part>` is in the loss, `measured/<term>/<part>` beside it, and
`loss` the whole. Whoever draws them asks here which they are, so that nobody lists the terms. The last line of a run
with patience says of which step its model is, as `best_step`.

term_title("loss/grounding/values")  # 'grounding values', and None for what is no term of the loss
"""

from __future__ import annotations

from collections.abc import Mapping

LOSS = "loss/"
BEST = "best_step"
OF_BEFORE = (  # how names began until the end of 2026, and how they begin now; the first that fits
    ("contrastive_", "loss/contrastive/"),
    ("grounding_", "loss/grounding/"),
    ("patch_labels_", "loss/patch_labels/"),
    ("patch_entropy", "measured/self_distillation/patch_entropy"),
    ("cls_entropy", "measured/self_distillation/cls_entropy"),
    ("patch", "loss/self_distillation/patch"),
    ("dino", "loss/self_distillation/dino"),
    ("distillation_", "loss/kept_distillation/"),
    ("distillation", "loss/distillation/patches"),
    ("sfclip_", "loss/sfclip/"),
    ("sparc_", "loss/sparc/"),
    ("names_", "loss/named_patches/names_"),
    ("binary_", "loss/named_patches/binary_"),
    ("places_", "loss/named_patches/places_"),
    ("presence_", "loss/presence/"),
    ("soft_", "loss/soft_names/soft_"),
    ("groups_", "loss/soft_names/groups_"),
    ("class_", "loss/whole_names/class_"),
    ("captions_", "loss/whole_names/captions_"),
)


def current(line: Mapping[str, float]) -> dict[str, float]:
    """A line of metrics.jsonl under the names of now, whenever it was written."""
    return {_current_name(name): value for name, value in line.items()}


def term_title(name: str) -> str | None:
    """How a chart calls a part of the loss; None for any other number."""
    return name.removeprefix(LOSS).replace("/", " ").replace("_", " ") if name.startswith(LOSS) else None


def left(best: int, last: int, steps: int, held: Mapping[int, float]) -> str:
    """Which step's encoder a run with patience leaves, and why. last: the step after which it ended, of `steps`.
    held: step -> recall of pairs kept apart, from 0 to 1.
    """
    then = f"{100 * held[best]:.0f} %"
    if last < steps:
        message = (
            f"The run ended after step {last:,} of {steps:,}, since pairs kept apart were found no better any more: "
            f"its encoder is that of step {best:,}, where {then} of them were found at once"
        )
    else:
        message = f"The encoder is that of step {best:,}, where most pairs kept apart were found at once, {then}"
    if best != last and last in held:
        message += f", and after step {last:,} {100 * held[last]:.0f} %"
    if held.get(0, 0.0) > held[best]:
        message += f". Before the first step it was {100 * held[0]:.0f} %"
    return f"{message}."


def _current_name(name: str) -> str:
    if "/" in name:
        return name
    return next((now + name.removeprefix(before) for before, now in OF_BEFORE if name.startswith(before)), name)
