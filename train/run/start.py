"""From a recipe to a finished run, or a chain of them: tokenizer, towers (new, or a base's), objective, the loop.

python -m train distill --recipe nano-distill --teacher opentips-nano --out runs/chain distillation.generations=3
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import PartialState
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Tipsv2Model

import tipsv2
from tipsv2 import scenes
from tipsv2.checkpoints.weights import digest_of
from train.data.samples import open_data
from train.network.inherited_words import inherit
from train.network.teachers import Teachers, open_teachers
from train.network.tokenizer import train_tokenizer
from train.network.towers import build
from train.network.tuning import open_base
from train.objectives import Objective
from train.parallel.distributed import in_any, rank, world
from train.parallel.signals import SignalWatch, Stopped
from train.recipe.bounds import check
from train.recipe.kept_settings import is_kept
from train.recipe.settings import PATCH, Data, Recipe
from train.run.loop import fit
from train.run.resume import claim_folder, command_line

TOKENIZER_PAIRS = 20_000  # the captions of at most so many train the tokenizer
TOKENIZER_SEED = 9 * 10**11


def start(recipe: Recipe, out: Path, resume: bool = False, show: bool = True) -> int:
    """Train `recipe` into `out`; with `show`, say how it goes. Returns 0, or the number of the signal that stopped it.

    Raises ValueError for anything a user can mend.
    """
    check(recipe)
    if recipe.distillation.generations > 1:
        return _chain(recipe, out, resume, show)
    return _train(recipe, out, out, resume, show)


def _train(recipe: Recipe, folder: Path, out: Path, resume: bool, show: bool) -> int:
    """One run in `folder`, which --out names or which is a part of that; returns as `start`."""
    parts = prepare(recipe, folder, resume)
    say(size_of(parts), show)
    try:
        model = fit(parts.recipe, parts.objective, parts.tokenizer, folder, resume, show)
    except Stopped as stopped:
        say(f"{stopped}; go on with: {command_line(recipe.command, out)}", show)
        return stopped.number
    say(f"the encoder is in {model}: python app.py --model {model}", show)
    return 0


def _chain(recipe: Recipe, out: Path, resume: bool, show: bool) -> int:
    """Students in a row, each with the one before as its teacher: out/generation-1, out/generation-2, ...

    Each is the ordinary run of its teacher, with the same seed. One that has its model is not trained again.
    Returns as `start`. Raises ValueError where `out` holds something else, or another recipe made a generation.
    """
    if out.is_dir() and (strange := [path.name for path in out.iterdir() if not path.name.startswith("generation-")]):
        raise ValueError(f"{out} holds {strange[0]}, which is no generation of a chain; choose another --out.")
    if "WORLD_SIZE" in os.environ:  # accelerate would part the processes after the first generation, for good
        os.environ["FORK_LAUNCHED"] = "1"
    count, teacher = recipe.distillation.generations, recipe.distillation.teacher
    with SignalWatch() as watch:
        for number in range(1, count + 1):
            folder = out / f"generation-{number}"
            student = replace(recipe, distillation=replace(recipe.distillation, teacher=teacher))
            if (folder / "model").is_dir():
                claim_folder(student, folder, resume)
                say(f"generation {number} of {count} is done", show)
            else:
                say(f"generation {number} of {count}, taught by {teacher}", show)
                if stopped := _train(student, folder, out, resume, show):
                    return stopped
                stopped = watch.number()
                device = PartialState().device if world() > 1 else None
                if in_any(stopped > 0, device) and number < count:
                    goes_on = command_line(recipe.command, out)
                    say(f"stopped after generation {number}; go on with: {goes_on}", show)
                    return stopped or signal.SIGTERM
            teacher = str(folder / "model")
    if world() > 1:
        torch.distributed.destroy_process_group()
    return 0


@dataclass(frozen=True)
class Parts:
    """The resolved recipe, the objective with its model, the tokenizer, and the frozen teachers."""

    recipe: Recipe
    objective: Objective
    tokenizer: PreTrainedTokenizerBase
    teacher: Tipsv2Model | None
    unimodal: Teachers


def prepare(recipe: Recipe, out: Path | None, resume: bool = False, empty: bool = False) -> Parts:
    """Open or make everything a run needs; with `empty`, what is new has shapes and no values (torch's meta device)."""
    if is_kept(recipe.data.source):
        from train.run.kept import prepare_kept

        return Parts(*prepare_kept(recipe, empty), None, Teachers())
    torch.manual_seed(recipe.seed)
    model = teacher = None
    unimodal = open_teachers(recipe.sfclip)
    digests = {f"{kind}_digest": digest_of(one.model) for kind, one in vars(unimodal).items() if one}
    recipe = replace(recipe, sfclip=replace(recipe.sfclip, **digests))
    if recipe.tuning.base:
        recipe, model, tokenizer = open_base(recipe)
    elif recipe.distillation.weight:
        guide = tipsv2.load(recipe.distillation.teacher, "cpu", "float32", fast=False)  # its weights may be copied
        recipe = replace(recipe, distillation=replace(recipe.distillation, digest=guide.digest))
        teacher, tokenizer = guide.model.to("meta") if empty else guide.model, guide.tokenizer
        vocabulary = teacher.config.text_config.vocab_size
    elif recipe.sfclip.words == "teacher":
        tokenizer, vocabulary = unimodal.text.tokenizer, len(unimodal.text.matrix)
    else:
        vocabulary = recipe.tower.vocabulary
        if resume and (out / "tokenizer" / "tokenizer.json").exists():
            tokenizer = AutoTokenizer.from_pretrained(out / "tokenizer")
        else:
            tokenizer = train_tokenizer(_captions(recipe.data, 40 if empty else TOKENIZER_PAIRS), vocabulary)
    if unimodal.vision:  # a later stage's size must not come as a surprise after hours
        for side, looks in dict.fromkeys((stage.size, stage.teacher_size) for stage in recipe.stages):
            unimodal.vision.look(torch.zeros(1, 3, side, side), side // PATCH, looks)
    with torch.device("meta") if empty else nullcontext():
        model = model or build(recipe, vocabulary)
    if recipe.sfclip.words != "own":
        inherit(model, recipe, tokenizer, unimodal.text)
    with torch.device("meta") if empty else nullcontext():
        objective = Objective(recipe, model, teacher, unimodal)
    return Parts(recipe, objective, tokenizer, teacher, unimodal)


def size_of(parts: Parts) -> str:
    """How much there is to learn, in how many steps."""
    recipe, objective = parts.recipe, parts.objective
    trained = sum(p.numel() for p in objective.parameters() if p.requires_grad)
    kept = sum(p.numel() for name, p in objective.model.named_parameters() if ".lora_" not in name)
    return (
        f"{recipe.name}: {kept / 1e6:.2f}M parameters in the encoder, {trained / 1e6:.2f}M trained, "
        f"{recipe.steps} steps, {recipe.images:,} images"
    )


def say(text: str, show: bool = True) -> None:
    """One process speaks for all."""
    if show and rank() == 0:
        with suppress(OSError):  # the terminal that a run was stopped by closing
            print(text, file=sys.stderr, flush=True)


def _captions(data: Data, count: int) -> Iterator[str]:
    if data.source != "scenes":
        yield from open_data(data).texts(count)
        return
    among = scenes.some_nouns(data.nouns)
    for i in range(count):
        yield from scenes.draw(TOKENIZER_SEED + i, 14, among=among).captions.values()
