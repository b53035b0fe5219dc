"""The encoder in assets: plain transformers opens it, ours equals theirs, it is small, described, and finds things."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from huggingface_hub import constants
from PIL import Image
from transformers import AutoTokenizer, Tipsv2Model

import tipsv2
from tipsv2 import scenes
from tipsv2.heatmap import heatmap

ASSETS = Path(__file__).resolve().parents[1] / "assets"
FOLDER = ASSETS / "models" / "tipsv2-nano"


@pytest.fixture(scope="module")
def encoder():
    return tipsv2.load("tipsv2-nano", dtype="float32", device="cpu")


def test_folder_is_whole_and_small():
    names = {path.name for path in FOLDER.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json", "README.md"} <= names
    assert not [n for n in names if n.endswith((".bin", ".pt", ".pkl"))]
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 20e6


def test_plain_transformers_gives_the_same_embeddings(encoder):
    model, report = Tipsv2Model.from_pretrained(FOLDER, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    image = Image.open(ASSETS / "examples" / "scene_1.png").convert("RGB").resize((224, 224))
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float() / 255
    texts = ["a banana", "a small gear at the bottom left", "Ein Hund, 犬 🐕"]
    with torch.no_grad():
        theirs = model.eval().vision_model(pixels).last_hidden_state[0]
        tokens = tokenizer(texts, padding="max_length", max_length=64, return_tensors="pt")
        embedded = model.text_model(**{k: tokens[k] for k in ("input_ids", "attention_mask")}).pooler_output
    ours = encoder.encode_image(image, 224)
    assert torch.allclose(ours.cls, theirs[0], atol=1e-4)
    assert torch.allclose(ours.caption_cls, theirs[1], atol=1e-4)
    assert torch.allclose(ours.patches.flatten(0, 1), theirs[2:], atol=1e-4)
    assert torch.allclose(encoder.encode_text(texts), F.normalize(embedded, dim=-1), atol=1e-4)


def test_peaks_fall_on_the_things_asked_for(encoder):
    """On the shipped examples and twenty evaluation scenes a phrase's highest value lies on its thing in most cases."""
    entries = json.loads((ASSETS / "examples" / "examples.json").read_text())
    chosen = [scenes.draw(e["seed"], 224, e["styles"]) for e in entries] + [scenes.split("val")[i] for i in range(20)]
    hits, chances = [], []
    for scene in chosen:
        things = [i for i in np.unique(scene.labels) if (scene.labels == i).mean() > 0.02]
        maps = heatmap(encoder, scene.image, [scenes.names()[i] for i in things])
        for index, values in zip(things, maps, strict=True):
            hits.append(scene.labels.flat[values.argmax()] == index)
            chances.append((scene.labels == index).mean())
    assert np.mean(hits) > 0.7 > 2 * np.mean(chances)


def test_the_lines_of_the_readme(monkeypatch, tmp_path, capsys):
    readme = (ASSETS.parent / "README.md").read_text("utf-8")
    code = readme.split("## Six lines of Python\n\n```python\n")[1].split("```")[0]
    monkeypatch.chdir(ASSETS.parent)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))  # a B/14 there would answer
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["encoder"].info.name == "tipsv2-nano"
    with Image.open("assets/examples/scene_1.png") as image:
        assert names["maps"].shape == (2, image.height, image.width)
    shares = names["found"].shares
    assert list(shares) == ["banana", "watermelon", "gear", "brick", "road"]
    assert sum(shares.values()) == pytest.approx(1)
    assert str(names["maps"].shape) in capsys.readouterr().out


def test_menu_offers_it_first_and_says_what_it_saw(encoder):
    first = tipsv2.available()[0]
    assert first.name == "tipsv2-nano" and first.source == "bundled" and first.resolution == 224
    assert "photograph" in first.trained_on
    assert tipsv2.find("auto").name in ("tipsv2-nano", "tipsv2-b14")
