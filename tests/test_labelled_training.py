"""Own labelled pictures to train on: their labels and captions in a batch, what is given, and a run of two steps."""

import json
from dataclasses import replace

import labelled_folders as made
import numpy as np
import pytest
import torch
from PIL import Image

from tipsv2.collections.pairs import open_pairs
from tipsv2.collections.parts import address, open_collection
from train.__main__ import main
from train.data.labels import patch_classes
from train.data.samples import CaptionedImages
from train.recipe.recipes import RECIPES
from train.recipe.settings import Data
from train.tools.check import look_through


def test_pairs_have_labels_and_captions_from_them(tmp_path):
    pairs = open_pairs(f"folder:{made.colors(tmp_path)}")
    assert pairs.label_names == made.NAMES and pairs.mapping["mask"] == "mask" and len(pairs) == 3
    texts = [pair.captions["web"] for pair in pairs]
    assert texts == [
        ("a photo of sky, grass and a dog",), ("a photo of sky and grass",), ("a photo of grass and a dog",),
    ]  # fmt: skip
    for number, pair in enumerate(pairs):
        assert np.array_equal(pair.labels(), made.truth(number))
        assert np.array_equal(np.asarray(pair.open()), made.picture(number))


def test_captions_that_are_given_are_kept(tmp_path):
    root = made.numbers(tmp_path)
    (root / "images/b.txt").write_text("my own words\nand more\n")
    (root / "images/c.json").write_text('{"short": "a short one"}')
    pairs = open_pairs(f"folder:{root}")
    assert pairs[0].captions == {"web": ("a photo of sky, grass and a dog",)}
    assert pairs[1].captions == {"web": ("my own words", "and more")}
    assert pairs[2].captions["short"] == ("a short one",)


def test_a_label_map_is_decoded_once_for_caption_and_patches(tmp_path, monkeypatch):
    pairs = open_pairs(f"folder:{made.numbers(tmp_path)}")
    pairs[0]  # another one is remembered
    opened = []
    real = Image.open
    monkeypatch.setattr(
        Image, "open", lambda file, *rest, **more: opened.append(file.name) or real(file, *rest, **more)
    )
    pair = pairs[1]
    assert pair.captions["web"] and pair.labels().any() and len(opened) == 1


def test_parts_by_split(tmp_path):
    root = made.numbers(made.numbers(tmp_path, "train", stems="pq"), "val")
    assert [pair.name for pair in open_pairs(f"folder:{root}")] == ["p.png", "q.png"]
    assert len(open_pairs(f"folder:{root}", split="val")) == len(open_pairs(f"folder:{root},part=val")) == 3
    with pytest.raises(ValueError, match="no part 'test'"):
        open_pairs(f"folder:{root}", split="test")
    with pytest.raises(ValueError, match="no part 'train': choose val"):  # what is there to measure is not trained on
        open_pairs(f"folder:{made.panoptic(tmp_path / 'coco')}")


def test_batches_have_the_labels_of_their_crops(tmp_path):
    root = made.numbers(tmp_path)
    recipe = RECIPES["finetune"]()
    data = Data(source=f"folder:{root}", crop_min=1.0, crop_max=1.0, flip=0.0)
    stage = replace(recipe.stages[0], batch_size=3, size=42)
    labels = replace(recipe.patch_labels, weight=1.0)
    source = CaptionedImages(replace(recipe, stages=(stage,), data=data, patch_labels=labels), 0, 1)
    taken = source.take(0)
    assert source.names == made.NAMES and taken.labels.shape == (3, 3, 3) and not taken.problems
    # What a patch shows can be told from its grey level, but for the unlabelled blocks, which are painted as sky.
    shown = ((torch.nn.functional.avg_pool2d(taken.images[:, 0], 14) * 255 - 40) / 80).round()
    known = taken.labels >= 0
    exact = (shown - (torch.nn.functional.avg_pool2d(taken.images[:, 0], 14) * 255 - 40) / 80).abs() < 0.05
    assert (shown[known & exact] == taken.labels[known & exact]).all() and (known & exact).sum() > 6
    assert (taken.labels == -1).any() and patch_classes(torch.from_numpy(made.truth(0))).shape == (3, 2)


def test_check_says_what_has_no_name(tmp_path):
    root = made.numbers(tmp_path)
    (root / "classes.tsv").write_text((root / "classes.tsv").read_text().replace("0\t\n", ""))
    report = str(look_through(Data(source=f"folder:{root}"), show=False))
    assert "3 usable pairs" in report and "(0: 11.1 %): they count as unlabelled" in report
    with pytest.raises(ValueError, match="there is no folder"):
        look_through(Data(source="folder:/no/such/place"), show=False)


def test_collections_for_embed_take_them_too(tmp_path, monkeypatch):
    root = made.numbers(tmp_path / "street")
    monkeypatch.chdir(tmp_path)
    assert len(open_collection("folder:street", 10).fingerprint()) == 16
    assert address("folder:street") == f"folder:{root}"


@pytest.mark.parametrize("kind", [made.numbers, made.panoptic])
def test_two_steps_of_training(kind, tmp_path, tiny_folder, capsys):
    root = kind(tmp_path / "data")
    data = f"folder:{root}" + (",part=val" if kind is made.panoptic else "")
    fields = ["patch_labels.weight=1", "stages.0.steps=2", "stages.0.batch_size=2", "workers=0", "sample_every=0"]
    command = ["finetune", "--base", str(tiny_folder), "--data", data, "--out", str(tmp_path / "run"), *fields]
    assert main([*command, "stages.0.size=28", "warmup=0"]) == 0
    said = capsys.readouterr().err
    assert f"data: {data}, 3 pairs" in said
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2] and all(0 < row["loss/patch_labels/values"] < 20 for row in rows)
    assert (tmp_path / "run/model/model.safetensors").is_file()
