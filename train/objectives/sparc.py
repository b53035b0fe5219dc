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

from torch import Tensor, nn

from train.network.towers import MIN_TEMPERATURE
from train.objectives import losses
from train.objectives.view import View
from train.parallel import distributed
from train.recipe.settings import Sparc, Stage, choose


class SparseAlignment(nn.Module):
    """Terms `sparc_local` (negatives: the other words of a caption) and `sparc_global` (all processes' pairs)."""

    def __init__(self, settings: Sparc, width: int):
        """`width` is the towers'. Raises ValueError for an unknown choice or a threshold that is none."""
        super().__init__()
        choose("sparc.caption", settings.caption, "synthetic", "web")
        choose("sparc.reduction", settings.reduction, "tokens", "captions")
        choose("sparc.features", settings.features, "final", "values")
        self.settings, self.threshold = settings, _threshold(settings.threshold)
        self.adapt_patches = self.adapt_tokens = self.adapt_mean = nn.Identity()  # g_v, g_t, h_v
        if settings.width:
            self.adapt_patches, self.adapt_tokens = (nn.Linear(width, settings.width) for _ in range(2))
            self.adapt_mean = nn.Sequential(nn.Linear(width, width), nn.GELU())

    def forward(self, view: View, batch: dict[str, Tensor], stage: Stage) -> dict[str, tuple[float, Tensor]]:
        settings, text = self.settings, view.texts[self.settings.caption]
        temperature = view.model.temperature.float().clamp(min=MIN_TEMPERATURE)
        patches = view.values if settings.features == "values" else view.patches
        image = self.adapt_patches(self.adapt_mean(patches.mean(1)))
        together = losses.contrastive(
            distributed.gather(image),
            distributed.gather(self.adapt_tokens(text.pooled)),
            temperature,
            distributed.gather(text.key),
        )
        alone = losses.sparc(
            self.adapt_tokens(text.tokens),
            self.adapt_patches(patches),
            text.mask,
            temperature,
            self.threshold,
            settings.reduction,
            lambda number: distributed.total(number) / distributed.world(),
        )
        return {
            "sparc_global": (settings.weight * settings.global_weight, together),
            "sparc_local": (settings.weight * settings.local_weight, alone),
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
