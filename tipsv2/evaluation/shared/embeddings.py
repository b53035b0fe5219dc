"""Images and texts of a data set as unit rows, kept as they come, so that a killed evaluation goes on where it was.

    with keep(out, encoder, split, task="knn", resolution=448, shape="aspect") as partial:
        rows = embed_images(encoder, split.samples, partial, 448)["cls"]        # [N, D]
        texts, owner = embed_captions(encoder, split.samples, partial)          # [T, D], whose image's each is

Pictures are opened (or drawn) while the encoder works through them, never held: only their embeddings are.
Two shapes an image can have for the network, its short side `resolution` pixels in both:
aspect  its own, in whole patches: what this library does everywhere
square  squeezed to a square without cropping: what transformers' processor for these models does
Which of them the paper's tables used is not published.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from tipsv2.evaluation.layouts import SampleLike, Split
from tipsv2.evaluation.shared.partial import PARTIAL, Partial
from tipsv2.evaluation.shared.splits import BATCH_SIZE, TEXT_CHUNK
from tipsv2.images import ImageError, fit_size, open_image, to_tensor
from tipsv2.records import fingerprint, identity

if TYPE_CHECKING:
    from tipsv2.network.encoder import Encoder

CLS_TOKENS = ("cls", "caption_cls")  # trained against web alt-texts, and against synthetic captions
TRAINED_FOR = {"web": "cls", "short": "caption_cls", "detailed": "caption_cls"}  # role of captions -> its token
SHAPES = ("aspect", "square")
WAITING = 8 * BATCH_SIZE  # images that wait for others of their size
CHUNK = 256  # images a file of `Partial`; there may be a million


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of every task that compares CLS embeddings."""
    parser.add_argument(
        "--cls", choices=CLS_TOKENS, default=argparse.SUPPRESS,
        help="the embedding: cls, trained against alt-texts, or caption_cls, against captions (default: cls)",
    )  # fmt: skip
    parser.add_argument(
        "--shape", choices=SHAPES, default=argparse.SUPPRESS,
        help="keep an image's aspect, or squeeze it to a square as transformers does (default: aspect)",
    )  # fmt: skip


def keep(out: Path | None, encoder: Encoder, *splits: Split, **settings: object) -> Partial:
    """What is known of the splits' embeddings, kept below out / "partial" and on the disk alone, or without `out` in
    memory.

    settings: what else they depend on, beside the encoder and the whole splits, so that `limit` may grow.
    Raises ValueError where `out` holds those of other settings, of another folder's data too.
    """
    if out is None:
        return Partial(None, {})
    prints = [(s.origin, fingerprint((sample.name for sample in s.samples), s.classes)) for s in splits]
    return Partial(out / PARTIAL, {"encoder": identity(encoder), "data": prints, **settings}, CHUNK, keep=False)


def embed_images(
    encoder: Encoder,
    samples: Sequence[SampleLike],
    partial: Partial,
    resolution: int,
    shape: str = "aspect",
    progress: bool = True,
    desc: str = "images",
    tokens: Sequence[str] = CLS_TOKENS,
    left_out: dict[str, str] | None = None,
) -> dict[str, torch.Tensor]:
    """The CLS embeddings of the samples' images: {"cls": [N, D], "caption_cls": [N, D]}, or of `tokens` those, float32
    rows of length one.

    Images that become equally large go through together.
    left_out: where it is given, an image that cannot be opened has no row, but its name and why in here.
    Raises ValueError for a shape that there is not, ImageError naming an image that cannot be opened.
    """
    if shape not in SHAPES:
        raise ValueError(f"shape={shape!r} is unknown: choose {' or '.join(SHAPES)}.")
    waiting: dict[tuple[int, int], list[tuple[str, torch.Tensor]]] = {}
    left = [sample for sample in samples if sample.name not in partial]

    with tqdm(
        total=len(samples), initial=len(samples) - len(left), unit="image", disable=not progress, desc=desc
    ) as bar:

        def run(size: tuple[int, int]) -> None:
            names, pixels = zip(*waiting.pop(size), strict=True)
            out = encoder.encode_pixels(torch.stack(pixels), only=tokens)
            rows = {token: F.normalize(out[token].float().cpu(), dim=-1).numpy() for token in tokens}
            for k, name in enumerate(names):
                partial.add(name, **{token: row[k] for token, row in rows.items()})
            bar.update(len(names))

        for sample in left:
            try:
                image = open_image(sample.image)
            except ImageError as error:
                if left_out is None:
                    raise
                left_out[sample.name] = str(error)
                bar.update()
                continue
            fitted = fit_size(image.width, image.height, resolution, encoder.patch_size)
            size = (resolution, resolution) if shape == "square" else fitted
            waiting.setdefault(size, []).append((sample.name, to_tensor(image, size)))
            if len(waiting[size]) == BATCH_SIZE:
                run(size)
            elif sum(map(len, waiting.values())) >= WAITING:
                run(max(waiting, key=lambda size: len(waiting[size])))
        for size in list(waiting):
            run(size)
    if left_out:
        usable = [sample for sample in samples if sample.name not in left_out]
        if not usable:
            raise ImageError(f"none of the images can be opened. {left_out[samples[0].name]}")
        samples = usable
    return {token: _gathered(samples, partial, token) for token in tokens}


def _gathered(samples: Sequence[SampleLike], partial: Partial, token: str) -> torch.Tensor:
    """Their embeddings [N, D], read one by one into the array: a million are gigabytes."""
    rows = np.empty((len(samples), len(partial[samples[0].name][token])), np.float32)
    for row, sample in zip(rows, samples, strict=True):
        row[:] = partial[sample.name][token]
    return torch.from_numpy(rows)


def embed_captions(
    encoder: Encoder, samples: Sequence[SampleLike], partial: Partial, progress: bool = True
) -> tuple[torch.Tensor, np.ndarray]:
    """All captions of the samples, whose `truth()` they are: rows [T, D] of length one, and the number of the sample
    that each belongs to, int64 [T].
    """
    left = [sample for sample in samples if _texts_of(sample) not in partial]
    done = len(samples) - len(left)
    with tqdm(total=len(samples), initial=done, unit="image", disable=not progress, desc="captions") as bar:
        for start in range(0, len(left), TEXT_CHUNK):
            chunk = left[start : start + TEXT_CHUNK]
            said = [sample.truth() for sample in chunk]
            rows = encoder.encode_text([text for texts in said for text in texts], "none")
            for sample, own in zip(chunk, rows.split([len(texts) for texts in said]), strict=True):
                partial.add(_texts_of(sample), rows=own.numpy())
            bar.update(len(chunk))
    rows = [partial[_texts_of(sample)]["rows"] for sample in samples]
    return torch.from_numpy(np.concatenate(rows)), np.repeat(np.arange(len(rows)), [len(own) for own in rows])


def _texts_of(sample: SampleLike) -> str:
    return f"captions of {sample.name}"
