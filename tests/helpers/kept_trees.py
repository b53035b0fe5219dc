"""What `train keep` and a run on kept crops need, tiny and made on the spot: pictures with labels, pictures with
classes, a table of names, a classifier, a sentence encoder, an encoder of three blocks.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import BertConfig, BertModel
from unimodal import TINY, randomise, word_tokenizer

from train.data.kept.keep import Settings, keep
from train.foundations import efficientnet_lite
from train.network.tokenizer import train_tokenizer
from train.network.towers import build
from train.recipe import recipes
from train.recipe.overrides import override
from train.recipe.settings import Recipe
from train.run import checkpoint

CLASSES = ("dog", "cat", "car", "grass", "sky", "snow")
SMALL = [
    "stages.0.steps=4", "warmup=1", "precision=fp32", "trackers=", "workers=0", "kept.hidden=32", "tuning.layers=1",
    "save_every=2", "attention=eager",
]  # fmt: skip


def labelled(folder: Path, count: int = 3) -> Path:
    """`count` pictures whose upper part is sky (1), the lower grass (2), a dog (5) in it, a strip unlabelled (0)."""
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for k in range(count):
        labels = np.full((60, 80), 1, np.uint8)
        labels[30:] = 2
        labels[20 + k : 50, 10 + 5 * k : 40] = 5
        labels[:, 75:] = 0
        noise = rng.integers(0, 40, (60, 80, 3), dtype=np.uint8)
        colours = np.array([[0, 0, 0], [80, 120, 200], [60, 180, 60], [0, 0, 0], [0, 0, 0], [150, 90, 40]], np.uint8)
        Image.fromarray(colours[labels] + noise).save(folder / "images" / f"{k}.png")
        Image.fromarray(labels).save(folder / "labels" / f"{k}.png")
    (folder / "classes.tsv").write_text("value\tname\n1\tsky\n2\tgrass\n5\tdog\n")
    return folder


def named(folder: Path, count: int = 3) -> Path:
    """Pictures whose names begin with the number of a class."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for k in range(count):
        pixels = rng.integers(0, 255, (64, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{k:03}_n{k}_{CLASSES[k]}.png")
    return folder


def table(place: Path) -> Path:
    """names.jsonl of CLASSES: two animals, three that are none, and everything is an entity; nouns.jsonl beside it."""
    entity, animal, stuff = ({"name": n, "key": f"{n}%1"} for n in ("entity", "animal", "stuff"))
    above = [[animal], [animal], [], [stuff], [], [stuff]]
    rows = [
        {"index": k, "name": name, "lemmas": [name, f"a {name}"], "hypernyms": [*above[k], entity]}
        for k, name in enumerate(CLASSES)
    ]
    place.write_text("".join(json.dumps(row) + "\n" for row in rows))
    nouns = [
        {"key": "animal%1", "lemmas": ["animal", "two cats"], "hypernyms": ["entity%1"]},
        {"key": "stuff%1", "lemmas": ["stuff"], "hypernyms": ["entity%1"]},
        {"key": "dog%1:05:00::", "lemmas": ["dog", "hund"], "hypernyms": ["animal%1"]},
        {"key": "puppy%1:05:00::", "lemmas": ["puppy", "whelp"], "hypernyms": ["dog%1:05:00::"]},
        {"key": "lassie%1", "lemmas": ["Lassie"], "hypernyms": ["dog%1:05:00::"]},
        {"key": "grass%1:20:00::", "lemmas": ["grass", "the grass"], "hypernyms": ["stuff%1"]},
        {"key": "grass%1:06:00::", "lemmas": ["pot", "grass"], "hypernyms": []},
    ]
    place.with_name("nouns.jsonl").write_text("".join(json.dumps(row) + "\n" for row in nouns))
    return place


def save_all(top: Path) -> dict[str, Path]:
    """Every model and every folder of pictures, by name, in `top`."""
    torch.manual_seed(2)
    tower = ["tower.width=48", "tower.vision_layers=3", "tower.text_layers=1", "tower.heads=2", "tower.table=56"]
    words = ["a dog on the grass, under the sky", "two cats in the snow"] * 20
    model = build(override(recipes.get("smoke"), tower), 400)
    checkpoint.export(top / "base", randomise(model), train_tokenizer(words, 400))
    efficientnet_lite.save(efficientnet_lite.EfficientNetLite("tf_efficientnet_lite0", len(CLASSES)), top / "lite")
    tokenizer = word_tokenizer()
    bert = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, pad_token_id=3, **TINY)
    randomise(BertModel(bert)).save_pretrained(top / "sentences")
    tokenizer.save_pretrained(top / "sentences")
    labelled(top / "labelled")
    named(top / "named")
    table(top / "names.jsonl")
    return {path.name: path for path in top.iterdir()}


def keep_all(folders: dict[str, Path], out: Path) -> str:
    """Both folders of pictures kept below `out`; returns the address of a run's data."""
    base = str(folders["base"])
    keep(Settings(f"folder:{folders['labelled']}", base, blocks=2, size=56, crops=2), out / "labelled", show=False)
    soft = {"classes": str(folders["names.jsonl"]), "classifier": str(folders["lite"]), "classifier_size": 64}
    keep(Settings(str(folders["named"]), base, blocks=2, size=42, crops=1, **soft), out / "named", show=False)
    return f"kept:{out / 'labelled'}:4,{out / 'named'}:2:0.5"


def recipe(folders: dict[str, Path], source: str, *fields: str) -> Recipe:
    """Recipe `photos` at the size of a test."""
    given = [
        f"data.source={source}",
        f"tuning.base={folders['base']}",
        f"sfclip.text_teacher={folders['sentences']}",
        f"kept.names={folders['names.jsonl']}",
    ]
    return override(recipes.get("photos"), [*SMALL, *given, *fields])
