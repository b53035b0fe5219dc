"""python -m train keep: crops of pictures through the frozen part of a vision tower, once, into a folder.

    python -m train keep folder:photos/coco100 --vision runs/start --blocks 9 --size 336 --crops 10 --out kept/coco100

Round by round over all pictures, so that a stopped one holds some crops of each; started again, it goes on.
"""

from __future__ import annotations

import hashlib
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import Tipsv2VisionModel

import tipsv2
from tipsv2.checkpoints.weights import digest_of
from tipsv2.labelled import is_labelled
from tipsv2.labelled.captions import caption
from train.data.kept.crops import coloured, cut, cut_labels, patch_shares, square, whole
from train.data.kept.folder import BEST, Writer, begin, open_kept
from train.data.kept.names import read_table
from train.data.kept.soft import scores_of, soft_names
from train.data.kept.sources import open_pictures
from train.foundations.efficientnet_lite import open_classifier
from train.recipe.settings import PATCH

SAVE_SECONDS = 30.0
BATCH = 8  # crops at once


@dataclass(frozen=True)
class Settings:
    """What a kept folder was made with; recorded in it."""

    source: str
    vision: str  # a folder, a bundled name or a Hub id of a TIPSv2 encoder
    blocks: int = 9  # how many of its blocks are frozen
    size: int = 336  # pixels of a crop's side
    crops: int = 1  # of every picture
    crop_min: float = 0.4  # the least side of a crop, in short sides of its picture
    classifier: str = ""
    classifier_size: int = 416  # pixels of the short side of the picture that the classifier looks at
    classifier_temperature: float = 0.7
    prior: float = 2.0  # what the score of the class that a picture is known to show gains
    classes: str = ""  # table of names: the file names of pictures begin with a class's number
    leave_out: str = ""
    limit: int = 0
    seed: int = 0


def keep(settings: Settings, out: Path, show: bool = True) -> Path:
    """Make the folder `out`, or go on with it. Raises ValueError for what a user can mend, before anything long."""
    _check(settings)
    classes = read_table(Path(settings.classes)).classes if settings.classes else ()
    source = open_pictures(settings.source, settings.limit, settings.leave_out, len(classes), settings.seed)
    classifier = open_classifier(settings.classifier) if settings.classifier else None
    if classifier and classes and classifier.classifier.out_features != len(classes):
        raise ValueError(
            f"--classifier knows {classifier.classifier.out_features} classes and {settings.classes} names "
            f"{len(classes)}: give the table that belongs to it."
        )
    vision = tipsv2.load(settings.vision, "cpu", "float32", progress=show, fast=False).model.vision_model.eval()
    layers = len(vision.encoder.layer)
    if not 1 <= settings.blocks < layers:
        raise ValueError(f"--blocks {settings.blocks}: the tower has {layers} blocks, keep 1 to {layers - 1} of them.")
    meta = asdict(settings) | {
        "frozen": frozen_digest(vision, settings.blocks),
        "pictures": hashlib.sha256("\n".join(source.files).encode()).hexdigest()[:16],
        "count": len(source.files) * settings.crops,
    }
    if classifier:
        meta["classifier_digest"] = digest_of(classifier)
    side, first = settings.size // PATCH, 1 + vision.config.num_register_tokens
    rows, patches = meta["count"], side * side
    shapes = {"hidden": (rows, first + patches, vision.config.hidden_size), "known": (rows,)}
    if source.names:
        shapes |= {"labels": (rows, patches), "share": (rows, patches)}
    if classifier:
        shapes |= {"soft": (rows, patches, BEST), "chance": (rows, patches, BEST)}
    done = begin(out, meta, source.names, shapes)
    for note in source.notes:
        print(note, file=sys.stderr)
    _write(settings, source, vision, classifier, out, shapes, done, show)
    return out


def _write(settings: Settings, source, vision, classifier, out: Path, shapes: dict, done: int, show: bool) -> None:
    rows, count = shapes["hidden"][0], len(source.files)
    captions = list(open_kept(out).captions) if done else []
    saved = time.monotonic()
    bar = tqdm(total=rows, initial=done, unit="crop", desc=out.name, disable=not show)
    with Writer(out, list(shapes)) as writer, bar:
        for start in range(done, rows, BATCH):
            pixels = []
            for row in range(start, min(start + BATCH, rows)):
                crop, words = _crop(settings, source, classifier, row, count, writer)
                pixels.append(crop)
                captions.append(words)
            with torch.inference_mode():
                hidden = hidden_tokens(vision, torch.stack(pixels), settings.blocks)
            writer.put("hidden", start, hidden.half().numpy())
            bar.update(len(pixels))
            end = start + len(pixels)
            if end == rows or time.monotonic() - saved > SAVE_SECONDS:
                writer.whole(end, captions)
                saved = time.monotonic()


def _crop(
    settings: Settings, source, classifier, row: int, count: int, writer: Writer
) -> tuple[Tensor, dict[str, str]]:
    """The pixels [3, S, S] in [0, 1] of a row and its captions; all else that is known of it is written."""
    turn, number = divmod(row, count)
    shown = source.show(number, settings.size)
    size, picture = settings.size, shown.picture

    def window(turn: int):
        rng = np.random.default_rng([settings.seed, number, turn])
        return (square(picture.size, settings.crop_min, rng) if source.cropped else whole(picture.size)), rng

    here, rng = window(turn)
    crop = cut(picture, here, size)
    crop = coloured(crop, rng) if source.cropped else crop
    writer.put("known", row, np.array([shown.known]))
    words = shown.captions
    if shown.labels is not None:
        labels = cut_labels(shown.labels, here, size)
        most, share = patch_shares(labels)
        writer.put("labels", row, most[None].numpy())
        writer.put("share", row, share[None].numpy())
        if words is None:
            text = caption(labels.numpy(), source.names)
            words = {"web": text} if text else {}
    if classifier and turn == 0:  # looked at once, for the crops of all turns
        windows = [window(k)[0] for k in range(settings.crops)]
        scores = scores_of(classifier, picture, settings.classifier_size)
        soft, chance = soft_names(
            scores, windows, picture.size, size // PATCH, shown.known, settings.classifier_temperature, settings.prior
        )
        for k in range(settings.crops):
            writer.put("soft", k * count + number, soft[k : k + 1])
            writer.put("chance", k * count + number, chance[k : k + 1])
    return torch.from_numpy(np.array(crop)).permute(2, 0, 1).float() / 255, words or {}


def hidden_tokens(vision: Tipsv2VisionModel, pixels: Tensor, blocks: int) -> Tensor:
    """The tokens [B, 1 + registers + N, D] after the first `blocks` blocks; pixels [B, 3, S, S] in [0, 1]."""
    hidden = vision.embeddings(pixels)
    for layer in vision.encoder.layer[:blocks]:
        hidden = layer(hidden)
    return hidden


def frozen_digest(vision: Tipsv2VisionModel, blocks: int) -> str:
    """Which weights the embeddings and the first `blocks` blocks have."""
    digest = hashlib.sha256()
    parts = [("embeddings", vision.embeddings), *((f"{k}", vision.encoder.layer[k]) for k in range(blocks))]
    for name, part in parts:
        for key, value in sorted(part.state_dict().items()):
            if "mask_token" not in key:
                digest.update(f"{name}.{key} {list(value.shape)}".encode())
                digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _check(settings: Settings) -> None:
    if settings.size < PATCH or settings.size % PATCH:
        raise ValueError(f"--size {settings.size}: it must be a multiple of the patch size, {PATCH} pixels.")
    for name in ("blocks", "crops", "classifier_size"):
        if getattr(settings, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(settings, name)}: it must be 1 or more.")
    for name in ("limit", "seed"):
        if getattr(settings, name) < 0:
            raise ValueError(f"--{name} {getattr(settings, name)}: it must be 0 or more.")
    if settings.leave_out and settings.source == "scenes":
        raise ValueError(
            "--leave-out: scenes are drawn, none of them is left out; --limit says how many, --seed which."
        )
    if settings.classes and (settings.source == "scenes" or is_labelled(settings.source)):
        raise ValueError(
            f"--classes says which class the number in a file's name is, and those of {settings.source} are not read: "
            "leave it out."
        )
    if not 0 < settings.crop_min <= 1:
        raise ValueError(f"--crop-min {settings.crop_min}: it must lie above 0 and up to 1.")
    if settings.classifier_temperature <= 0:
        raise ValueError(f"--temperature {settings.classifier_temperature}: it must be above 0.")
