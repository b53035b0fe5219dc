"""The bundled scenes by the name of a split: "scenes:val", "scenes:val:60"."""

from __future__ import annotations

from tipsv2 import scenes

SCENES = "scenes"


def split_of(data: str, size: int) -> scenes.Split:
    """ "scenes:val" or "scenes:val:60" -> that split; ValueError for anything that is not one of the scenes'."""
    kind, _, name = data.partition(":")
    if kind != "scenes" or not name:
        raise ValueError(f"data={data!r} is unknown; choose scenes:{' or scenes:'.join(scenes.SPLITS)}.")
    return scenes.split(name, size)


def is_scenes(data: str) -> bool:
    """Are these the bundled scenes, or do they lie in a folder?"""
    return data.partition(":")[0] == SCENES
