"""Embed a whole collection into a folder that any number of processes fill together and that goes on after a kill.

python -m tipsv2 embed photos --out embedded --model google/tipsv2-b14
torchrun --nproc-per-node 2 -m tipsv2 embed photos --out embedded --patches --captions

Worker k of n takes the parts of the data (`tipsv2.collections.parts`) that are its own and not in the folder yet
(`tipsv2.collections.store`). Workers know nothing of each other, so one that was killed is simply started again, also
with another n; two that do the same part write the same file. What is known of an unfinished part is kept every minute
(`tipsv2.collections.embedding_pieces`).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tipsv2.collections.data_state import replaced, rewritten
from tipsv2.collections.embedding_pieces import Pieces
from tipsv2.collections.parts import End, Row, address, open_collection
from tipsv2.collections.prefetch import ahead
from tipsv2.collections.store import VECTORS, Folder, Part

if TYPE_CHECKING:
    import torch

    from tipsv2.network.encoder import Encoder

BATCH_SIZE = 32
SHARD_SIZE, SHARD_SIZE_PATCHES = 1000, 200  # images; patch grids of B/14 at 448 px take 1.5 MB each
KEEP_SECONDS = 60.0  # of work that a kill costs, where a part takes longer


@dataclass(frozen=True)
class Prepared:
    """A row as the network wants it: pixels [3, H, W], or the problem it has."""

    row: Row
    name: str
    captions: Mapping[str, tuple[str, ...]]
    size: tuple[int, int] = (0, 0)  # (H, W) of the picture that came in
    pixels: torch.Tensor | None = None
    problem: str = ""
    known: bool = False  # embedded already, in a piece of its part

    @property
    def id(self) -> str:
        """The name, and the number of the row so that equal names do not clash."""
        return f"{self.name}#{self.row.place}"


def embed(
    encoder: Encoder,
    data: str | Path,
    out: str | Path,
    patches: str = "",
    captions: bool = False,
    resolution: int | None = None,
    batch_size: int = BATCH_SIZE,
    shard_size: int | None = None,
    columns: Mapping[str, str] | None = None,
    limit: int | None = None,
    worker: tuple[int, int] = (1, 1),
    threads: int | None = None,
    progress: bool = True,
) -> dict:
    """Embed `data` into the folder `out`, or this worker's share of what is missing there; returns the manifest.

    data: see `tipsv2.collections.parts.open_collection`, also for columns and limit.
    patches: "values" or "final" also keeps patch grids, in float16.   captions: also embeds the captions.
    resolution: short side in pixels, the aspect ratio kept; by default the training resolution.
    batch_size: images of one size that go through together.
    shard_size: images in a file; by default 1000, with patches 200. A kill costs a minute at most.
    worker: (k, n), the k-th of n that share the work.   threads: that read, decode and resize ahead.
    Images that cannot be read are listed and left out. Raises ValueError or OSError, one sentence, where the data
    cannot be read or are others than before, or the folder has other settings or cannot be written; what was finished
    stays. Parts that are torn are made again.
    """
    from tqdm.auto import tqdm

    from tipsv2.images import fit_size

    number, workers = worker[0] - 1, worker[1]
    if not 0 <= number < workers:
        raise ValueError(f"There is no worker {worker[0]} of {workers}: they are numbered from 1.")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}.")
    if patches not in ("", "values", "final"):
        raise ValueError(f"There are no patch features '{patches}': choose values or final, or '' for none.")
    resolution = encoder.info.resolution if resolution is None else resolution
    side = fit_size(1, 1, resolution, encoder.patch_size)[0]
    shard_size = (SHARD_SIZE_PATCHES if patches else SHARD_SIZE) if shard_size is None else shard_size
    collection = open_collection(data, shard_size, columns, limit, captions)
    settings = {
        "data": address(data),
        "columns": dict(columns or {}),
        "rows": collection.count,
        "shards": collection.shards,
        "fingerprint": collection.fingerprint(),
        "weights": encoder.digest,
        "dtype": encoder.precision,
        "resolution": resolution,
        "patches": patches,
        "captions": captions,
        "shard_size": shard_size,
    }
    state = collection.state()
    folder = Folder(out, settings, _about(encoder) | {"data_state": state})
    notes = [*collection.pairs.notes] if not number else []
    notes += _compare(folder, state, captions)
    notes += [
        f"{folder.path / file} is torn ({why}): its part is embedded again." for file, why in folder.torn().items()
    ]
    folder.reopen(collection.shards)
    done = folder.done()
    pieces = Pieces(folder, done)

    def prepare(item: Row | End) -> Prepared | End:
        if isinstance(item, End):
            return item
        if pieces.known(item.shard, item.number):
            pair = item.load(side) if captions else None
            return Prepared(item, pair.name if pair else "", pair.captions if pair else {}, known=True)
        return _prepare(item, side, resolution, encoder.patch_size)

    items = ahead(
        collection.rows(number, workers, done, folder.finished()), prepare, threads or _threads(), 2 * batch_size
    )
    bar = tqdm(
        total=collection.missing(number, workers, done),
        unit="image",
        desc=f"part {number + 1} of {workers}" if workers > 1 else "images",
        disable=not progress,
        smoothing=0.05,
    )
    for note in notes if progress else ():
        tqdm.write(note, file=sys.stderr)
    with closing(items), bar:
        while True:
            ends: list[End] = []
            part = _encode(encoder, _until_end(items, ends), patches, captions, batch_size, bar.update, pieces)
            if not ends:
                break
            folder.write(ends[0], part)
            pieces.drop(ends[0].shard, ends[0].part)
    manifest = folder.close(collection.shards)
    if manifest["complete"]:
        pieces.close()
    return manifest


def _compare(folder: Folder, state: Mapping, captions: bool) -> list[str]:
    """Notes on data that may have been replaced since the folder was made. Raises ValueError where they were."""
    before, data = folder.manifest.get("data_state", {}), folder.manifest["settings"]["data"]
    if not captions:
        before, state = ({k: v for k, v in recorded.items() if k != "captions"} for recorded in (before, state))
    if others := replaced(before, state):
        raise ValueError(
            f"'{folder.path}' holds embeddings of {data} as it was, and its {' and '.join(others)} are others now: "
            "restore them, or choose another --out."
        )
    if rewritten(before, state):
        return [f"{data}: its files were written anew since this was begun; names, sizes and beginnings are the same."]
    return []


def _prepare(row: Row, side: int, resolution: int, patch_size: int) -> Prepared:
    from tipsv2.images import ImageError, fit_size, to_tensor

    pair = row.load(side)
    try:
        image = pair.open()
    except ImageError as error:
        return Prepared(row, pair.name, pair.captions, problem=str(error))
    pixels = to_tensor(image, fit_size(image.width, image.height, resolution, patch_size))
    problem = "" if pair.captions else pair.problem
    return Prepared(row, pair.name, pair.captions, (image.height, image.width), pixels, problem)


def _until_end(items: Iterator[Prepared | End], ends: list[End]) -> Iterator[Prepared]:
    """The rows of the next part; its End goes to `ends`, which stays empty where there is no part any more."""
    for item in items:
        if isinstance(item, End):
            ends.append(item)
            return
        yield item


def _encode(
    encoder: Encoder, rows: Iterable[Prepared], patches: str, captions: bool, batch_size: int,
    advance: Callable[[int], object], pieces: Pieces,
) -> Part:  # fmt: skip
    """A part's rows -> its embeddings, in the order of the rows. What is done meanwhile goes to `pieces` by time, and
    where it is interrupted.
    """
    from torch.nn.functional import normalize

    from tipsv2.images import by_size

    part = Part()
    texts: list[tuple[Prepared, str, str]] = []
    kind = {"values": "values", "final": "patches"}.get(patches)  # as the encoder calls them
    wanted = (*VECTORS, kind) if kind else VECTORS

    def trouble(row: Prepared, what: str, problem: str) -> None:
        where = {"id": row.id, "shard": row.row.shard, "row": row.row.number}
        part.unreadable.append({**where, "what": what, "problem": problem})

    images = troubles = 0  # so many of them are in pieces
    saved, first = time.monotonic(), True

    def keep() -> None:
        nonlocal images, troubles, saved
        fresh = Part(part.images[images:], [], {}, part.unreadable[troubles:])
        fresh.patches = {image["id"]: part.patches[image["id"]] for image in fresh.images} if kind else {}
        pieces.add(fresh)
        images, troubles, saved = len(part.images), len(part.unreadable), time.monotonic()

    def readable() -> Iterator[tuple[Prepared, torch.Tensor]]:
        nonlocal first, images, troubles
        for row in rows:
            if first:
                known, first = pieces.take(row.row.shard, row.row.number), False
                part.images, part.patches, part.unreadable = known.images, known.patches, known.unreadable
                images, troubles = len(part.images), len(part.unreadable)
                lost = {trouble["row"] for trouble in part.unreadable if trouble["what"] == "image"}
            if row.known:
                if row.row.number not in lost:
                    texts.extend((row, role, text) for role, written in row.captions.items() for text in written)
                advance(1)
            elif row.pixels is None:
                trouble(row, "image", row.problem)
                advance(1)
            else:
                if captions and row.problem:
                    trouble(row, "captions", row.problem)
                texts.extend((row, role, text) for role, written in row.captions.items() for text in written)
                yield row, row.pixels

    try:
        for batch, pixels in by_size(readable(), batch_size):
            outputs = encoder.encode_pixels(pixels, only=wanted)
            vectors = {name: normalize(outputs[name], dim=-1).cpu().numpy() for name in VECTORS}
            grids = outputs[kind].half().cpu().numpy() if kind else ()
            for index, row in enumerate(batch):
                about = {"id": row.id, "name": row.name, "shard": row.row.shard, "row": row.row.number}
                about |= {"height": row.size[0], "width": row.size[1]}
                part.images.append(about | {name: values[index] for name, values in vectors.items()})
                if kind:
                    part.patches[row.id] = grids[index]
            advance(len(batch))
            if time.monotonic() - saved > KEEP_SECONDS:
                keep()
    except KeyboardInterrupt:
        keep()
        raise
    part.images.sort(key=lambda image: image["row"])
    if captions and texts:
        for (row, role, text), vector in zip(texts, _embed_texts(encoder, [text for *_, text in texts]), strict=True):
            if isinstance(vector, str):
                trouble(row, "caption", vector)
            else:
                part.captions.append({"id": row.id, "role": role, "text": text, "vector": vector})
    return part


def _embed_texts(encoder: Encoder, texts: list[str]) -> list:
    """A vector for each text, or the sentence that says why it has none."""
    try:
        return list(encoder.encode_text(texts).numpy())
    except ValueError as error:
        if len(texts) == 1:
            return [str(error)]
        half = len(texts) // 2
        return _embed_texts(encoder, texts[:half]) + _embed_texts(encoder, texts[half:])


def _about(encoder: Encoder) -> dict:
    from tipsv2.records import command, versions

    local = encoder.info.source in ("folder", "run", "checkpoint")
    return {
        "model": os.path.abspath(encoder.info.location) if local else encoder.info.name,
        "width": encoder.model.config.vision_config.hidden_size,
        "command": command(),
        "versions": versions(),
    }


def _threads() -> int:
    return max(1, min(8, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
