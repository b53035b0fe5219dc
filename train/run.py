"""From a recipe to a finished run: tokenizer, towers (new, or a base's), objective, then the loop."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Tipsv2Model

import tipsv2
from tipsv2 import scenes
from train import cost
from train.cost import in_units
from train.data.batches import Batches
from train.data.samples import open_data
from train.distributed import rank
from train.loop import Stopped, _precision, fit
from train.objectives import Objective
from train.objectives.towers import build
from train.settings import Data, Recipe, to_dict
from train.teachers import Teachers, open_teachers
from train.tokenizer import train_tokenizer
from train.tuning import open_base
from train.words import inherit

TOKENIZER_PAIRS = 20_000  # the captions of at most so many train the tokenizer
TOKENIZER_SEED = 9 * 10**11


def start(recipe: Recipe, out: Path, resume: bool = False, dry_run: bool = False, show: bool = True) -> None:
    """Train `recipe` into `out`; with `show`, say how it goes. Raises ValueError for anything a user can mend.

    `dry_run` prints the resolved recipe (JSON, stdout) and what it will cost (stderr), and leaves nothing behind.
    """
    if dry_run:
        _dry_run(recipe, out, resume, show)
        return
    parts = prepare(recipe, out, resume)
    _say(show, _size(parts))
    try:
        folder = fit(parts.recipe, parts.objective, parts.tokenizer, out, resume, show)
    except Stopped as stopped:
        _say(show, str(stopped))
        return
    _say(show, f"the encoder is in {folder}: python app.py --model {folder}")


@dataclass(frozen=True)
class Parts:
    """The resolved recipe, the objective with its model, the tokenizer, and the frozen teachers."""

    recipe: Recipe
    objective: Objective
    tokenizer: PreTrainedTokenizerBase
    teacher: Tipsv2Model | None
    unimodal: Teachers


def prepare(recipe: Recipe, out: Path, resume: bool = False, empty: bool = False) -> Parts:
    """Open or make everything a run needs; with `empty`, what is new has shapes and no values (torch's meta device)."""
    torch.manual_seed(recipe.seed)
    model = teacher = None
    unimodal = open_teachers(recipe.sfclip)
    if recipe.tuning.base:
        recipe, model, tokenizer = open_base(recipe)
    elif recipe.distillation.weight:
        guide = tipsv2.load(recipe.distillation.teacher, dtype="float32")
        teacher, tokenizer = guide.model.to("meta") if empty else guide.model, guide.tokenizer
        vocabulary = teacher.config.text_config.vocab_size
    elif recipe.sfclip.words == "teacher":
        tokenizer, vocabulary = unimodal.text.tokenizer, len(unimodal.text.matrix)
    else:
        vocabulary = recipe.tower.vocabulary
        if resume and (out / "tokenizer").is_dir():
            tokenizer = AutoTokenizer.from_pretrained(out / "tokenizer")
        else:
            tokenizer = train_tokenizer(_captions(recipe.data, 40 if empty else TOKENIZER_PAIRS), vocabulary)
    with torch.device("meta") if empty else nullcontext():
        model = model or build(recipe, vocabulary)
    if recipe.sfclip.words != "own":
        inherit(model, recipe, tokenizer, unimodal.text)
    with torch.device("meta") if empty else nullcontext():
        objective = Objective(recipe, model, teacher, unimodal)
    return Parts(recipe, objective, tokenizer, teacher, unimodal)


def _size(parts: Parts) -> str:
    recipe, objective = parts.recipe, parts.objective
    trained = sum(p.numel() for p in objective.parameters() if p.requires_grad)
    kept = sum(p.numel() for name, p in objective.model.named_parameters() if ".lora_" not in name)
    return (
        f"{recipe.name}: {kept / 1e6:.2f}M parameters in the encoder, {trained / 1e6:.2f}M trained, "
        f"{recipe.steps} steps, {recipe.images:,} images"
    )


def _dry_run(recipe: Recipe, out: Path, resume: bool, show: bool) -> None:
    """Print the recipe as it would be recorded; say its size, epochs, memory and arithmetic, and what is wrong with it.

    The processes have not met yet: how many there are is what the launcher says.
    """
    parts, processes = prepare(recipe, out, resume, empty=True), int(os.environ.get("WORLD_SIZE", 1))
    recipe = parts.recipe
    batches = Batches(recipe, parts.tokenizer, rank(), processes)
    if rank() == 0:
        print(json.dumps(to_dict(recipe), indent=2))
    _say(show, _size(parts))
    _say(show, _epochs(recipe, batches))
    unimodal = [teacher.model for teacher in (parts.unimodal.vision, parts.unimodal.text) if teacher]
    frozen = unimodal + ([parts.teacher] if parts.teacher else [])
    precision = "fp32" if _precision(recipe.precision) == "no" else _precision(recipe.precision)
    need = cost.memory(replace(recipe, precision=precision), parts.objective, processes, frozen)
    at, each = recipe.stages[need.stage], f" a process, of {processes}" if processes > 1 else ""
    teachers = f"teachers {in_units(need.teachers, 'B')}, " if need.teachers else ""
    _say(
        show,
        f"memory: about {in_units(need.total, 'B')}{each}: weights, gradients and moments {in_units(need.state, 'B')}, "
        f"{teachers}activations {in_units(need.activations, 'B')} in {precision} "
        f"(stage {need.stage}: {at.batch_size // processes} images of {at.size} px)",
    )
    towers = cost.towers(parts.objective.model)
    steps = [
        stage.batch_size
        / processes
        * (cost.operations(recipe, stage, *towers) + cost.teaching(recipe, stage, parts.teacher, parts.unimodal))
        for stage in recipe.stages
    ]
    total = sum(work * stage.steps for work, stage in zip(steps, recipe.stages, strict=True))
    by_stage = ", ".join(f"{in_units(work, 'FLOP')} (stage {k})" for k, work in enumerate(steps))
    _say(show, f"arithmetic of a step{each}: {by_stage}; {in_units(total, 'FLOP')} in all")


def _epochs(recipe: Recipe, batches: Batches) -> str:
    """How often the data is gone through, where its size is known."""
    if batches.drawn:
        return "data: scenes, every one drawn anew, so there are no epochs"
    name = batches.source.pairs.name
    if batches.source.size == math.inf:
        return f"data: {name}, read as a stream: how many epochs that is only reading it would tell"
    return f"data: {name}, {batches.source.size:,} pairs, {recipe.images / batches.source.size:.1f} epochs"


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
