"""The command that trains a finished run's encoder on, with more steps, another batch or anything else.

A run's learning rate comes down over the steps it was given, to almost nothing, so that more steps at its end would not
be those of a longer run. What goes on is another run: its base is the encoder, its schedule is its own.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from train.recipe import recipes
from train.recipe.kept_settings import is_kept
from train.recipe.settings import Recipe, Tower, as_given, leaves, to_dict

ON_KEPT = {
    "data.source": "kept",
    "sfclip.text_teacher": "text-teacher",
    "kept.names": "names",
    "kept.exclude": "exclude",
}


def command(run: Path, before: Recipe, changed: Mapping[str, object]) -> str:
    """To be typed as it is. before: the finished run's recipe.   changed: field -> the value that is wanted now.

    A run of `finetune` or on kept crops goes on with all its own fields, any other one as `finetune` on the same data.
    """
    now = leaves(to_dict(as_given(before))) | {k: v for k, v in changed.items() if not k.endswith("digest")}
    usual = leaves(to_dict(recipes.get(before.name if before.name in recipes.RECIPES else "finetune")))
    fields = {k: v for k, v in now.items() if v != usual.get(k)}
    on_kept = is_kept(before.data.source)
    if before.command == "finetune" or on_kept:
        name = before.name
        if on_kept and (run / "bridge.safetensors").is_file():
            fields["kept.bridge"] = run / "bridge.safetensors"
    else:
        name = "finetune"
        fields = {k: v for k, v in fields.items() if k.startswith("data.")}
        fields |= {f"stages.*.{k.split('.')[2]}": v for k, v in changed.items() if k.startswith("stages.")}
    about = ("name", "command", "tuning.base", *(f"tower.{k}" for k in vars(Tower())))
    fields = {k: v for k, v in fields.items() if k not in about}
    kind = recipes.get(name).command
    words = ["python", "-m", "train", kind]
    words += ["--recipe", name] if name != "finetune" else []
    words += ["--base", str(run / "model")]
    flags = ON_KEPT if kind == "sfclip" else {"data.source": "data"}
    for field, flag in flags.items():
        if field in fields:
            words += [f"--{flag}", str(fields.pop(field)).removeprefix("kept:")]
    words += ["--out", f"{run}-more", *(f"{field}={value}" for field, value in fields.items())]
    return shlex.join(words)
