"""Masks as labels of patches, and the names they stand for: the data of the term train/objectives/patch_labels.py.

A mask is a picture of label numbers, as large as its image or of its shape: `python -m train scenes` writes such, with
a names.json that says what the numbers mean. The highest number of its kind (255, or 65535 with 16 bits) is unlabelled.
The masks of folder:PATH are read as `tipsv2.labelled` reads them, which knows more kinds.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from tipsv2.collections.pairs import Pair
from train.data.views import Window
from train.recipe.settings import PATCH

UNLABELLED = -1


def patch_classes(labels: Tensor) -> Tensor:
    """What most of each patch's pixels show, of equally many the lowest number.

    labels: [..., H, W] integers, -1 = unlabelled, H and W multiples of PATCH.
    Returns: [..., H / PATCH, W / PATCH] int64.
    """
    grid = labels.long().unfold(-2, PATCH, PATCH).unfold(-2, PATCH, PATCH)
    return grid.flatten(-2).mode(dim=-1).values


def name_tokens(names: Sequence[str], tokenizer) -> dict[str, Tensor]:
    """The batch's names_ids and names_mask, [C, L]. Raises ValueError where it is not known what labels mean."""
    if not names:
        raise ValueError(
            "patch_labels.weight needs to know what the masks' numbers mean: put a names.json, a list of names, beside "
            "the images, tars or table, or set patch_labels.weight=0."
        )
    tokens = tokenizer(list(names), padding=True, truncation=True, max_length=64, return_tensors="pt")
    return {"names_ids": tokens["input_ids"], "names_mask": tokens["attention_mask"]}


def patch_labels(pair: Pair, names: int, picture: tuple[int, int], size: int, window: Window) -> Tensor:
    """The labels [size / PATCH, size / PATCH] of the patches of `global_crop(picture, size, window)`.

    names: how many there are. picture: (width, height) of the image; the mask may be smaller or larger. A pair without
    mask is unlabelled. Raises ValueError, naming the pair, for a mask that is damaged, in colours, of another shape
    than the image, or has numbers that have no name.
    """
    if pair.mask is None:
        return torch.full((size // PATCH, size // PATCH), UNLABELLED)
    mask = _open(pair, names)
    x, y = mask.width / picture[0], mask.height / picture[1]
    if abs(x / y - 1) > 0.02:
        raise ValueError(
            f"{pair.name}: its mask is {mask.width} x {mask.height} and its image {picture[0]} x {picture[1]}: they do "
            "not have the same shape."
        )
    box = tuple(side * scale for side, scale in zip(window.box, (x, y, x, y), strict=True))
    labels = np.array(mask.resize((size, size), Image.Resampling.NEAREST, box=box))
    return patch_classes(torch.from_numpy(labels[:, ::-1].copy() if window.mirrored else labels))


def _open(pair: Pair, names: int) -> Image.Image:
    """The label numbers as a picture of 32-bit integers, -1 = unlabelled."""
    if pair.labels is not None:
        return Image.fromarray(pair.labels().astype(np.int32))
    try:
        with Image.open(io.BytesIO(replace(pair, image=pair.mask).read())) as picture:
            if picture.mode not in ("L", "P", "I", "I;16"):
                raise ValueError(
                    f"{pair.name}: its mask is a picture of kind {picture.mode}, not of label numbers; save it with "
                    "one number a pixel (8 or 16 bits, grey or palette)."
                )
            labels = np.array(picture).astype(np.int32)
            free = 255 if picture.mode in ("L", "P") else 65535
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise ValueError(f"{pair.name}: its mask cannot be read ({error}).") from error
    labels[labels == free] = UNLABELLED
    if not -1 <= labels.min() <= labels.max() < names:
        raise ValueError(f"{pair.name}: its mask holds numbers up to {labels.max()}, but there are {names} names.")
    return Image.fromarray(labels)
