"""Look through a collection of images with captions before training on it: what is found, what is unusable, a picture.

python -m train check photos --out sample.png
"""

from __future__ import annotations

import hashlib
import random
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from tipsv2.collections.pairs import ROLES, Pair, Pairs
from train.data.labels import patch_labels
from train.data.samples import open_data
from train.data.views import Window
from train.recipe.settings import PATCH, Data

SHOWN = 6  # pairs in the picture
NAMED = 20  # unusable images in the report
AT_ONCE = 64  # images decoded side by side
REPEATED = 0.1  # share of captions that repeat others, from which on it is worth a sentence
FEW = 500  # pairs, too few to learn to see from


@dataclass
class Captions:
    """Statistics of one role: words per caption, how many repeat an earlier one, how many images have none."""

    words: list[int] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)
    duplicates: int = 0
    empty: int = 0
    spoilt: int = 0  # hold the character that stands for one that could not be read

    def add(self, texts: tuple[str, ...]) -> None:
        self.empty += not texts
        for text in texts:
            self.words.append(len(text.split()))
            self.duplicates += hash(text) in self.seen
            self.spoilt += "\ufffd" in text
            self.seen.add(hash(text))

    def __str__(self) -> str:
        if not self.words:
            return "none"
        low, middle, high = np.percentile(self.words, [5, 50, 95])
        return (
            f"{len(self.words)} captions, words: mean {np.mean(self.words):.1f}, 5 % {low:.0f}, median {middle:.0f}, "
            f"95 % {high:.0f}, longest {max(self.words)}; {self.duplicates / len(self.words):.1%} repeat an earlier "
            f"one; empty for {self.empty} images"
        )


@dataclass
class Report:
    """What `look_through` found; `str` is the text to print, `refusal` says why the data cannot be trained on."""

    pairs: Pairs
    allowed: float
    rows: int = 0
    problems: list[str] = field(default_factory=list)
    whole: bool = True  # nothing was left unread by a limit
    masks: list[str] = field(default_factory=list)  # what patch labels could not be learned from, of usable pairs
    sizes: list[tuple[int, int]] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)  # images whose file is that of an earlier one
    captions: dict[str, Captions] = field(default_factory=lambda: {role: Captions() for role in ROLES})
    shown: list[Pair] = field(default_factory=list)

    @property
    def refusal(self) -> str:
        """Empty where training is possible."""
        usable, name = len(self.sizes), self.pairs.name
        if usable == 0:
            return f"{name}: none of {self.rows} rows has an image and a caption that can be read."
        if usable == 1:
            return f"{name} has one usable pair only, and a pair is learned by contrast with others: give at least two."
        if len(self.problems) > self.allowed * self.rows:
            return (
                f"{name}: {len(self.problems)} of {self.rows} rows cannot be used, more than the "
                f"data.unreadable={self.allowed} at which training stops: mend or remove them."
            )
        return ""

    @property
    def advice(self) -> list[str]:
        """What the numbers call for, a sentence each."""
        said = []
        for role, texts in self.captions.items():
            if texts.duplicates > REPEATED * len(texts.words):
                said.append(
                    f"{texts.duplicates / len(texts.words):.0%} of the {role} captions repeat an earlier one. Images "
                    "of one caption are not told apart in training: say what is different about them, or keep fewer "
                    "images of a caption."
                )
            if texts.spoilt:
                said.append(
                    f"{texts.spoilt} of the {role} captions hold the character \ufffd, where another program read the "
                    "text in a wrong encoding: the letters are lost, write these captions anew from their source."
                )
        if self.repeated:
            said.append(
                f"{len(self.repeated)} images repeat the file of an earlier one ({', '.join(self.repeated[:3])}): "
                "put their captions together, and see that none of them is among the pictures you measure with."
            )
        if self.whole and 1 < len(self.sizes) < FEW:
            said.append(
                f"{len(self.sizes)} pairs are few: fine-tune a trained encoder on them (python -m train finetune), do "
                "not pretrain, and keep some images out to measure with (python -m tipsv2 evaluate retrieval)."
            )
        return said

    def __str__(self) -> str:
        columns = self.pairs.mapping | {"image": " or ".join(self.pairs.images)}
        mapped = ", ".join(f"{name} from {column}" for name, column in columns.items())
        lines = [
            f"{self.pairs.name}: {self.rows} rows, {len(self.sizes)} usable pairs"
            + ("" if self.pairs.indexed else f", shards: {self.pairs.shards}"),
            f"columns: {', '.join(self.pairs.columns)}",
            f"read as: {mapped}",
            *(f"note: {note}" for note in self.pairs.notes),
        ]
        if self.sizes:
            (w0, h0), (w1, h1), (w2, h2) = np.percentile(self.sizes, [0, 50, 100], axis=0)
            short = np.min(self.sizes, axis=1)
            lines.append(
                f"images: smallest sides {w0:.0f} x {h0:.0f}, median {w1:.0f} x {h1:.0f}, largest {w2:.0f} x {h2:.0f} "
                f"pixels; {np.mean(short < 224):.1%} have a side below 224"
            )
        lines += [f"{role}: {texts}" for role, texts in self.captions.items()]
        for what, problems in (("unusable", self.problems), ("unusable as patch labels", self.masks)):
            if problems or what == "unusable":
                lines.append(f"{what}: {len(problems)}")
            lines += [f"  {problem}" for problem in problems[:NAMED]]
            if len(problems) > NAMED:
                lines.append(f"  ... and {len(problems) - NAMED} more")
        lines += [f"advice: {sentence}" for sentence in self.advice]
        return "\n".join(lines)


def look_through(data: Data, limit: int = 0, show: bool = True) -> Report:
    """Open every image and mask (of the first `limit` rows, if given) and read every caption.

    Raises ValueError if the collection cannot be opened.
    """
    if limit < 0:
        raise ValueError(f"--limit {limit} must be 0 (all) or more.")
    pairs = open_data(data)
    rng, total = random.Random(0), len(pairs) if pairs.indexed else None
    report = Report(pairs, data.unreadable, whole=not limit or (pairs.indexed and limit >= total))
    digests: set[bytes] = set()
    rows = iter(pairs) if not limit else islice(pairs, limit)
    look = partial(_open, names=len(pairs.label_names))
    total = min(total or limit, limit or total or 0) or None
    # Gone when it ends, and never in a file: the report has the place to itself.
    bar = tqdm(total=total, unit="pair", leave=False, disable=None if show else True)
    with bar, ThreadPoolExecutor() as pool:
        for some in _chunks(rows):
            for pair, (size, problem, mask, digest) in zip(some, pool.map(look, some), strict=True):
                report.rows += 1
                for role, captions in report.captions.items():
                    captions.add(pair.captions.get(role, ()))
                if problem:
                    report.problems.append(problem)
                    continue
                report.sizes.append(size)
                if digest:
                    report.repeated += [pair.name] if digest in digests else []
                    digests.add(digest)
                report.masks += [mask] if mask else []
                place = rng.randrange(len(report.sizes))  # each usable pair is as likely to be shown as any other
                if len(report.shown) < SHOWN:
                    report.shown.append(pair)
                elif place < SHOWN:
                    report.shown[place] = pair
            bar.update(len(some))
    return report


def _chunks(rows: Iterator[Pair]) -> Iterator[list[Pair]]:
    while some := list(islice(rows, AT_ONCE)):
        yield some


def _open(pair: Pair, names: int) -> tuple[tuple[int, int] | None, str, str, bytes]:
    """The image's size, why the pair cannot be used, why its mask, if labels have names, cannot, and a digest of the
    image's file where that need not be fetched again.
    """
    try:
        pair.caption("web", random.Random(0))
        size = pair.open().size
        digest = b"" if isinstance(pair.image, str) else hashlib.blake2b(pair.read(), digest_size=16).digest()
    except ValueError as error:
        return None, str(error), "", b""
    try:
        if names:
            patch_labels(pair, names, size, PATCH, Window((0, 0, *size), False))
    except ValueError as error:
        return size, "", str(error), digest
    return size, "", "", digest


def draw(pairs: list[Pair], out: Path) -> Path:
    """Up to six pairs as one picture: image above, captions by role below. Returns where it is, from the root on."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 9), layout="constrained")
    axes = figure.subplots(4, 3, height_ratios=[3, 1.2, 3, 1.2])
    for place in axes.flat:
        place.set_axis_off()
    for above, below, pair in zip(axes[::2].flat, axes[1::2].flat, pairs, strict=False):
        picture = pair.open()
        picture.thumbnail((512, 512))
        above.imshow(picture)
        lines = [f"{role}: {texts[0]}" for role, texts in pair.captions.items()]
        text = "\n".join(textwrap.fill(textwrap.shorten(line, 200), 56) for line in lines)
        below.text(0, 1, text, fontsize=9, va="top", parse_math=False)
    figure.savefig(out, dpi=100)
    return out.resolve()
