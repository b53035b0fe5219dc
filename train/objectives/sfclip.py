"""Masked distillation from unimodal teachers on a part of the batch, after SF-CLIP (CVPR 2024, pp. 14216-14226).

From the paper's abstract: contrastive training (the shared pass, clean) together with masked knowledge distillation
from large unimodal vision and text models, applied selectively. Its details are not public in text form; how it is done
here is our choice: for a share of the images the student looks again with some patches masked, and small heads predict
the teacher's features of the clean image; for as many captions the same with words.
Sizes: b images of the part, N patches, L tokens, D the student's width, W a teacher's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import Tipsv2Model

from train.network.teachers import Teachers
from train.objectives import losses
from train.objectives.view import View
from train.parallel import distributed
from train.recipe.settings import Sfclip, Stage, choose


class MaskedDistilling(nn.Module):
    """Terms `sfclip_vision` and `sfclip_text`, each where its weight is not 0.

    The heads and the embedding of a masked word exist in training only. The teachers are no part of the state.
    """

    def __init__(self, settings: Sfclip, model: Tipsv2Model, teachers: Teachers):
        """Raises ValueError for an unknown choice, or token features of a text the student reads in other tokens."""
        super().__init__()
        self._masked = choose("sfclip.tokens", settings.tokens, "masked", "all") == "masked"
        choose("sfclip.form", settings.form, "cosine", "smooth_l1")
        choose("sfclip.text_target", settings.text_target, "tokens", "sentence")
        if settings.text_weight and settings.text_target == "tokens" and settings.words != "teacher":
            raise ValueError(
                f"sfclip.text_target=tokens needs the teacher's tokenizer, and sfclip.words={settings.words} keeps "
                "another; set sfclip.words=teacher or sfclip.text_target=sentence."
            )
        token_terms = (
            ("patch_ratio", settings.vision_weight),
            ("word_ratio", settings.text_weight and settings.text_target == "tokens"),
        )
        for ratio, weight in token_terms:
            if weight and self._masked and not getattr(settings, ratio):
                raise ValueError(
                    f"sfclip.{ratio}=0 hides nothing, and sfclip.tokens=masked learns from what is hidden; "
                    "set a ratio above 0 or sfclip.tokens=all."
                )
        self.settings = settings
        self._teachers = [teachers]  # in a list: not a submodule, not in state_dict
        width = model.config.vision_config.hidden_size
        if settings.vision_weight:
            self.vision_head = _head(width, settings.hidden, teachers.vision.width)
        if settings.text_weight:
            self.text_head = _head(width, settings.hidden, teachers.text.width)
            self.masked_word = nn.Parameter(0.02 * torch.randn(width))

    def forward(self, view: View, batch: dict[str, Tensor], stage: Stage) -> dict[str, tuple[float, Tensor]]:
        settings, out, part = self.settings, {}, batch["sfclip_part"]
        if settings.vision_weight:
            out["sfclip_vision"] = settings.vision_weight, self._vision(view, batch, stage, part)
        if settings.text_weight:
            out["sfclip_text"] = settings.text_weight, self._text(view, batch, part)
        return out

    def _vision(self, view: View, batch: dict[str, Tensor], stage: Stage, part: Tensor) -> Tensor:
        vision, teacher = view.model.vision_model, self._teachers[0].vision
        images, hide = view.images[part], batch["sfclip_masked"][part]
        tokens = vision(pixel_values=images, bool_masked_pos=hide).last_hidden_state
        student = self.vision_head(tokens[:, 1 + vision.config.num_register_tokens :])  # [b, N, W]
        target = teacher.look(images, stage.size // vision.config.patch_size, stage.teacher_size)
        return self._loss(student, target, hide if self._masked else torch.ones_like(hide))

    def _text(self, view: View, batch: dict[str, Tensor], part: Tensor) -> Tensor:
        text, role = view.model.text_model, self.settings.caption
        ids, mask, hide = (batch[k][part] for k in (f"{role}_ids", f"{role}_mask", "sfclip_words"))
        words = text.embeddings.token_embedding(ids)
        words = torch.where(hide[..., None], self.masked_word.to(words), words)
        out = text(inputs_embeds=words, attention_mask=mask)
        if "sfclip_ids" in batch:
            ids, mask = batch["sfclip_ids"][part], batch["sfclip_mask"][part]
        target = self._teachers[0].text.read(ids, mask)  # [b, L, W]
        if self.settings.text_target == "tokens":
            return self._loss(self.text_head(out.last_hidden_state), target, hide if self._masked else mask)
        mask = mask[..., None].to(target)
        target = (target * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)  # [b, 1, W]
        return self._loss(self.text_head(out.pooler_output)[:, None], target, torch.ones_like(target[..., 0]))

    def _loss(self, student: Tensor, target: Tensor, chosen: Tensor) -> Tensor:
        return losses.masked_distillation(student, target, chosen, self.settings.form, _average)


def _head(width: int, hidden: int, out: int) -> nn.Module:
    if not hidden:
        return nn.Linear(width, out)
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, out))


def _average(number: Tensor) -> Tensor:
    """The mean over processes: each adds its part of the joined batch's mean, and the engine averages gradients."""
    return distributed.total(number) / distributed.world()
