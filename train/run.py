"""From a recipe to a finished run, or a chain of them: tokenizer, towers (new, or a base's), objective, the loop.

python -m train distill --recipe nano-distill --teacher tipsv2-nano --out runs/chain distillation.generations=3
"""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import PartialState
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Tipsv2Model

import tipsv2
from tipsv2 import scenes
from tipsv2.weights import digest_of
from train import cost
from train.bounds import check
from train.cost import in_units
from train.data.batches import Batches
from train.data.samples import open_data
from train.distributed import rank, total, world
from train.loop import Stopped, chosen_precision, claim_folder, fit
from train.objectives import Objective
from train.objectives.towers import build
from train.settings import PATCH, Data, Recipe, to_dict
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
    check(recipe)
    count = recipe.distillation.generations
    if count < 1 or (count > 1 and not recipe.distillation.weight):
        raise ValueError(
            f"distillation.generations={count}: a whole number from 1, and above 1 only where a student has a teacher "
            "(distillation.weight, as in python -m train distill)."
        )
    if resume and not any(path.is_file() for path in (out / "recipe.json", out / "generation-1" / "recipe.json")):
        raise ValueError(
            f"{out} holds no run to go on with: name the run's folder, or leave --resume out to start one."
        )
    if dry_run:
        _dry_run(recipe, out, resume, show)
    elif count == 1:
        _train(recipe, out, resume, show)
    else:
        _chain(recipe, out, resume, show)


def _train(recipe: Recipe, out: Path, resume: bool, show: bool) -> bool:
    """One run; whether it came to its end."""
    parts = prepare(recipe, out, resume)
    _say(show, _size(parts))
    try:
        folder = fit(parts.recipe, parts.objective, parts.tokenizer, out, resume, show)
    except Stopped as stopped:
        _say(show, str(stopped))
        return False
    _say(show, f"the encoder is in {folder}: python app.py --model {folder}")
    return True


def _chain(recipe: Recipe, out: Path, resume: bool, show: bool) -> None:
    """Students in a row, each with the one before as its teacher: out/generation-1, out/generation-2, ...

    Each is the ordinary run of its teacher, with the same seed. One that has its model is not trained again.
    Raises ValueError where `out` holds something else, or a generation was made by another recipe.
    """
    if out.is_dir() and (strange := [path.name for path in out.iterdir() if not path.name.startswith("generation-")]):
        raise ValueError(f"{out} holds {strange[0]}, which is no generation of a chain; choose another --out.")
    if "WORLD_SIZE" in os.environ:  # accelerate would part the processes after the first generation, for good
        os.environ["FORK_LAUNCHED"] = "1"
    count, teacher = recipe.distillation.generations, recipe.distillation.teacher
    with _Heard() as heard:
        for number in range(1, count + 1):
            folder = out / f"generation-{number}"
            student = replace(recipe, distillation=replace(recipe.distillation, teacher=teacher, generations=1))
            if (folder / "model").is_dir():
                claim_folder(student, folder, resume)
                _say(show, f"generation {number} of {count} is done")
            else:
                _say(show, f"generation {number} of {count}, taught by {teacher}")
                if not _train(student, folder, resume, show):
                    return
                if _any(heard.asked()) and number < count:
                    _say(show, f"stopped after generation {number}; go on with --resume.")
                    return
            teacher = str(folder / "model")
    if world() > 1:
        torch.distributed.destroy_process_group()


def _any(here: bool) -> bool:
    """Whether it is so in any process. Waits for all of them, so that all find what the first one wrote."""
    device = PartialState().device if world() > 1 else None
    return bool(total(torch.tensor(float(here), device=device)))


class _Heard:
    """Whether Ctrl-C or SIGTERM came, even if a generation in its last step took it and had nothing left to stop."""

    def __enter__(self) -> _Heard:
        self._ends = socket.socketpair()
        for end in self._ends:
            end.setblocking(False)
        self._before = signal.set_wakeup_fd(self._ends[1].fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *_) -> None:
        signal.set_wakeup_fd(self._before)
        for end in self._ends:
            end.close()

    def asked(self) -> bool:
        try:
            numbers = self._ends[0].recv(1 << 16)  # a byte a signal
        except BlockingIOError:
            return False
        return signal.SIGINT in numbers or signal.SIGTERM in numbers


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
    digests = {f"{kind}_digest": digest_of(found.model) for kind, found in vars(unimodal).items() if found}
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
    precision = "fp32" if chosen_precision(recipe.precision) == "no" else chosen_precision(recipe.precision)
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
    whole = sum(work * stage.steps for work, stage in zip(steps, recipe.stages, strict=True))
    by_stage = ", ".join(f"{in_units(work, 'FLOP')} (stage {k})" for k, work in enumerate(steps))
    _say(show, f"arithmetic of a step{each}: {by_stage}; {in_units(whole, 'FLOP')} in all")
    if (count := recipe.distillation.generations) > 1:
        _say(show, f"all that for each of {count} generations, the first one's teacher apart")


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
