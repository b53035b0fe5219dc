"""Masks as run lengths, in COCO's two forms: a list of counts, and the string the COCO files hold.

The mask is read column by column; counts alternate between zeros and ones and begin with zeros. The string writes each
count in base 32, a character of 5 bits and a flag that more follow, from the fourth count on as its difference from the
count two before it. Source: cocodataset/cocoapi, common/maskApi.c (rleEncode, rleToString, rleFrString).
A leaf: numpy in and out.

    encode(mask)      # {"size": [H, W], "counts": "..."}, a segmentation as in COCO's annotations
"""

from __future__ import annotations

import numpy as np


def run_lengths(mask: np.ndarray) -> list[int]:
    """bool [H, W] -> lengths of the runs of zeros, ones, zeros, ... down the columns; the first may be 0."""
    mask = _checked(mask)
    line = mask.ravel(order="F")
    if not line.size:
        return []
    edges = np.flatnonzero(line[1:] != line[:-1]) + 1
    counts = np.diff([0, *edges.tolist(), line.size]).tolist()
    return [0, *counts] if line[0] else counts


def encode(mask: np.ndarray) -> dict:
    """bool [H, W] -> {"size": [H, W], "counts": compressed string}."""
    return {"size": list(np.shape(mask)), "counts": compress(run_lengths(mask))}


def decode(rle: dict) -> np.ndarray:
    """{"size": [H, W], "counts": list or string} -> bool [H, W]. Raises ValueError if the runs do not fill it."""
    height, width = rle["size"]
    counts = rle["counts"]
    counts = decompress(counts) if isinstance(counts, str) else list(counts)
    if min(counts, default=0) < 0 or sum(counts) != height * width:
        raise ValueError(f"The runs must add up to {height} x {width} pixels, but they make {sum(counts)}.")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(height, width, order="F")


def compress(counts: list[int]) -> str:
    """Run lengths -> COCO's string."""
    letters = []
    for index, count in enumerate(counts):
        rest = count - counts[index - 2] if index > 2 else count
        while True:
            bits, rest = rest & 31, rest >> 5
            # Done when what is left is only the sign, and the last five bits show it.
            done = rest == (-1 if bits & 16 else 0)
            letters.append(chr(48 + bits + (0 if done else 32)))
            if done:
                break
    return "".join(letters)


def decompress(text: str) -> list[int]:
    """COCO's string -> run lengths. Raises ValueError on letters that are not of it or a string that breaks off."""
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"The letter '{letter}' cannot be in run lengths: they are written in '0' to 'o'.")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value, shift = 0, 0
    if shift:
        raise ValueError("The run lengths break off in the middle of a number.")
    return counts


def bounding_box(mask: np.ndarray) -> list[int]:
    """bool [H, W] -> [x, y, width, height] in pixels of the smallest box around what is set, zeros if nothing is."""
    mask = _checked(mask)
    if not mask.any():
        return [0, 0, 0, 0]
    (top, bottom), (left, right) = (np.flatnonzero(mask.any(axis=axis))[[0, -1]].tolist() for axis in (1, 0))
    return [left, top, right - left + 1, bottom - top + 1]


def _checked(mask: np.ndarray) -> np.ndarray:
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype != bool:
        raise ValueError(f"A mask must be bool [H, W], not {mask.dtype} {list(mask.shape)}.")
    return mask
