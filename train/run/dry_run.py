"""What a run would be, before it is one: its recipe, size, epochs, memory and arithmetic, and what is wrong with it.

python -m train finetune --base opentips-nano --data photos --dry-run
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

from train.data.batches import open_batches
from train.parallel.distributed import rank
from train.recipe.bounds import check
from train.recipe.kept_settings import is_kept
from train.recipe.settings import Recipe, to_dict
from train.run import cost
from train.run.cost import in_units
from train.run.start import prepare, say, size_of
from train.run.step import chosen_precision

WIDTH = 110  # characters of a line


def report(recipe: Recipe, out: Path | None = None, resume: bool = False) -> None:
    """Print the recipe as it would be recorded (JSON, stdout), then what it takes (stderr); nothing is left behind.

    out: the run that `resume` goes on with. The processes have not met: how many there are is what the launcher says.
    Raises ValueError as training would; where it is the data that do not fit, after all else is said.
    """
    check(recipe)
    parts, processes = prepare(recipe, out, resume, empty=True), int(os.environ.get("WORLD_SIZE", 1))
    recipe, wrong = parts.recipe, None
    try:
        extent = open_batches(recipe, parts.tokenizer, rank(), processes).extent()
    except ValueError as error:
        wrong, extent = error, ""
    if rank() == 0:
        print(shown(recipe), flush=True)
    say(f"\n{size_of(parts)}")
    if extent:
        say(extent)
    unimodal = [teacher.model for teacher in (parts.unimodal.vision, parts.unimodal.text) if teacher]
    frozen = unimodal + ([parts.teacher] if parts.teacher else [])
    precision = "fp32" if chosen_precision(recipe.precision) == "no" else chosen_precision(recipe.precision)
    need = cost.memory(replace(recipe, precision=precision), parts.objective, processes, frozen)
    at, per = recipe.stages[need.stage], f" a process, of {processes}" if processes > 1 else ""
    teachers = f"teachers {in_units(need.teachers, 'B')}, " if need.teachers else ""
    say(
        f"memory: about {in_units(need.total, 'B')}{per}: weights, gradients and moments {in_units(need.state, 'B')}, "
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
    say(f"arithmetic of a step{per}: {by_stage}; {in_units(whole, 'FLOP')} in all")
    if (count := recipe.distillation.generations) > 1:
        say(f"all that for each of {count} generations, the first one's teacher apart")
    if wrong:
        raise wrong


def shown(recipe: Recipe) -> str:
    """The recipe as JSON in few lines; of a term that has no weight only that is said."""
    fields = to_dict(recipe)
    for term in recipe.all_terms():
        if term.idle:
            fields[term.name] = {field: getattr(term, field) for field in (*term.WEIGHTS, *term.SWITCHES)}
    if not is_kept(recipe.data.source):
        fields.pop("kept")
    parts = []
    for name, value in fields.items():
        if name == "stages":
            value = "[\n" + ",\n".join(f"    {_group(stage, 6)}" for stage in value) + "\n  ]"
        else:
            value = _group(value, 4) if isinstance(value, dict) else json.dumps(value)
        parts.append(f'  "{name}": {value}')
    return "{\n" + ",\n".join(parts) + "\n}"


def _group(values: dict, indent: int) -> str:
    """One JSON object in lines of WIDTH characters, all but the first indented."""
    lines = [""]
    for name, value in values.items():
        item = f"{json.dumps(name)}: {json.dumps(value)}"
        if len(lines[-1]) + len(item) + indent > WIDTH:
            lines.append("")
        lines[-1] += f"{item}, "
    return "{" + f"\n{' ' * indent}".join(line.rstrip() for line in lines).removesuffix(",") + "}"
