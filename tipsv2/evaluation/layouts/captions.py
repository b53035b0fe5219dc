"""Images with captions for retrieval: COCO (2017 files, or Karpathy's 5k test), Flickr30K, DOCCI.

    python -m tipsv2 evaluate retrieval --data coco-karpathy:/data/coco --model opentips-nano

A COCO or Flickr30K image counts with its first five captions, as in CLIP's and everybody's tables since (a few have
six or seven): 5000 images with 25 000 captions, and 1000 with 5000.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tipsv2.evaluation.layouts import Layout, Sample, Split, known
from tipsv2.evaluation.layouts.label_files import part_of
from tipsv2.labelled.annotations import Images, read_json, read_json_lines, take

CAPTIONS = 5  # of an image that count
FLICKR_FOLDERS = ("flickr30k-images", "flickr30k_images", "images")  # what the archive and its copies call it


def open_coco(task: str, root: Path, part: str) -> Split:
    """The 2017 files: every image of the part with its first captions."""
    part_of(part, {"val": "val", "train": "train"})
    path = root / "annotations" / f"captions_{part}2017.json"
    content = read_json(path)
    said: dict[int, list[str]] = {}
    for row in take(content, "annotations", path):
        said.setdefault(take(row, "image_id", path), []).append(take(row, "caption", path))
    rows = (
        (take(row, "file_name", path), said.get(take(row, "id", path), [])) for row in take(content, "images", path)
    )
    return Split("coco", part, captioned(rows, Images(root / f"{part}2017", path)))


def open_karpathy(task: str, root: Path, part: str) -> Split:
    """Karpathy's split of COCO 2014 (arXiv 1412.2306): dataset_coco.json beside val2014 and train2014."""
    path = root / "dataset_coco.json"
    rows = _karpathy(path, part)
    images = ((f"{take(row, 'filepath', path)}/{take(row, 'filename', path)}", _raw(row, path)) for row in rows)
    return Split("coco-karpathy", part, captioned(images, Images(root, path)))


def open_flickr(task: str, root: Path, part: str) -> Split:
    """Karpathy's split of Flickr30K: dataset_flickr30k.json beside the folder of images."""
    path = root / "dataset_flickr30k.json"
    folder = next((root / name for name in FLICKR_FOLDERS if (root / name).is_dir()), None)
    if folder is None:
        raise ValueError(f"'{root}' has none of the folders {', '.join(FLICKR_FOLDERS)}: unpack the images there.")
    images = ((take(row, "filename", path), _raw(row, path)) for row in _karpathy(path, part))
    return Split("flickr30k", part, captioned(images, Images(folder, path)))


def open_docci(task: str, root: Path, part: str) -> Split:
    """DOCCI (arXiv 2404.19753): one long description an image."""
    path = root / "docci_descriptions.jsonlines"
    rows = read_json_lines(path)
    part_of(part, {take(row, "split", path): path for row in rows})
    images = ((take(row, "image_file", path), [take(row, "description", path)]) for row in rows if row["split"] == part)
    return Split("docci", part, captioned(images, Images(root / "images", path)))


def captioned(rows: Iterable[tuple[str, Sequence[str]]], images: Images) -> list[Sample]:
    """(name of an image, its captions) -> samples. Raises ValueError for an image that is not there or has no text."""
    samples = []
    for name, written in rows:
        texts = tuple(text.strip() for text in written if text.strip())[:CAPTIONS]
        if not texts:
            raise ValueError(f"'{images.annotations}' has no caption for the image {name}.")
        samples.append(Sample(name, images(name), known(texts)))
    return samples


def _karpathy(path: Path, part: str) -> list[dict]:
    rows = take(read_json(path), "images", path)
    part_of(part, {take(row, "split", path): path for row in rows})
    return [row for row in rows if row["split"] == part]


def _raw(row: dict, path: Path) -> list[str]:
    return [take(sentence, "raw", path) for sentence in take(row, "sentences", path)]


_SPLITS = "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip"
LAYOUTS = (
    Layout(
        name="coco",
        title="COCO 2017 captions",
        tasks=("retrieval",),
        part="val",
        tree="  annotations/captions_val2017.json\n  val2017/000000000139.jpg ...",
        source="https://cocodataset.org/#download (2017 Val images, 2017 Train/Val annotations)",
        marks=("annotations/captions_val2017.json", "val2017"),
        open=open_coco,
    ),
    Layout(
        name="coco-karpathy",
        title="COCO 2014, Karpathy's 5k test",
        tasks=("retrieval",),
        part="test",
        tree="  dataset_coco.json\n  val2014/COCO_val2014_000000000042.jpg ...",
        source=f"{_SPLITS} (the json) and https://cocodataset.org/#download (2014 Val images)",
        marks=("dataset_coco.json", "val2014"),
        open=open_karpathy,
    ),
    Layout(
        name="flickr30k",
        title="Flickr30K, Karpathy's 1k test",
        tasks=("retrieval",),
        part="test",
        tree="  dataset_flickr30k.json\n  flickr30k-images/1007129816.jpg ...",
        source=f"{_SPLITS} (the json) and https://shannon.cs.illinois.edu/DenotationGraph (the images, on request)",
        marks=("dataset_flickr30k.json",),
        open=open_flickr,
    ),
    Layout(
        name="docci",
        title="DOCCI",
        tasks=("retrieval",),
        part="test",
        tree="  docci_descriptions.jsonlines\n  images/test_00000.jpg ...",
        source="https://google.github.io/docci/#downloads",
        marks=("docci_descriptions.jsonlines", "images"),
        open=open_docci,
    ),
)
