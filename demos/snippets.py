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

if TYPE_CHECKING:
    from tipsv2.catalogue import ModelInfo

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
        return "{" + ", ".join(f"{literal(key)}: {literal(each)}" for key, each in value.items()) + "}"
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
    """A line for the shell: python -m tipsv2 NAME, the arguments, --options; those that are None are left out."""
    flags = []
    for option, value in options.items():
        if value is not None:
            text = f"{value:.6g}" if isinstance(value, float) else str(value)
            flag = f"--{option.replace('_', '-')}"
            flags += [f"{flag}={text}"] if text.startswith("-") else [flag, text]
    words = [*flags, "--", *given] if any(text.startswith("-") for text in given) else [*given, *flags]
    return shlex.join(["python", "-m", "tipsv2", name, *words])


def model_name(info: ModelInfo) -> str:
    """How to call for an encoder: its name, or for one out of a folder the path, relative where that is possible."""
    if info.source in ("bundled", "hub"):
        return info.location if info.source == "hub" else info.name
    path = Path(info.location)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name


def load(info: ModelInfo) -> str:
    """The line that loads the encoder."""
    return f"encoder = load({literal(model_name(info))})"
