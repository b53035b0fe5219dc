"""Code that repeats what a tab shows: Python source and shell lines out of values, each safely quoted. No gradio here.

"\\n".join([OPENING, load(info), "maps = " + call("heatmap", "encoder", "IMAGE", queries=["a dog"])])
command("heatmap", IMAGE, "a dog", mode="cosine", model=model_name(info))
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from demos.backend.offer import shown_name

if TYPE_CHECKING:
    from tipsv2.checkpoints.catalogue import ModelInfo

IMAGE = "image.png"  # what the visitor's picture is called in the code
WIDTH = 88  # letters of a line before a call is broken into lines


def literal(value) -> str:
    """A string, number, bool, None, or a list, tuple or dict of them -> Python source, with double quotes."""
    if isinstance(value, str):
        return json.dumps(value.encode("utf-8", "replace").decode(), ensure_ascii=False)
    if isinstance(value, list | tuple):
        inner = ", ".join(map(literal, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' if len(value) == 1 else ''})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{literal(key)}: {literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, float):
        return repr(int(value)) if value.is_integer() and abs(value) < 1e9 else f"{value:.6g}"
    return repr(value)


def call(function: str, *sources: str, **values) -> str:
    """A call in Python: `sources` stand as they are, `values` are keywords with literals; one line or one each."""
    parts = [*sources, *(f"{name}={literal(value)}" for name, value in values.items())]
    line = f"{function}({', '.join(parts)})"
    if len(line) <= WIDTH:
        return line
    return f"{function}(\n" + "".join(f"    {part},\n" for part in parts) + ")"


def command(name: str, *given: str, **options) -> str:
    """A line for the shell: python -m tipsv2 NAME, the arguments, --options; those that are None are left out, and of
    one that is True there is only its name.
    """
    flags = []
    for option, value in options.items():
        if value is True:
            flags.append(f"--{option.replace('_', '-')}")
        elif value is not None:
            text = f"{value:.6g}" if isinstance(value, float) else str(value)
            flag = f"--{option.replace('_', '-')}"
            flags += [f"{flag}={text}"] if text.startswith("-") else [flag, text]
    words = [*flags, "--", *given] if any(text.startswith("-") for text in given) else [*given, *flags]
    return shlex.join(["python", "-m", "tipsv2", name, *words])


def model_name(info: ModelInfo) -> str:
    """How to call for an encoder: its name, or for one out of a folder the path below the working directory. Elsewhere
    a name stands for the folder, whose place is not for visitors: such a line does not run as it is.
    """
    if info.source == "hub":
        return info.location
    if info.source == "bundled":
        return info.name
    path = Path(info.location).resolve()
    if not _away(info):
        return str(path.relative_to(Path.cwd()))
    return path.name if info.source == "folder" else shown_name(info)  # all runs have their encoder in "model"


def load(info: ModelInfo, variable: str = "encoder", function: str = "load") -> str:
    """The line that loads the encoder; before it, where its name stands for a folder, one that says so."""
    name = literal(model_name(info))
    remark = f"# {name} stands for the folder of this encoder, in the command too\n" if _away(info) else ""
    return f"{remark}{variable} = {function}({name})"


def _away(info: ModelInfo) -> bool:
    return info.source not in ("bundled", "hub") and not Path(info.location).resolve().is_relative_to(Path.cwd())
