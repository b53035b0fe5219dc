"""Captions written from a label map: "a photo of a dog, grass and a person"."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LEAST = 0.005  # part of the picture that a class covers to be named, unless none does
MOST = 8  # classes in a caption
# What English counts by no "a": the mass nouns among the names of COCO, ADE20K, Cityscapes and CamVid.
MASS = frozenset(
    "apparel bedclothes broccoli cardboard cloth clothing dirt earth food fruit furniture grass gravel ground ice land "
    "metal moss mud paper pavement plastic rock sand sea sky snow soil stone straw terrain underbrush vegetation water "
    "wood".split()
)


def caption(labels: np.ndarray, names: Sequence[str]) -> str:
    """What a label map [H, W] (-1 unlabelled) shows, the largest first; empty where nothing is labelled."""
    counts = np.bincount(labels.ravel() + 1, minlength=len(names) + 1)[1:]
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    large = [k for k in order if counts[k] >= LEAST * labels.size]
    parts = [with_article(names[k]) for k in (large or order[:1])[:MOST]]
    if not parts:
        return ""
    return "a photo of " + (", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else parts[0])


def with_article(name: str) -> str:
    """ "dog" -> "a dog", "apple" -> "an apple"; mass nouns, plurals and names that bring their own stay as they are."""
    words = name.lower().split()
    last = words[-1]
    plural = last.endswith("s") and not last.endswith(("ss", "us"))
    if last in MASS or plural or words[0] in ("a", "an", "the"):
        return name
    return f"{'an' if words[0][0] in 'aeiou' else 'a'} {name}"
