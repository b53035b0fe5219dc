"""What the flags of app.py say, for every tab: `page.settings`. Light: no gradio, no torch.

A Space gives no flags; its variable TIPSV2_ARGS is read as if typed: "--memory 6GB --model google/tipsv2-l14".
"""

from __future__ import annotations

import os
import re
from argparse import ArgumentTypeError
from dataclasses import dataclass
from pathlib import Path

ARGUMENTS = "TIPSV2_ARGS"
UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}


def on_space() -> bool:
    """Does the app run as a Hugging Face Space, where anybody may visit it?"""
    return bool(os.environ.get("SPACE_ID"))


@dataclass(frozen=True)
class Settings:
    """runs: folder of training runs, whose finished ones are offered as encoders (it need not exist).
    training: may visitors start runs?   memory: bytes for loaded encoders, None for a share of what is free.
    public: a Space or a shared link, through which everybody seems to sit at this machine; no path that somebody types
        is read there.
    """

    runs: Path | None = None
    training: bool = True
    memory: int | None = None
    public: bool = False


def num_bytes(text: str) -> int:
    """ "6GB", "800 MB", "1.5e9" -> bytes; units are powers of 1000. Raises ArgumentTypeError."""
    found = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([kmgt]?)i?b?\s*", text.lower())
    try:
        amount = int(float(found[1]) * UNITS[found[2]]) if found else 0
    except (ValueError, OverflowError):
        amount = 0
    if amount <= 0:
        raise ArgumentTypeError(f"'{text}' is no amount of memory: write something like 6GB or 800MB.")
    return amount
