"""Zero-shot segmentation by patch-text similarity: cosine, upsample, argmax, one confusion matrix for the data set.

    python -m tipsv2 evaluate segmentation --data scenes:val --model opentips-nano --json
    python -m tipsv2 evaluate segmentation --data ade20k:/data/ADEChallengeData2016 --protocol slide --out out/ade20k
    python -m tipsv2 evaluate segmentation --data voc21:/data/VOCdevkit/VOC2012 --background "background,wall,sky,road"

--protocol whole is TIPSv2's single pass, slide its notebook's windows (448 pixels, 336 apart, for an encoder trained at
448). --features says which patches are compared with the words: values (TIPSv2's choice), final, or layer:5 for what
the fifth block puts out. miou is over the classes in truth or guess, of the data set's one confusion table; its 95 %
interval is a bootstrap over images.

On the scenes both final and values are measured, among two sets of candidates:
miou_present  the names that are in the image, things and stuff alike, as SPARC Sec. 4.4 chooses candidates
miou_all      every name of the data set

On own labelled pictures (folder:PATH) the same, and, each with what chance gives:
miou_pictures         mean over pictures of the mIoU among the names in each
peak_inside, auroc    where a name's cosine is highest, and whether its patches score above those without it
presence_per_...      does the highest cosine tell what is in a picture? see
`tipsv2.evaluation.segmentation.named_patches` With --protocol slide only miou_pictures: the windows' cosines have no
grid in common.

Data sets with a background class (VOC-21, Context-60, COCO-Object): no source says how TIPSv2 finds it. Our default is
one more class whose word is "background"; --background takes other words for it, which compete with the classes, or a
number: a pixel whose best class scores below it (a cosine for whole, a share of the softmax for slide) is background.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm

from tipsv2 import scenes
from tipsv2.analysis.heatmap import patch_maps
from tipsv2.analysis.metrics import confusion_matrix
from tipsv2.analysis.segmentation import background_rule
from tipsv2.collections.parts import limited
from tipsv2.evaluation.layouts import OWN, SCENES, SampleLike, Split, folder, open_data
from tipsv2.evaluation.segmentation.named_patches import NamedPatches, look_at
from tipsv2.evaluation.segmentation.protocol import Words, asked, guess, layer_of, look
from tipsv2.evaluation.segmentation.scores import Tables, chance, chance_of_images, pack
from tipsv2.evaluation.shared.partial import PARTIAL, Partial
from tipsv2.evaluation.shared.splits import DrawnSamples, embed_texts, network_side, scene_split
from tipsv2.images import open_image
from tipsv2.network.view import ImageFeatures, View, windowed
from tipsv2.prompts import TEMPLATES
from tipsv2.records import fingerprint, identity
from tipsv2.scenes.splits import is_scenes

if TYPE_CHECKING:
    from PIL import Image

    from tipsv2.network.encoder import Encoder

FEATURES = ("final", "values")  # of the scenes and of own labelled pictures
CANDIDATES = ("present", "all")
BATCH_SIZES = {"whole": 16, "slide": 4}  # pictures that wait for each other


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--protocol", choices=tuple(BATCH_SIZES), default="whole", help="one pass, or windows (default: %(default)s)"
    )
    parser.add_argument(
        "--templates", choices=tuple(TEMPLATES), default="tips9", help="prompts per class (default: %(default)s)"
    )
    parser.add_argument(
        "--features",
        metavar="KIND",
        help="values, final or layer:K (default: values; on the scenes and own labelled pictures final and values)",
    )
    parser.add_argument(
        "--background", type=background_rule, metavar="NUMBER|WORDS",
        help="where there is a background class: words for it, or the score below which a pixel is it "
        "(default: the word background)",
    )  # fmt: skip
    folder.add_arguments(parser)


def evaluate(
    encoder: Encoder,
    data: str = "scenes:val",
    resolution: int | None = None,
    templates: str = "tips9",
    limit: int | None = None,
    out: Path | None = None,
    progress: bool = True,
    protocol: str = "whole",
    features: str | None = None,
    background: float | Sequence[str] | None = None,
) -> dict:
    """Score an encoder on a data set with pixel labels.

    Args:
        encoder: a `tipsv2.Encoder`.
        data: "scenes:val" (seen drawing styles), "scenes:style" (the unseen one), or what `layouts.open_data` takes:
            "ade20k:ROOT", "folder:ROOT" of own labelled pictures.
        resolution: short side in pixels of the picture the network sees; default the encoder's training resolution.
        templates: template set of the class prompts.
        limit: only the first images.
        out: a folder for pictures and for what an interrupted evaluation goes on from.
        protocol, features, background: see the module.

    Returns: of the scenes {"task", "data", "model", "resolution", "images", "final": {...}, "values": {...}, "chance":
        {...}}, the inner dicts with `miou_present` and `miou_all` in [0, 1]; of other data, and of the scenes with
        `out`, "miou", "miou_low" and "miou_high" (its 95 % interval), "pixel_accuracy" and "per_class". Own labelled
        pictures have both, with more in the inner dicts, see the module, and "unlabelled", a share of the pixels.
    Raises ValueError for data that are not as they should be, a limit under 1, or a resolution not in whole patches.
    """
    started = time.perf_counter()
    measured = measure(encoder, data, resolution, templates, limit, out, progress, protocol, features, background)
    split, view, main = measured.split, measured.view, measured.main
    numbers: dict[str, Any] = {
        "task": "segmentation", "data": data, "model": encoder.info.name, "resolution": view.resolution,
        "templates": templates, "images": len(main.names), "classes": len(split.classes),
    }  # fmt: skip
    windows = {"protocol": protocol, "window": view.window, "stride": view.stride} if protocol == "slide" else {}
    if is_scenes(data):
        numbers |= windows | measured.scores()
    else:
        numbers |= windows or {"protocol": protocol}
        numbers |= {"layout": split.layout, "part": split.part, "features": measured.kinds[-1]}
        if split.layout == OWN:
            numbers |= {
                "unlabelled": None if split.unlabelled is None else round(split.unlabelled, 4)
            } | measured.scores()
        numbers |= {"background": measured.words.rule} if split.background is not None else {}
    if out or not is_scenes(data):
        numbers |= main.numbers(split.classes) | {"fingerprint": measured.fingerprint}
    if out:
        from tipsv2.evaluation.segmentation.pictures import write

        write(out, main, split.classes, lambda index: measured.show(encoder, index))
    return numbers | {"seconds": round(time.perf_counter() - started, 1)}


@dataclass(frozen=True)
class Measured:
    """An encoder's confusion tables on a data set, and what they were made with."""

    split: Split
    fingerprint: str
    view: View
    kinds: tuple[str, ...]  # of features: "values", "final", "layer:1" to the last
    words: Words
    text: torch.Tensor  # [rows of words, D]
    tables: dict[tuple[str, str], Tables]  # (features, candidates)
    named: dict[str, NamedPatches]  # features -> what their patches say, of own labelled pictures

    @property
    def main(self) -> Tables:
        """Of the last features, among all classes."""
        return self.tables[self.kinds[-1], "all"]

    def scores(self) -> dict[str, dict[str, float | None]]:
        """Features -> mIoU by candidates, and chance; of own labelled pictures with what their patches say."""
        scores: dict[str, dict[str, float | None]] = {kind: {} for kind in (*self.kinds, "chance")}
        for (kind, among), tables in self.tables.items():
            scores[kind][f"miou_{among}"] = round(tables.miou(), 4)
            scores["chance"][f"miou_{among}"] = round(chance(tables.truth(), among), 4)
        if self.split.layout == OWN:
            for kind in self.kinds:
                tables = self.tables[kind, "present"]
                scores[kind]["miou_pictures"] = round(float(np.nanmean(tables.of_images())), 4)
                scores["chance"]["miou_pictures"] = round(chance_of_images(tables.truth()), 4)
                if kind in self.named:
                    scores[kind] |= self.named[kind].figures(tables.truth() > 0)
                    scores["chance"] |= self.named[kind].chance()
        return scores

    def show(self, encoder: Encoder, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The picture uint8 [H, W, 3], the truth and the guess [H, W] of a sample."""
        image, truth = _read(self.split.samples[index])
        (features,) = look(encoder, [image], self.view, self.kinds)
        return np.asarray(image), truth, guess(features, self.kinds[-1], self.text, self.words, truth.shape)


def measure(
    encoder: Encoder,
    data: str = "scenes:val",
    resolution: int | None = None,
    templates: str = "tips9",
    limit: int | None = None,
    out: Path | None = None,
    progress: bool = True,
    protocol: str = "whole",
    features: str | None = None,
    background: float | Sequence[str] | None = None,
) -> Measured:
    """The confusion tables behind `evaluate`; arguments and errors as there."""
    drawn = is_scenes(data)
    side = network_side(encoder, resolution) if drawn else resolution or encoder.info.resolution
    split = scene_split(data, side) if drawn else open_data("segmentation", data)
    own = split.layout == OWN
    count = limited(len(split.samples), limit)
    kinds = (features,) if features else FEATURES if drawn or own else ("values",)
    for kind in kinds:
        layer_of(kind, encoder.num_layers)
    view = windowed(encoder, side, "bicubic") if protocol == "slide" else View(side, resample="bicubic")
    words = Words.of(split.classes, split.background, background)
    candidates = CANDIDATES if drawn or own else ("all",)
    named = own and protocol == "whole"
    names = [sample.name for sample in split.samples]
    digest = fingerprint(names, split.classes)
    settings = {
        "data": split.origin, "fingerprint": digest,
        "encoder": identity(encoder), "templates": templates, "background": background, "view": asdict(view),
        "features": kinds,
    } | ({"synonyms": split.synonyms} if named else {})  # fmt: skip
    with Partial(out and out / PARTIAL, settings) as partial:
        text = embed_texts(encoder, words.rows, templates, progress, keep=True)
        other = embed_texts(encoder, [w for _, w in split.synonyms], templates, False) if split.synonyms else text[:0]
        missing = [index for index in range(count) if names[index] not in partial]
        samples = (split.samples[index] for index in missing)
        with tqdm(total=count, initial=count - len(missing), unit="image", disable=not progress, desc="images") as bar:
            measured = _tables(encoder, samples, view, kinds, text, words, candidates, len(split.classes))
            for name, tables, features, truth in measured:
                kept = {f"{kind} {among}": pack(table) for (kind, among), table in tables.items()}
                if named:
                    kept |= _named(features, kinds, text, other, split.synonyms, truth)
                partial.add(name, **kept)
                bar.update()
    names = names[:count]
    rows = [partial[name] for name in names]
    tables = {
        key: Tables(names, [row[" ".join(key)] for row in rows], len(split.classes))
        for key in product(kinds, candidates)
    }
    patches = {kind: NamedPatches.of(rows, kind) for kind in kinds} if named else {}
    return Measured(split, digest, view, kinds, words, text, tables, patches)


def _named(
    features: ImageFeatures,
    kinds: Sequence[str],
    text: torch.Tensor,
    other: torch.Tensor,
    synonyms: Sequence[tuple[int, str]],
    truth: np.ndarray,
) -> dict[str, np.ndarray]:
    """What a picture's patches say by name; text: of the classes, other: of the synonyms."""
    maps, synonym_maps = (
        {kind: patch_maps(features, rows, asked(kind)).cpu().numpy() for kind in kinds} for rows in (text, other)
    )
    return look_at(maps, truth, [number for number, _ in synonyms], synonym_maps)


def score_scenes(
    encoder: Encoder,
    chosen: Sequence[scenes.Scene],
    candidates: Sequence[str] = CANDIDATES,
    templates: str = "tips9",
    progress: bool = True,
) -> dict[str, dict[str, float | None]]:
    """The scores of `evaluate` for scenes at hand, all of one size, a multiple of the patch size."""
    split = Split(SCENES, "", DrawnSamples(chosen), scenes.names())
    text = encoder.encode_text(list(split.classes), templates)  # [C, D]
    view, words = View(len(chosen[0].image), resample="bicubic"), Words.of(split.classes)
    samples = tqdm(split.samples, unit="image", disable=not progress, desc="images")
    packed = [
        {key: pack(table) for key, table in tables.items()}
        for _, tables, _, _ in _tables(encoder, samples, view, FEATURES, text, words, candidates, len(split.classes))
    ]
    names = [sample.name for sample in split.samples]
    tables = {key: Tables(names, [of_picture[key] for of_picture in packed], len(split.classes)) for key in packed[0]}
    return Measured(split, "", view, FEATURES, words, text, tables, {}).scores()


def _tables(
    encoder: Encoder,
    samples: Iterable[SampleLike],
    view: View,
    kinds: Sequence[str],
    text: torch.Tensor,
    words: Words,
    candidates: Sequence[str],
    num_classes: int,
) -> Iterator[tuple[str, dict[tuple[str, str], np.ndarray], ImageFeatures, np.ndarray]]:
    """Per sample its name, (features, candidates) -> confusion table [C, C], its features and its label map."""
    waiting = iter(samples)
    while batch := list(islice(waiting, BATCH_SIZES["slide" if view.window else "whole"])):
        read = [_read(sample) for sample in batch]
        looked = look(encoder, [image for image, _ in read], view, kinds)
        for sample, (_, truth), features in zip(batch, read, looked, strict=True):
            tables = {}
            for kind in kinds:
                for among in candidates:
                    present = np.unique(truth[truth >= 0]) if among == "present" else None
                    predicted = guess(features, kind, text, words, truth.shape, present)
                    tables[kind, among] = confusion_matrix(truth, predicted, num_classes)
            yield sample.name, tables, features, truth


def _read(sample: SampleLike) -> tuple[Image.Image, np.ndarray]:
    """A sample's picture and label map. Raises ValueError where they do not fit together."""
    image, truth = open_image(sample.image), sample.truth()
    if truth.shape != (image.height, image.width):
        raise ValueError(
            f"{sample.name}: the picture is {image.width} x {image.height} pixels and its label map {truth.shape[1]} x "
            f"{truth.shape[0]}: one of them is not of this data set."
        )
    return image, truth
