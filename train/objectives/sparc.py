"""SPARC (arXiv 2401.09865): in every caption words and the patches they pick find each other, beside a global loss.

The paper has no CLS: both losses read patches and tokens through adapters, v_p = g_v(f_v(x)_p), t_l = g_t(f_t(x)_l),
v = g_v(h_v(mean of patches)), t = g_t(mean of tokens). Here they stand beside the two-caption contrastive terms, which
train the CLS tokens, and share their learned temperature.

What becomes of the adapters: they are dropped with the run's other heads, and by default there are none. Both towers of
Tipsv2Model end in a LayerNorm, whose scale is diagonal, and text is pooled after it, so a matrix cannot be folded in; a
file beside the model would not reach what opens it with plain transformers. Alignment must be in the towers' own space.
Measured on a toy (pictures of 2 to 4 out of 10 textures, 1500 steps of 32, 48 wide, mean of 3 seeds): the share of
patches named right among the textures present, one third by chance, in the exported encoder, final / values

    contrastive terms alone                           0.27 / 0.55
    + local loss alone, no adapters                   0.16 / 0.46   its value is 0.00: words are told apart blindly
    + both losses, the paper's adapters dropped       0.16 / 0.55   0.73 had h_v and g_v stayed, as the paper evaluates
    + both losses, residual adapters dropped          0.48 / 0.68   started as the identity
    + both losses, no adapters                        0.45 / 0.68
    + the same, local_weight=0.1                      0.58 / 0.69
    + global loss alone, no adapters                  0.57 / 0.66

So there the global loss over pooled patches is what aligns; the local one harms where it is strong and collapses where
it is alone, which tests/test_sparc.py shows in seconds.

On drawn scenes, going on from an encoder whose captions were grounded in patches (train/reproduce/claims.py: one seed,
patch-text mIoU on scenes:search:30, final / values), nothing is above the contrastive terms:

    contrastive terms alone                           0.228 / 0.416
    + both losses, local_weight=0.1 (the row sparc)   0.166 / 0.351
    + the same, threshold=0.5                         0.148 / 0.324
    + the same, caption=web                           0.228 / 0.365
    + global loss alone                               0.151 / 0.312   pooling spreads the caption over all patches
    + local loss alone, local_weight=0.1              0.192 / 0.313
    + the same, local_weight=0.3, threshold=0.5       0.209 / 0.283
    + both, local_weight=0.1, width=128 (adapters)    0.189 / 0.370   0.161 / 0.380 in the adapters' space
    + both, local_weight=1, width=128                 0.161 / 0.321   0.168 / 0.408 in the adapters' space

A new encoder meets its first alignment through the global loss, a grounded one loses its own to it.
Sizes: B images, N patches, L tokens, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from train.objectives.term import CountOrNone, Guides, Needs, PairTerm, Parts, Weight

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import Tipsv2Model

    from train.objectives.view import View
    from train.recipe.settings import Stage


@dataclass(frozen=True)
class Sparc(PairTerm):
    """In every caption, words and the patches they pick find each other: `local` (negatives: the other words of a
    caption) and `global` (all processes' pairs). References are to SPARC (arXiv 2401.09865).
    """

    weight: Weight = 0.0  # of the whole term
    global_weight: Weight = 0.5  # lambda_g [0.5]: pairs of the batch, by the means of their patches and tokens
    local_weight: Weight = 1.0  # lambda_f [swept over 0.5, 1, 5, 10; which won is not given]
    width: CountOrNone = 0  # of the adapters g_v, g_t [512], with h_v before them; 0: the towers' own space is aligned
    threshold: str = "1/P"  # sigma [1/P, P patches]; "none" drops no patch [Table 8], or a number from 0 to 1
    reduction: Literal["tokens", "captions"] = "tokens"  # which weigh the same [Listing 1, Eq. 6]
    caption: Literal["synthetic", "web"] = "synthetic"  # whose words; the paper has one caption per image
    features: Literal["final", "values"] = "final"  # which patches [final]; values see less of each other

    def __post_init__(self):
        super().__post_init__()
        _threshold(self.threshold)

    def needs(self, stage: Stage) -> Needs:
        return Needs(values=self.features == "values")

    def build(self, model: Tipsv2Model, guides: Guides) -> dict[str, object]:
        """g_v, g_t and h_v."""
        from torch import nn

        if not self.width:
            return {"adapt_patches": nn.Identity(), "adapt_tokens": nn.Identity(), "adapt_mean": nn.Identity()}
        width = model.config.vision_config.hidden_size
        patches, tokens = (nn.Linear(width, self.width) for _ in range(2))
        mean = nn.Sequential(nn.Linear(width, width), nn.GELU())
        return {"adapt_patches": patches, "adapt_tokens": tokens, "adapt_mean": mean}

    def losses(self, view: View, batch: dict[str, Tensor], stage: Stage, state: nn.Module) -> Parts:
        from train.objectives import losses
        from train.parallel.distributed import gather, mean

        text, patches, temperature = view.texts[self.caption], view.of(self.features), view.temperature
        image = state.adapt_patches(state.adapt_mean(patches.mean(1)))
        together = losses.contrastive(
            gather(image), gather(state.adapt_tokens(text.pooled)), temperature, gather(text.key)
        )
        alone = losses.sparc(
            state.adapt_tokens(text.tokens),
            state.adapt_patches(patches),
            text.mask,
            temperature,
            _threshold(self.threshold),
            self.reduction,
            mean,
        )
        return {
            "global": (self.weight * self.global_weight, together),
            "local": (self.weight * self.local_weight, alone),
        }


def _threshold(field: str) -> float | None:
    """sigma as `losses.sparc` takes it: None for 1/P."""
    if field in ("1/P", "none"):
        return None if field == "1/P" else 0.0
    try:
        value = float(field)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ValueError(f"sparc.threshold={field!r} is no threshold; set 1/P (the paper's), none, or a number 0 to 1.")
    return value
