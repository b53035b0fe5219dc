"""Retrieval in data sets with several captions an image: COCO, Flickr30K, DOCCI; recall at 1, 5 and 10 both ways.

    numbers = captioned.evaluate(encoder, "flickr30k:/data/flickr30k", 448)

The protocol of CLIP and everybody since: all captions of all images are candidates; an image's right answers are its
own captions, any of them counts; a caption's right answer is its image. Unlike in the bundled scenes a caption that
another image has word for word is a wrong answer. Which of TIPSv2's CLS tokens the paper's tables used is not
published: both are measured. CLS 1 is trained against alt-texts and what the official demo compares with text; CLS 2 is
trained against synthetic captions, which describe as those of COCO, Flickr30K and DOCCI do.
Intervals draw images anew, each with all its captions. At most 64 tokens of a text are read: most of DOCCI's
descriptions are longer.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tipsv2.evaluation.embeddings import CLS_TOKENS, embed_captions, embed_images, keep
from tipsv2.evaluation.failures import Query, worst, write_queries
from tipsv2.evaluation.layouts import Sample, open_data
from tipsv2.evaluation.ranking import Ranking, interval, rank
from tipsv2.evaluation.record import fingerprint
from tipsv2.evaluation.splits import limited
from tipsv2.metrics import chance_recall_at_k

RANKS = (1, 5, 10)
SHOWN = 4  # finds in the picture


def evaluate(
    encoder,
    data: str,
    resolution: int,
    cls: str = "cls",
    shape: str = "aspect",
    limit: int | None = None,
    out: Path | None = None,
    progress: bool = True,
) -> dict:
    """Score an encoder on a data set that `layouts.open_data` finds; the arguments are `retrieval.evaluate`'s.

    Returns: {"task", "data", "model", "resolution", "shape", "images", "texts", "cls": {...}, "caption_cls": {...},
        "chance": {...}, "interval": {...}, "fingerprint", "seconds"}, the inner dicts with "i2t_r1", "i2t_r5",
        "i2t_r10", "t2i_r1", ... in [0, 1]; "interval" has those of `cls`'s "i2t_r1" and "t2i_r1".
    """
    split = open_data("retrieval", data)
    samples = split.samples[: limited(len(split.samples), limit)]
    started = time.perf_counter()
    captions = fingerprint(_with_captions(split.samples))  # else those of a corrected file would be the old ones'
    with keep(out, encoder, split, task="retrieval", resolution=resolution, shape=shape, captions=captions) as partial:
        images = embed_images(encoder, samples, partial, resolution, shape, progress)
        texts, owner = embed_captions(encoder, samples, partial, progress)
    counts = np.bincount(owner)
    own = np.split(np.arange(len(owner)), np.cumsum(counts)[:-1])  # the captions of each image
    ways: dict[str, dict[str, Ranking]] = {
        token: {
            "i2t": rank(images[token], texts, own),
            "t2i": rank(texts, images[token], owner[:, None]),
        }
        for token in CLS_TOKENS
    }
    scores = {
        token: {f"{way}_r{k}": round(float((r.first < k).mean()), 4) for way, r in both.items() for k in RANKS}
        for token, both in ways.items()
    }
    hits = np.bincount(owner, ways[cls]["t2i"].first < 1)
    intervals = {"i2t_r1": interval(ways[cls]["i2t"].first < 1), "t2i_r1": interval(hits, counts)}
    if out is not None:
        write_queries(out / "worst_queries.png", _worst(samples, owner, ways[cls]))
    return {
        "task": "retrieval", "data": data, "model": encoder.info.name, "resolution": resolution, "shape": shape,
        "images": len(samples), "texts": len(texts), **scores, "chance": _chance(counts),
        "interval": {name: low_high for name, low_high in intervals.items() if low_high},
        "fingerprint": fingerprint(_with_captions(samples)),
        "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip


def _with_captions(samples: Sequence[Sample]) -> Iterator[str]:
    """Each image's name and its captions."""
    for sample in samples:
        yield from (sample.name, *sample.truth())


def _chance(counts: np.ndarray) -> dict[str, float]:
    """Recalls of a random order for images with so many captions each."""
    total = int(counts.sum())
    found = {}
    for k in RANKS:
        # A query's chance depends on how many of its candidates are right, so one row a count is enough.
        rows = [chance_recall_at_k(np.arange(total)[None] < count, k) for count in np.unique(counts)]
        many = [(counts == count).sum() for count in np.unique(counts)]
        found[f"i2t_r{k}"] = round(float(np.average(rows, weights=many)), 4)
    return found | {f"t2i_r{k}": round(min(1.0, k / len(counts)), 4) for k in RANKS}


def _worst(samples, owner: np.ndarray, both: dict[str, Ranking]) -> list[Query]:
    """The images whose captions stand deepest with what stood before, then the captions whose image does."""
    said = [text for sample in samples for text in sample.truth()]
    rows = []
    for k in worst(both["i2t"].first, 3):
        finds = [(samples[owner[n]].image, said[n]) for n in both["i2t"].nearest[k][:SHOWN]]
        rows.append(Query(samples[k].image, f"image to text: {samples[k].truth()[0]}", finds))
    for k in worst(both["t2i"].first, 3):
        finds = [(samples[n].image, samples[n].truth()[0]) for n in both["t2i"].nearest[k][:SHOWN]]
        rows.append(Query(samples[owner[k]].image, f"text to image: {said[k]}", finds))
    return rows
