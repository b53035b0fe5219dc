"""Search embeddings by words or by a picture: exact cosines with every image, and the best as one picture.

python -m tipsv2 search embedded "a dog on grass" --top 20 --out dogs.png
python -m tipsv2 search embedded --image dog.jpg

Found is what a product with every row finds; of many rows it is narrowed down first (tipsv2/collections/nearest.py).
Rows are read from the memory map in pieces, so that memory does not grow with the folder.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tipsv2.collections.nearest import Nearest
from tipsv2.collections.store import VECTORS, lacking, read_manifest

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from tipsv2.network.encoder import Encoder

SIDE = 224  # pixels of a picture on the sheet


@dataclass(frozen=True)
class Hit:
    """An image and its cosine with what was asked for; where it is in the data: `row` of `shard`, from 0."""

    id: str
    name: str
    score: float
    shard: int
    row: int


def search(
    folder: str | Path, query: np.ndarray, top: int = 10, vectors: str = "cls", progress: bool = False
) -> list[Hit]:
    """The `top` images of a folder of embeddings with the greatest cosine to `query` [D], a vector of length one; best
    first, equal ones in the order of the data.

    vectors: "cls", made to be compared with text, or "caption_cls". progress: a bar where a copy is made first.
    Raises ValueError where there is nothing to search.
    """
    if top < 1:
        raise ValueError(f"--top {top}: ask for at least one image.")
    nearest = Nearest(folder, vectors, progress=progress)
    best, scores = nearest.find(query, top)
    rows = nearest.table.select(best).select_columns(["id", "name", "shard", "row"])
    return [Hit(**row, score=float(score)) for row, score in zip(rows, scores, strict=True)]


def draw(folder: str | Path, hits: list[Hit]) -> np.ndarray:
    """The hits' pictures with their scores as one, uint8 [H, W, 3]; they are opened from the data that was embedded.

    Raises ValueError (or ImageError, its kind) where that is not there any more.
    """
    from tipsv2.analysis.render import contact_sheet
    from tipsv2.collections.parts import open_collection

    made = read_manifest(folder)["settings"]
    limit = made["rows"] if made["data"] == "scenes" else None
    collection = open_collection(made["data"], made["shard_size"], made["columns"], limit)
    pictures = []
    for hit in hits:
        pair = collection.pair(hit.shard, hit.row, SIDE)
        if pair.name != hit.name:
            raise ValueError(f"{made['data']} has changed: where {hit.name} was, there is {pair.name} now.")
        picture = pair.open()
        picture.thumbnail((SIDE, SIDE))
        pictures.append(np.asarray(picture))
    return contact_sheet(pictures, [f"{hit.score:.3f}  {Path(hit.name).name}" for hit in hits], side=SIDE)


def load_same(folder: str | Path, model: str = "", device: str = "auto") -> Encoder:
    """The encoder that a folder of embeddings was made with, from `model` where it has another name or place now.

    Raises ValueError where its weights are others.
    """
    from tipsv2.network.encoder import load

    manifest = read_manifest(folder)
    made = manifest["settings"]
    encoder = load(model or manifest["model"], device, made["dtype"])
    if encoder.digest != made["weights"]:
        raise ValueError(
            f"'{folder}' was made with other weights than those of {model or manifest['model']}, so their vectors "
            "cannot be compared: name the same encoder (--model), or embed the data again."
        )
    return encoder


def add_command(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `search` to the command line. command: the function in tipsv2.__main__ that adds a sub-command."""
    parser = command(
        "search",
        run,
        "Find the images of a folder of embeddings that fit a phrase or a picture best.",
        'search embedded "a dog on grass" --top 20 --out dogs.png\n  python -m tipsv2 search embedded --image dog.jpg',
    )
    parser.add_argument("folder", metavar="DIR", help="what python -m tipsv2 embed has written")
    parser.add_argument("text", nargs="?", help="a phrase, in quotes if it has several words")
    parser.add_argument("--image", metavar="FILE", help="a picture instead of a phrase")
    parser.add_argument("--top", type=int, default=10, metavar="N", help="how many images (default: %(default)s)")
    parser.add_argument("--out", metavar="FILE", help="also write the images found as one picture")
    parser.add_argument(
        "--vectors", choices=VECTORS, default="cls", help="which embedding of the images (default: %(default)s)"
    )
    parser.add_argument("--model", default="", help="the same encoder, where it has moved (default: as in the folder)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default: auto)")


def run(options: argparse.Namespace) -> None:
    """The search command. Raises ValueError or OSError with one sentence for whoever typed it."""
    from PIL import Image

    from tipsv2.images import open_image

    if (options.text is None) == (options.image is None):
        raise ValueError("Give either a phrase or --image FILE to search for.")
    if options.out and Path(options.out).suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise ValueError(f"--out is a picture to write: call it something like found.png, not '{options.out}'.")
    image = open_image(options.image) if options.image else None  # before the model: a wrong path costs no loading
    manifest = read_manifest(options.folder)
    if gap := lacking(options.folder):
        print(f"only what is there is searched: {gap}", file=sys.stderr)

    from torch.nn.functional import normalize  # after what can be wrong: it takes seconds

    encoder = load_same(options.folder, options.model, options.device)
    if image is None:
        query = encoder.encode_text([options.text])[0]
    else:
        features = encoder.encode_image(image, manifest["settings"]["resolution"])
        query = normalize(getattr(features, options.vectors), dim=-1)
    hits = search(options.folder, query.numpy(), options.top, options.vectors, progress=True)
    print("score   id")
    for hit in hits:
        print(f"{hit.score:6.3f}  {hit.id}")
    if options.out:
        try:
            sheet = draw(options.folder, hits)
        except ValueError as error:
            print(f"no picture: {error}", file=sys.stderr)
            return
        Path(options.out).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sheet).save(options.out)
        print(f"written to {options.out}")
