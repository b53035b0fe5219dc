"""Masked distillation from unimodal teachers on a part of the batch, after SF-CLIP (CVPR 2024, pp. 14216-14226).

From the paper's abstract: contrastive training (the shared pass, clean) together with masked knowledge distillation
from large unimodal vision and text models, applied selectively. Its details are not public in text form; how it is done
here is our choice: for a share of the images the student looks again with some patches masked, and small heads predict
the teacher's features of the clean image; for as many captions the same with words.
Sizes: b images of the part, N patches, L tokens, D the student's width, W a teacher's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from train.objectives.term import CountOrNone, Guides, Needs, PairTerm, Parts, Share, SomeShare, Weight, matrices

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import Tipsv2Model

    from train.objectives.view import View
    from train.recipe.settings import Stage


@dataclass(frozen=True)
class Sfclip(PairTerm):
    """Parts `vision` and `text`, each where its weight is not 0, and words inherited from the text teacher
    (train/network/inherited_words.py).

    That it masks, on a part of the batch, and inherits word embeddings is in the paper's abstract; its details are not
    public in text form, so every value here is our choice. The heads and the embedding of a masked word exist in
    training only. The teachers are no part of the state.
    """

    WEIGHTS: ClassVar = ("vision_weight", "text_weight")
    SWITCHES: ClassVar = ("words",)

    vision_weight: Weight = 0.0  # of the masked student's patches against the vision teacher's
    vision_teacher: str = ""  # a folder or Hub id of any transformers vision model with square patches, ours too
    vision_digest: str = ""  # of its weights, found when the run starts; as text_digest
    text_weight: Weight = 0.0  # of the masked student's words against the text teacher's
    text_teacher: str = ""  # a folder or Hub id of any transformers text model; its tokenizer and words count too
    text_digest: str = ""
    text_target: Literal["tokens", "sentence"] = "tokens"  # each token's feature (words=teacher), or their mean
    caption: Literal["synthetic", "web"] = "synthetic"  # whose words are masked
    share: SomeShare = 0.25  # of the batch that is masked and distilled; the rest costs nothing
    patch_ratio: Share = 0.5  # of an image's patches that are masked
    word_ratio: Share = 0.3  # of a caption's tokens that are masked, at least one
    tokens: Literal["masked", "all"] = "masked"  # where the loss is taken
    form: Literal["cosine", "smooth_l1"] = "cosine"  # smooth_l1 [arXiv 2205.14141]; see losses.masked_distillation
    hidden: CountOrNone = 384  # of the prediction heads (linear, GELU, linear); 0: one linear map
    words: Literal["own", "teacher", "pieces"] = "own"  # its tokenizer and embeddings; or own ones, means of its pieces
    matrix: Literal["frozen", "trained"] = "frozen"  # inherited embeddings; the map to another width always trains

    def needs(self, stage: Stage) -> Needs:
        return Needs(images=self.share if self.vision_weight else 0.0, captions=self.share if self.text_weight else 0.0)

    def teaching(self, stage: Stage, guides: Guides, patch: int, tokens: float) -> float:
        total, unimodal = 0.0, guides.unimodal
        if self.vision_weight:
            side = stage.teacher_size // unimodal.vision.patch or stage.size // patch
            total += 2 * self.share * matrices(unimodal.vision.model) * side**2
        if self.text_weight:
            total += 2 * self.share * matrices(unimodal.text.model) * tokens
        return total

    def build(self, model: Tipsv2Model, guides: Guides) -> dict[str, object]:
        """Raises ValueError where nothing is hidden, or for token features of a text the student reads in other
        tokens.
        """
        import torch
        from torch import nn

        if self.text_weight and self.text_target == "tokens" and self.words != "teacher":
            raise ValueError(
                f"sfclip.text_target=tokens needs the teacher's tokenizer, and sfclip.words={self.words} keeps "
                "another; set sfclip.words=teacher or sfclip.text_target=sentence."
            )
        token_terms = (
            ("patch_ratio", self.vision_weight),
            ("word_ratio", self.text_weight and self.text_target == "tokens"),
        )
        for ratio, weight in token_terms:
            if weight and self.tokens == "masked" and not getattr(self, ratio):
                raise ValueError(
                    f"sfclip.{ratio}=0 hides nothing, and sfclip.tokens=masked learns from what is hidden; "
                    "set a ratio above 0 or sfclip.tokens=all."
                )
        width, unimodal = model.config.vision_config.hidden_size, guides.unimodal
        built: dict[str, object] = {"teachers": unimodal}
        if self.vision_weight:
            built["vision_head"] = self._head(width, unimodal.vision.width)
        if self.text_weight:
            built["text_head"] = self._head(width, unimodal.text.width)
            built["masked_word"] = nn.Parameter(0.02 * torch.randn(width))
        return built

    def losses(self, view: View, batch: dict[str, Tensor], stage: Stage, state: nn.Module) -> Parts:
        out, part = {}, batch["sfclip_part"]
        if self.vision_weight:
            out["vision"] = self.vision_weight, self._vision(view, batch, stage, state, part)
        if self.text_weight:
            out["text"] = self.text_weight, self._text(view, batch, state, part)
        return out

    def _vision(self, view: View, batch: dict[str, Tensor], stage: Stage, state: nn.Module, part: Tensor) -> Tensor:
        vision, teacher = view.model.vision_model, state.teachers.vision
        images, hide = view.images[part], batch["sfclip_masked"][part]
        tokens = vision(pixel_values=images, bool_masked_pos=hide).last_hidden_state
        student = state.vision_head(tokens[:, 1 + vision.config.num_register_tokens :])  # [b, N, W]
        target = teacher.look(images, stage.size // vision.config.patch_size, stage.teacher_size)
        return self._loss(student, target, hide if self.tokens == "masked" else hide.new_ones(hide.shape))

    def _text(self, view: View, batch: dict[str, Tensor], state: nn.Module, part: Tensor) -> Tensor:
        text, role = view.model.text_model, self.caption
        ids, mask, hide = (batch[k][part] for k in (f"{role}_ids", f"{role}_mask", "sfclip_words"))
        words = text.embeddings.token_embedding(ids)
        words = state.masked_word.to(words).where(hide[..., None], words)
        out = text(inputs_embeds=words, attention_mask=mask)
        if "sfclip_ids" in batch:
            ids, mask = batch["sfclip_ids"][part], batch["sfclip_mask"][part]
        target = state.teachers.text.read(ids, mask)  # [b, L, W]
        if self.text_target == "tokens":
            return self._loss(state.text_head(out.last_hidden_state), target, hide if self.tokens == "masked" else mask)
        mask = mask[..., None].to(target)
        target = (target * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)  # [b, 1, W]
        return self._loss(state.text_head(out.pooler_output)[:, None], target, mask.new_ones(target.shape[:2]))

    def _loss(self, student: Tensor, target: Tensor, chosen: Tensor) -> Tensor:
        from train.objectives import losses
        from train.parallel.distributed import mean  # each process adds its part of the joined batch's mean

        return losses.masked_distillation(student, target, chosen, self.form, mean)

    def _head(self, width: int, out: int) -> nn.Module:
        from torch import nn

        if not self.hidden:
            return nn.Linear(width, out)
        return nn.Sequential(nn.Linear(width, self.hidden), nn.GELU(), nn.Linear(self.hidden, out))
