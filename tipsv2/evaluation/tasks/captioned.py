"""Retrieval where images have several captions: COCO, Flickr30K, DOCCI, your own; recall at 1, 5 and 10 both ways.

    numbers = captioned.evaluate(encoder, "flickr30k:/data/flickr30k", 448)
    numbers = captioned.evaluate(encoder, "photos", 448)                    # `tipsv2.evaluation.shared.own_captions`

The protocol of CLIP and everybody since: all captions of all images are candidates; an image's right answers are its
own captions, any of them counts; a caption's right answer is its image. In COCO, Flickr30K and DOCCI a caption that
another image has word for word is a wrong answer, as in everybody's tables; in your own images it is right at all that
have it, as in the bundled scenes, since nothing could tell them apart. Which of TIPSv2's CLS tokens the paper's tables
used is not published: both are measured. CLS 1 is trained against alt-texts and what the official demo compares with
text; CLS 2 is trained against synthetic captions, which describe as those of COCO, Flickr30K and DOCCI do.
Intervals draw images anew, each with all its captions. At most 64 tokens of a text are read: most of DOCCI's
descriptions are longer.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tipsv2.analysis.metrics import chance_recall_at_k
from tipsv2.collections.parts import limited
from tipsv2.evaluation.layouts import SampleLike, open_data
from tipsv2.evaluation.shared.embeddings import CLS_TOKENS, TRAINED_FOR, embed_captions, embed_images, keep
from tipsv2.evaluation.shared.failures import Query, worst, write_queries
from tipsv2.evaluation.shared.own_captions import is_own, open_own, read_own
from tipsv2.evaluation.shared.ranking import Ranking, interval, rank
from tipsv2.records import fingerprint

if TYPE_CHECKING:
    from tipsv2.network.encoder import Encoder

RANKS = (1, 5, 10)
SHOWN = 4  # finds in the picture
NAMED = 5  # images left out that are named


def evaluate(
    encoder: Encoder,
    data: str,
    resolution: int,
    cls: str | None = None,
    shape: str = "aspect",
    limit: int | None = None,
    out: Path | None = None,
    progress: bool = True,
    role: str | None = None,
    columns: Sequence[str] = (),
) -> dict:
    """Score an encoder on a data set that `layouts.open_data` finds, or on anybody's collection (`own.open_own`, which
    takes role and columns); the other arguments are `retrieval.evaluate`'s.

    cls: default the token that is trained for such captions in a collection, else "cls".
    Returns: {"task", "data", "model", "resolution", "shape", "images", "texts", "cls": {...}, "caption_cls": {...},
        "chance": {...}, "interval": {...}, "fingerprint", "seconds"}, the inner dicts with "i2t_r1", "i2t_r5",
        "i2t_r10", "t2i_r1", ... in [0, 1]; "interval" has those of `cls`'s "i2t_r1" and "t2i_r1". Of a collection also
        "captions", how many texts of which role, "repeated", how many of them another image has, too, and "left_out",
        how many images or rows could not be used; the reasons of some go to stderr.
    Raises ValueError for data that are not there, and, but not for a collection, ImageError for a damaged image.
    """
    if is_own("retrieval", data):
        own = open_own(data, role, columns)
        split, left_out = read_own(own, limit)
        cls = cls or TRAINED_FOR[own.role]
    elif role or columns:
        raise ValueError(f"{data} is a known data set with its own captions: leave --captions and --data-columns out.")
    else:
        split, left_out, cls = open_data("retrieval", data), None, cls or "cls"
    samples = split.samples[: limited(len(split.samples), limit)]
    started = time.perf_counter()
    captions = fingerprint(_with_captions(split.samples))  # else those of a corrected file would be the old ones'
    with keep(out, encoder, split, task="retrieval", resolution=resolution, shape=shape, captions=captions) as partial:
        images = embed_images(encoder, samples, partial, resolution, shape, progress, left_out=left_out)
        samples = [sample for sample in samples if sample.name not in (left_out or ())]
        texts, owner = embed_captions(encoder, samples, partial, progress)
    said = [text for sample in samples for text in sample.truth()]
    answers = _answers(range(len(said)) if left_out is None else said, owner)
    ways: dict[str, dict[str, Ranking]] = {
        token: {
            "i2t": rank(images[token], texts, answers["i2t"]),
            "t2i": rank(texts, images[token], answers["t2i"]),
        }
        for token in CLS_TOKENS
    }
    scores = {
        token: {f"{way}_r{k}": round(float((r.first < k).mean()), 4) for way, r in both.items() for k in RANKS}
        for token, both in ways.items()
    }
    hits = np.bincount(owner, ways[cls]["t2i"].first < 1)
    intervals = {"i2t_r1": interval(ways[cls]["i2t"].first < 1), "t2i_r1": interval(hits, np.bincount(owner))}
    if out is not None:
        write_queries(out / "worst_queries.png", _worst(samples, said, owner, ways[cls]))
    return {
        "task": "retrieval", "data": data, "model": encoder.info.name, "resolution": resolution, "shape": shape,
        "images": len(samples), "texts": len(texts), **_of_collection(samples, answers["t2i"], left_out),
        **scores, "chance": _chance(answers["i2t"], len(texts), "i2t") | _chance(answers["t2i"], len(samples), "t2i"),
        "interval": {name: low_high for name, low_high in intervals.items() if low_high},
        "fingerprint": fingerprint(_with_captions(samples)),
        "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip


def _with_captions(samples: Sequence[SampleLike]) -> Iterator[str]:
    """Each image's name and its captions."""
    for sample in samples:
        yield from (sample.name, *sample.truth())


def _answers(texts: Sequence[Hashable], owner: np.ndarray) -> dict[str, list[np.ndarray]]:
    """The numbers of the right candidates: of each image the texts that equal one of its own ("i2t"), of each text the
    images that have it ("t2i"). owner: int64 [T], whose each text is.
    """
    equal: dict[Hashable, list[int]] = {}
    own: list[list[np.ndarray]] = [[] for _ in range(owner.max() + 1)]
    for number, text in enumerate(texts):
        equal.setdefault(text, []).append(number)
    numbers = {text: np.array(places) for text, places in equal.items()}
    for text, image in zip(texts, owner, strict=True):
        own[image].append(numbers[text])
    return {
        "i2t": [np.unique(np.concatenate(places)) for places in own],
        "t2i": [np.unique(owner[numbers[text]]) for text in texts],
    }


def _of_collection(samples: Sequence, having: Sequence[np.ndarray], left_out: dict[str, str] | None) -> dict:
    """What a collection's record also says; having: the images of each text. Of a known data set nothing."""
    if left_out is None:
        return {}
    if left_out:
        some = "\n".join(f"  {why}" for why in list(left_out.values())[:NAMED])
        print(f"left out, since they cannot be used: {len(left_out)}, such as\n{some}", file=sys.stderr)
    captions: dict[str, int] = {}
    for sample in samples:
        captions[sample.role] = captions.get(sample.role, 0) + len(sample.truth())
    return {"captions": captions, "repeated": sum(len(images) > 1 for images in having), "left_out": len(left_out)}


def _chance(right: Sequence[np.ndarray], candidates: int, way: str) -> dict[str, float]:
    """Recalls of a random order, each query with so many right ones among the candidates."""
    counts, many = np.unique([len(numbers) for numbers in right], return_counts=True)
    numbers = {}
    for k in RANKS:
        # A query's chance depends on how many of its candidates are right, so one row a count is enough.
        rows = [chance_recall_at_k(np.arange(candidates)[None] < count, k) for count in counts]
        numbers[f"{way}_r{k}"] = round(float(np.average(rows, weights=many)), 4)
    return numbers


def _worst(
    samples: Sequence[SampleLike], said: Sequence[str], owner: np.ndarray, both: dict[str, Ranking]
) -> list[Query]:
    """The images whose captions stand deepest with what stood before, then the captions whose image does."""
    rows = []
    for k in worst(both["i2t"].first, 3):
        finds = [(samples[owner[n]].image, said[n]) for n in both["i2t"].nearest[k][:SHOWN]]
        rows.append(Query(samples[k].image, f"image to text: {samples[k].truth()[0]}", finds))
    for k in worst(both["t2i"].first, 3):
        finds = [(samples[n].image, samples[n].truth()[0]) for n in both["t2i"].nearest[k][:SHOWN]]
        rows.append(Query(samples[owner[k]].image, f"text to image: {said[k]}", finds))
    return rows
