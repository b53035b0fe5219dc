"""The encoders that come with the project: what each is called, what it has learned from, which one answers at first.

A folder of assets/models is such an encoder; one that is not listed here is offered as well. The family is OpenTIPS, as
OpenCLIP is to CLIP: TIPSv2's architecture and recipes, none of Google's weights. Light: no torch in here.

    from tipsv2.checkpoints import bundled
    bundled.default()                      # "opentips-s14" if it is there, else "opentips-nano"
    bundled.current_name("tipsv2-nano")    # "opentips-nano", and once a line that says so
"""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from pathlib import Path

_INSTALLED = Path(__file__).resolve().with_name("models")  # where `pip install .` puts them
_CHECKOUT = Path(__file__).resolve().parents[2] / "assets" / "models"
MODELS_FOLDER = _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT  # one folder for each bundled encoder
S14, NANO = "opentips-s14", "opentips-nano"
PHOTOGRAPHS, DRAWINGS = "photographs", "drawings"  # the kinds of pictures an encoder can know


@dataclass(frozen=True)
class About:
    """What a bundled encoder's own files do not say. knows: kinds of pictures; trained_on: one sentence."""

    title: str
    knows: tuple[str, ...]
    trained_on: str


ABOUT = {  # in the order of the menus
    S14: About(
        "OpenTIPS S/14 (bundled)",
        (PHOTOGRAPHS, DRAWINGS),
        "DINOv2 ViT-S/14 and MiniLM, brought together on 1,347 photographs and on drawn scenes.",
    ),
    NANO: About(
        "OpenTIPS nano (bundled)",
        (DRAWINGS,),
        "Drawn scenes of about 300 things on nine surfaces (tipsv2.scenes); it has never seen a photograph.",
    ),
    "tips-nano": About(
        "TIPS nano, teacher (bundled)",
        (DRAWINGS,),
        "The same drawn scenes by the older recipe, TIPS: larger, iBOT on masked patches, full EMA.",
    ),
    "tips-nano-student": About(
        "TIPS nano, student (bundled)",
        (DRAWINGS,),
        "The same drawn scenes; it learned the value features of tips-nano's patches.",
    ),
}
UNLISTED = About("", (), "Unknown: see its model card.")
PAIRS = {  # the default encoder -> a teacher and its student that know the same pictures
    NANO: ("tips-nano", "tips-nano-student"),
}
OLD_NAMES = {"tipsv2-nano": NANO}


def names() -> list[str]:
    """The names of the encoders that are there, in the order of ABOUT and then of the alphabet. NANO is always among
    them, so that its absence is an error that names its folder.
    """
    there = {config.parent.name for config in MODELS_FOLDER.glob("*/config.json")} | {NANO}
    return [*(name for name in ABOUT if name in there), *sorted(there - {*ABOUT})]


def default() -> str:
    """The one that answers where no encoder was asked for."""
    return S14 if S14 in names() else NANO


def pair() -> tuple[str, str] | None:
    """The two encoders to open a comparison with; None unless both are there."""
    both = PAIRS.get(default())
    return both if both and {*both} <= {*names()} else None


def about(name: str) -> About:
    return ABOUT.get(name, UNLISTED)


def current_name(name: str) -> str:
    """A name, or the path of a folder in MODELS_FOLDER, as it is called now. Of a name that has changed one line goes
    to the log, which is stderr where nobody set up another, once per process.
    """
    path = Path(name)
    new = OLD_NAMES.get(path.name)
    if new is None or len(path.parts) > 1 and path.parent.resolve() != MODELS_FOLDER:
        return name
    _say(path.name, new)
    return str(path.with_name(new))


@functools.cache
def _say(old: str, new: str) -> None:
    logging.getLogger(__name__).warning("%s is called %s now: the old name still works.", old, new)
