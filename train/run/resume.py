"""What a run's folder says it was: the recipe that --resume goes on with, and whether another may go on there.

recipe = recorded(Path("runs/stop"), "finetune", ["workers=4"])  # nothing else need be given again
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tipsv2.checkpoints.bundled import OLD_NAMES
from tipsv2.files import whole_file
from train.recipe.overrides import override, paths
from train.recipe.settings import Recipe, as_given, from_dict, leaves, to_dict
from train.run import further
from train.run.hold import LOCK, held

# steps do not depend on them
KEEPING = ("trackers", "workers", "save_every", "save_minutes", "milestones", "sample_every", "patience")
KEEPING += ("distillation.generations",)


def recorded(out: Path, command: str, given: Sequence[str], name: str = "") -> Recipe:
    """The recipe of the run, or chain of runs, in `out`, as it was given, with the `key=value` that are given again.

    name: of the recipe, if that is given again. Raises ValueError where there is no run, it is another command's, its
    record cannot be read, or what is given differs from it in more than KEEPING.
    """
    record = next((path for path in (out / "recipe.json", _first(out)) if path.is_file()), None)
    if record is None:
        raise ValueError(
            f"{out} holds no run to go on with: name the run's folder, or leave --resume out to start one."
        )
    before = _read(record)
    if before.command != command:
        raise ValueError(f"{out} is a run of another command; go on with: {command_line(before.command, out)}")
    chain = record == _first(out)
    if not chain:  # one student of a chain is an ordinary run
        before = replace(before, distillation=replace(before.distillation, generations=1))
    now = replace(override(before, given), name=name or before.name)
    if before.tuning.base:  # 0 asks for the base's own, which the record holds
        same = {"size", "learning_rate"}
        pairs = zip(now.stages, before.stages, strict=True)
        stages = (replace(new, **{k: getattr(new, k) or getattr(old, k) for k in same}) for new, old in pairs)
        now = replace(now, stages=tuple(stages))
    _refuse_others(out, before, now)
    if chain and now.distillation.generations == 1:
        raise ValueError(f"{out} holds a chain: say how many students it has, such as distillation.generations=3.")
    return as_given(now)


def claim_folder(recipe: Recipe, run: Path, resume: bool) -> None:
    """Make the run's folder, or see that this recipe may go on in it. Raises ValueError where it may not."""
    record = run / "recipe.json"
    if not record.exists():
        _refuse_strangers(run)
        run.mkdir(parents=True, exist_ok=True)
        with whole_file(record) as part:
            part.write_text(json.dumps(to_dict(recipe), indent=2) + "\n")
        return
    if not resume:
        raise ValueError(f"{run} already holds a run; add --resume to go on with it, or choose another --out.")
    _refuse_others(run, _read(record), recipe)


@contextmanager
def claimed(recipe: Recipe, run: Path, resume: bool) -> Iterator[None]:
    """As `claim_folder`, and no other process writes into the folder while the context lasts. Raises ValueError."""
    if not (run / "recipe.json").exists():
        _refuse_strangers(run)  # before a lock is left there
    with held(run):
        claim_folder(recipe, run, resume)
        yield


def command_line(command: str, out: Path) -> str:
    """What goes on with the run in `out`, to be typed as it is; for several processes, the one machine's launcher."""
    processes = os.environ.get("LOCAL_WORLD_SIZE")  # torchrun's
    program = f"torchrun --nproc-per-node {processes}" if processes else "python"
    return f"{program} -m train {command} --out {shlex.quote(str(out))} --resume"


def _refuse_strangers(run: Path) -> None:
    """Raises ValueError where a folder without a record holds anything but the explorer's notes and a lock."""
    if run.exists() and any(entry.name not in ("app", LOCK) for entry in run.iterdir()):
        raise ValueError(f"{run} is not empty and holds no run; choose another --out.")


def _first(out: Path) -> Path:
    """The record of a chain's first student, whose teacher is the chain's."""
    return out / "generation-1" / "recipe.json"


def _read(record: Path) -> Recipe:
    """The recipe in a run's record; fields that are newer than the run have their defaults."""
    try:
        values = json.loads(record.read_text())
        known = {path.replace("stages.*", f"stages.{k}") for path in paths() for k in range(len(values["stages"]))}
        gone = [leaf for leaf in leaves(values) if leaf not in known]
        recipe = None if gone else from_dict(values)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{record} is damaged, so what this run was is not known: put it back, or choose another --out."
        ) from error
    if gone:
        raise ValueError(
            f"{record} is of another version and holds {', '.join(gone)}, unknown to this one: go on with that "
            "version, or choose another --out."
        )
    return recipe


def _refuse_others(run: Path, before: Recipe, now: Recipe) -> None:
    """Raises ValueError with every field, nested ones with dots, that is not what it was, and both its values."""
    old, new = (
        {key: OLD_NAMES.get(value, value) for key, value in leaves(to_dict(recipe)).items()} for recipe in (before, now)
    )
    changed = [
        key
        for key in {**old, **new}
        if old.get(key) != new.get(key)
        and key not in KEEPING
        # of teachers that were not opened, or by a run older than digests
        and not (key.endswith("digest") and not key.startswith("tuning.") and "" in (old[key], new[key]))
    ]
    if changed:
        listed = "; ".join(f"{key}: {_as_text(old, key)} in {run}, {_as_text(new, key)} given" for key in changed)
        remedy = "Leave out what differs"
        if any(key.endswith("digest") for key in changed):  # nobody gives a digest
            remedy = "Put the weights back that it began with"
        more = ""
        if (run / "model" / "config.json").is_file() and all(not key.endswith("digest") for key in changed):
            more = (
                " It is finished, and its learning rate came down over just its steps, so a longer training or another "
                "batch is a run of its own, from its encoder on: "
                + further.command(run, before, {key: new[key] for key in changed if key in new})
            )
        raise ValueError(f"{run} was made by another recipe: {listed}. {remedy}, or choose another --out.{more}")


def _as_text(leaves: dict, key: str) -> str:
    value = leaves.get(key)
    return "nothing" if value in (None, "") else str(value)
