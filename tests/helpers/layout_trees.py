"""Ten-image miniatures of the layouts of captions, classes and instances, of pictures that each have their own colour.

An encoder for them, `Colours`, sees nothing but the mean colour of an image, and reads a text as the colours it names:
what it finds can be computed by hand.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from PIL import Image

COLOURS = {  # no two at the same angle from a third, so that nothing hangs on rounding
    "red": (250, 20, 10),
    "green": (15, 240, 35),
    "blue": (5, 30, 245),
    "yellow": (235, 225, 20),
    "cyan": (25, 210, 230),
    "pink": (245, 40, 200),
    "white": (240, 235, 225),
    "orange": (255, 130, 30),
    "violet": (120, 10, 250),
    "lime": (140, 250, 60),
}
NAMES = tuple(COLOURS)


class Colours:
    """CLS 1 is an image's mean colour; CLS 2 is red whatever it shows. A text is the sum of the colours it names."""

    patch_size = 14
    dtype, device = torch.float32, torch.device("cpu")
    precision = "float32"
    info, digest = SimpleNamespace(name="colours", location="nowhere", resolution=28), "0"

    def __init__(self):
        self.seen = 0

    def encode_pixels(self, pixels, only=(), layer=None):
        self.seen += len(pixels)
        red = torch.tensor([1.0, 0, 0]).expand(len(pixels), 3)
        return {"cls": 3 * pixels.mean(dim=(2, 3)), "caption_cls": red}

    def encode_text(self, texts, templates="none", keep=False):
        rows = [sum(torch.tensor(COLOURS[name]).float() for name in NAMES if name in text) for text in texts]
        return F.normalize(torch.stack(rows), dim=-1)


def paint(path: Path, colour, size=(28, 28)) -> str:
    """A picture of exactly one colour, by its name or as RGB, whatever the file is called."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, COLOURS.get(colour, colour)).save(path, "PNG")
    return path.name


def write_json(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def said(name: str) -> list[str]:
    """Two captions of a picture in this colour, of which the second names another colour too."""
    return [f"a {name} card", f"a {name} card beside a {NAMES[(NAMES.index(name) + 1) % 10]} one"]


def coco(root: Path) -> Path:
    """COCO 2017: pictures wide and high."""
    images = [{"id": 7 * k, "file_name": f"{k:012}.jpg"} for k in range(10)]
    for k, name in enumerate(NAMES):
        paint(root / "val2017" / f"{k:012}.jpg", name, (56, 28) if k % 2 else (28, 42))
    notes = [{"id": 0, "image_id": 7 * k, "caption": text} for k, name in enumerate(NAMES) for text in said(name)]
    write_json(root / "annotations/captions_val2017.json", {"images": images, "annotations": notes[::-1]})
    return root


def karpathy(root: Path, dataset: str, folder: str) -> Path:
    """dataset_coco.json or dataset_flickr30k.json; a picture of another part, six captions at the first image."""
    rows = []
    for k, name in enumerate([*NAMES, "red"]):
        texts = said(name) + (["a red card"] * 3 + ["a blue card"] if k == 0 else [])
        sentences = [{"raw": f" {text}\n", "tokens": text.split()} for text in texts]
        row = {"filename": paint(root / folder / f"{k}.png", name), "split": "test" if k < 10 else "train"}
        rows.append(row | {"sentences": sentences} | ({"filepath": folder} if dataset == "coco" else {}))
    write_json(root / f"dataset_{dataset}.json", {"images": rows, "dataset": dataset})
    return root


def docci(root: Path) -> Path:
    """DOCCI: a description each."""
    rows = []
    for k, name in enumerate(NAMES):
        file = paint(root / "images" / f"test_{k:05}.jpg", name)
        rows.append({"example_id": file[:-4], "split": "test", "image_file": file, "description": said(name)[0]})
    paint(root / "images" / "train_00000.jpg", "red")
    rows.append({"split": "train", "image_file": "train_00000.jpg", "description": "a red card"})
    (root / "docci_descriptions.jsonlines").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return root


CLASSES = {"n00000001": "red", "n00000002": "green", "n00000003": "blue", "n00000004": "cyan", "n00000005": "pink"}


def imagenet(root: Path, kaggle: bool = False) -> Path:
    """Five classes with two pictures each to test and to train on. One "red" test picture is green, one "blue" cyan."""
    base = root / "ILSVRC/Data/CLS-LOC" if kaggle else root
    solutions = ["ImageId,PredictionString"]
    for number, (folder, name) in enumerate(CLASSES.items()):
        odd = {"red": "green", "blue": "cyan"}.get(name, name)
        for k, shown in enumerate((name, odd)):
            paint(base / "train" / folder / f"{folder}_{k}.JPEG", name)
            file = f"ILSVRC2012_val_{2 * number + k:08}"
            paint(base / "val" / ("" if kaggle else folder) / f"{file}.JPEG", shown)
            solutions.append(f"{file},{folder} 1 2 3 4")
    (root / "LOC_synset_mapping.txt").write_text("\n".join(f"{k} {v}, another name" for k, v in CLASSES.items()))
    if kaggle:
        (root / "LOC_val_solution.csv").write_text("\n".join(solutions))
    return root


def uned(root: Path) -> Path:
    """Two domains: cars, whose queries are their own index, and met with an index, a query of two instances, and a
    folder that unzip renamed; a third has lists but no images.
    """

    def rows(domain, folder, shown):
        found = []
        for k, (colour, number) in enumerate(shown):
            paint(root / "images" / domain / folder / f"{k}.jpg", colour)
            found.append({"path": f"{domain}/{folder}/{k}.jpg", "class_id": number, "domain": domain})
        return found

    cars = [("red", 0), ((250, 30, 0), 0), ("green", 1), ((0, 120, 0), 1), ("blue", 2), ((255, 60, 0), 2)]
    write_json(root / "info_files/cars/test.json", rows("cars", "car_ims", cars))
    write_json(root / "info_files/met/test.json", rows("met", "test_met", [("yellow", [3, 4]), ((0, 0, 200), 5)]))
    index = rows("met", "#U7535", [("cyan", 4), ((255, 250, 0), 3), ("pink", 5), ((0, 10, 255), 6)])
    write_json(root / "info_files/met/index.json", [r | {"path": r["path"].replace("#U7535", "\u7535")} for r in index])
    write_json(root / "info_files/sop/test.json", [{"path": "sop/chair/0.jpg", "class_id": 1}])
    return root
