"""What a run on kept crops needs: its base, the kept sets, the words with their vectors, the bridge, a teacher."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase, Tipsv2Model

import tipsv2
from tipsv2.checkpoints.weights import digest_of
from tipsv2.network.dense import features_after
from train.data import sentence_vectors
from train.data.kept.keep import frozen_digest
from train.data.kept.sets import KeptSet, digest_of_sets, open_sets
from train.data.kept.words import compose, vectors_of
from train.network.teachers import TextTeacher
from train.network.tuning import open_base
from train.objectives.kept import KeptObjective
from train.objectives.term import KeptTerm
from train.recipe.settings import PATCH, Recipe


def prepare_kept(recipe: Recipe, empty: bool = False) -> tuple[Recipe, KeptObjective, PreTrainedTokenizerBase]:
    """The resolved recipe, the objective and the base's tokenizer. empty: without the sentence vectors.

    Raises ValueError, one sentence, for whatever does not fit together.
    """
    sets = open_sets(recipe.data.source)
    _check(recipe, sets)
    crops, size = sum(each.crops for each in sets), max(each.kept.size for each in sets)
    recipe = replace(recipe, stages=tuple(replace(stage, batch_size=crops, size=size) for stage in recipe.stages))
    words = compose([each.kept for each in sets], recipe.kept, recipe.whole_names.captions > 0)
    text = TextTeacher(recipe.sfclip.text_teacher, "--text-teacher")
    recipe, model, tokenizer = open_base(recipe)
    _same_frozen(model, sets, f"--base {recipe.tuning.base}")
    if (layers := len(model.vision_model.encoder.layer)) - recipe.tuning.layers < sets[0].kept.blocks:
        raise ValueError(
            f"tuning.layers={recipe.tuning.layers} of {layers} blocks learn, but '{sets[0].kept.folder}' was kept "
            f"after block {sets[0].kept.blocks}: set {layers - sets[0].kept.blocks} or less."
        )
    if recipe.kept.centre and not empty:
        centre(model, sets, recipe.kept.centre)
    teacher = None
    if recipe.kept_distillation.weight:
        guide = tipsv2.load(recipe.kept_distillation.teacher, "cpu", "float32", fast=False)
        teacher = guide.model
        _same_frozen(teacher, sets, f"kept_distillation.teacher={recipe.kept_distillation.teacher}")
        recipe = replace(recipe, kept_distillation=replace(recipe.kept_distillation, digest=guide.digest))
    recipe = replace(
        recipe,
        kept=replace(recipe.kept, digest=digest_of_sets(sets, words.digest)),
        sfclip=replace(recipe.sfclip, text_digest=digest_of(text.model)),
    )
    torch.manual_seed(recipe.seed)
    bridge = _bridge(recipe, text.width, model.config.vision_config.hidden_size)
    beside = sets[0].kept.folder.parent
    vectors = torch.zeros(1, text.width) if empty else vectors_of(words, text, beside)
    return recipe, KeptObjective(recipe, model, sets, words, vectors, bridge, teacher), tokenizer


@torch.no_grad()
def centre(model: Tipsv2Model, sets: list[KeptSet], crops: int) -> None:
    """Take from the final norm's bias the mean patch feature, of both kinds, of so many crops, every set alike.

    A direction that all patches share says nothing, and hides in every cosine what differs.
    """
    means = []
    for each in sets:
        rows, side = each.kept.rows, (each.kept.side, each.kept.side)
        count, total = min(rows, max(1, crops // len(sets))), 0.0
        for k in range(count):
            hidden = torch.from_numpy(each.kept.arrays["hidden"][[k * rows // count]]).float()
            _, _, patches, values = features_after(model.vision_model, hidden, each.kept.blocks, side)
            total = total + (patches + values).mean((0, 1, 2)) / 2
        means.append(total / count)
    model.vision_model.layernorm.bias -= torch.stack(means).mean(0)


def _check(recipe: Recipe, sets: list[KeptSet]) -> None:
    if not recipe.tuning.base:
        raise ValueError("--base is missing: kept crops are trained on from the encoder whose frozen part made them.")
    if recipe.tuning.part != "last" or recipe.tuning.towers != "vision":
        raise ValueError(
            "on kept crops the last blocks of the vision tower learn: set tuning.part=last and towers=vision."
        )
    if not recipe.sfclip.text_teacher:
        raise ValueError(
            "--text-teacher is missing: a sentence encoder, such as foundations/minilm, says what names mean."
        )
    if recipe.accumulate != 1 or recipe.sharding != "none":
        raise ValueError("kept crops are trained on with accumulate=1 and sharding=none.")
    if recipe.kept_distillation.weight and not recipe.kept_distillation.teacher:
        raise ValueError("kept_distillation.teacher is missing: the model folder of a run on the same kept crops.")
    terms = recipe.terms(KeptTerm)
    if not terms:
        raise ValueError(
            "every term on kept crops has weight 0, so nothing would be learned: set one, such as "
            "named_patches.weight=1, presence.weight=1 or soft_names.weight=1."
        )
    for term in terms:
        array, what = term.ARRAY
        if array and not any(of_set.kept.has(array) for of_set in sets):
            raise ValueError(
                f"{term.name} learns from {what}, and no kept set has that: keep one, or set its weights to 0."
            )


def _same_frozen(model: Tipsv2Model, sets: list[KeptSet], what: str) -> None:
    kept = sets[0].kept
    if (
        model.config.vision_config.patch_size != PATCH
        or frozen_digest(model.vision_model, kept.blocks) != kept.meta["frozen"]
    ):
        raise ValueError(
            f"{what} has another frozen part than '{kept.folder}' was made with ({kept.meta['vision']}, the first "
            f"{kept.blocks} blocks): give that encoder, or keep the crops again with this one."
        )


def _bridge(recipe: Recipe, width: int, out: int) -> nn.Sequential:
    if not recipe.kept.bridge:
        return sentence_vectors.Bridge(width, recipe.kept.hidden, out).map
    found = sentence_vectors.open_bridge(Path(recipe.kept.bridge), width).map
    if found[-1].out_features != out:
        raise ValueError(
            f"kept.bridge={recipe.kept.bridge} leads to {found[-1].out_features} and not to {out} numbers."
        )
    return found
