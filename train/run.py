"""From a recipe to a finished run: tokenizer, towers (new, or a base's), objective, then the loop."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import AutoTokenizer

import tipsv2
from tipsv2 import scenes
from train.data.samples import open_data
from train.distributed import rank
from train.loop import Stopped, fit
from train.objectives import Objective
from train.objectives.towers import build
from train.settings import Data, Recipe, to_dict
from train.teachers import open_teachers
from train.tokenizer import train_tokenizer
from train.tuning import open_base
from train.words import inherit

TOKENIZER_PAIRS = 20_000  # the captions of at most so many train the tokenizer
TOKENIZER_SEED = 9 * 10**11


def start(recipe: Recipe, out: Path, resume: bool = False, dry_run: bool = False, show: bool = True) -> None:
    """Train `recipe` into `out`; with `show`, say how it goes. Raises ValueError for anything a user can mend."""
    torch.manual_seed(recipe.seed)
    model = teacher = None
    unimodal = open_teachers(recipe.sfclip)
    if recipe.tuning.base:
        recipe, model, tokenizer = open_base(recipe)
    elif recipe.distillation.weight:
        guide = tipsv2.load(recipe.distillation.teacher, dtype="float32")
        teacher, tokenizer = guide.model, guide.tokenizer
        vocabulary = teacher.config.text_config.vocab_size
    elif recipe.sfclip.words == "teacher":
        tokenizer, vocabulary = unimodal.text.tokenizer, len(unimodal.text.matrix)
    else:
        vocabulary = recipe.tower.vocabulary
        if resume and (out / "tokenizer").is_dir():
            tokenizer = AutoTokenizer.from_pretrained(out / "tokenizer")
        else:
            tokenizer = train_tokenizer(_captions(recipe.data, 40 if dry_run else TOKENIZER_PAIRS), vocabulary)
    model = model or build(recipe, vocabulary)
    if recipe.sfclip.words != "own":
        inherit(model, recipe, tokenizer, unimodal.text)
    objective = Objective(recipe, model, teacher, unimodal)
    trained = sum(p.numel() for p in objective.parameters() if p.requires_grad)
    kept = sum(p.numel() for name, p in model.named_parameters() if ".lora_" not in name)
    _say(
        show,
        f"{recipe.name}: {kept / 1e6:.2f}M parameters in the encoder, {trained / 1e6:.2f}M trained, "
        f"{recipe.steps} steps, {recipe.images:,} images",
    )
    if dry_run:
        print(json.dumps(to_dict(recipe), indent=2))
        return
    try:
        folder = fit(recipe, objective, tokenizer, out, resume, show)
    except Stopped as stopped:
        _say(show, str(stopped))
        return
    _say(show, f"the encoder is in {folder}: python app.py --model {folder}")


def _say(show: bool, text: str) -> None:
    """One process speaks for all."""
    if show and rank() == 0:
        print(text, file=sys.stderr)


def _captions(data: Data, count: int) -> Iterator[str]:
    if data.source != "scenes":
        yield from open_data(data).texts(count)
        return
    among = scenes.some_nouns(data.nouns)
    for i in range(count):
        yield from scenes.draw(TOKENIZER_SEED + i, 14, among=among).captions.values()
