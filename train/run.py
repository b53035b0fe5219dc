"""From a resolved recipe to a finished run: tokenizer, towers, objective, then the loop."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import AutoTokenizer

import tipsv2
from tipsv2 import scenes
from train.distributed import rank
from train.loop import Stopped, fit
from train.objectives import Distillation, Pretraining
from train.objectives.towers import build
from train.recipes import Recipe
from train.tokenizer import train_tokenizer

TOKENIZER_SCENES = 20_000  # captions of these train the tokenizer
TOKENIZER_SEED = 9 * 10**11


def start(recipe: Recipe, out: Path, resume: bool, dry_run: bool, teacher: str | None) -> None:
    """Train `recipe` into `out` and say where the model is. Raises ValueError for anything a user can mend."""
    torch.manual_seed(recipe.seed)
    if recipe.objective == "distill":
        guide = tipsv2.load(teacher, dtype="float32")
        tokenizer, width = guide.tokenizer, guide.model.config.vision_config.hidden_size
        if width != recipe.tower.width:
            raise ValueError(f"the teacher is {width} wide, the student {recipe.tower.width}; set tower.width={width}.")
        model = build(recipe, guide.model.config.text_config.vocab_size)
        objective = Distillation(recipe, model, guide.model)
    else:
        if resume and (out / "tokenizer").is_dir():
            tokenizer = AutoTokenizer.from_pretrained(out / "tokenizer")
        else:
            tokenizer = train_tokenizer(_captions(40 if dry_run else TOKENIZER_SCENES), recipe.tower.vocabulary)
        model = build(recipe, recipe.tower.vocabulary)
        objective = Pretraining(recipe, model)
    trained = sum(p.numel() for p in objective.parameters() if p.requires_grad)
    kept = sum(p.numel() for p in model.parameters())
    _say(
        f"{recipe.name}: {kept / 1e6:.2f}M parameters in the encoder, {trained / 1e6:.2f}M trained, "
        f"{recipe.steps} steps, {recipe.images:,} images"
    )
    if dry_run:
        return
    try:
        folder = fit(recipe, objective, tokenizer, out, resume)
    except Stopped as stopped:
        _say(str(stopped))
        return
    _say(f"the encoder is in {folder}: python app.py --model {folder}")


def _say(text: str) -> None:
    """One process speaks for all."""
    if rank() == 0:
        print(text, file=sys.stderr)


def _captions(count: int):
    for i in range(count):
        yield from scenes.draw(TOKENIZER_SEED + i, 14).captions.values()
