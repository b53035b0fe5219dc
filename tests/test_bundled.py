"""The encoders in assets: plain transformers opens them, ours equal theirs, they are small, described, and find things;
what they are called, which one answers, and weights in half precision."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoTokenizer, Tipsv2Model

import tipsv2
from demos.backend.studio import Studio
from tipsv2 import scenes
from tipsv2.__main__ import main as tipsv2_main
from tipsv2.analysis.heatmap import heatmap
from tipsv2.checkpoints import bundled
from tipsv2.checkpoints.bundled import NANO, S14, current_name
from tipsv2.images import preprocessor_settings
from train.network.teachers import VisionTeacher
from train.network.tuning import open_base
from train.recipe import recipes
from train.recipe.overrides import override

ASSETS = Path(__file__).resolve().parents[1] / "assets"


@pytest.fixture(scope="module")
def encoder():
    return tipsv2.load(NANO, dtype="float32", device="cpu")


def folder(name):
    return ASSETS / "models" / name


@pytest.mark.parametrize("name", bundled.names())
def test_folder_is_whole_and_small(name):
    files = {path.name: path.stat().st_size for path in folder(name).iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json", "README.md"} <= {*files}
    assert not [file for file in files if file.endswith((".bin", ".pt", ".pkl"))]
    assert max(files.values()) < 95e6 and (name != NANO or sum(files.values()) < 20e6)
    card = (folder(name) / "README.md").read_text("utf-8")
    assert f"\n# {name}\n" in card and not re.findall(r"\{[A-Z_0-9]+\}", card)  # a figure that was never filled in
    assert name in bundled.ABOUT


def test_together_they_are_small():
    family = [folder for folder in (ASSETS / "models").iterdir() if folder.name.startswith("opentips-")]
    assert sum(path.stat().st_size for folder in family for path in folder.iterdir()) < 160e6


@pytest.mark.parametrize("name", bundled.names())
def test_plain_transformers_gives_the_same_embeddings(name):
    encoder = tipsv2.load(name, dtype="float32", device="cpu")
    model, report = Tipsv2Model.from_pretrained(folder(name), dtype=torch.float32, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(folder(name))
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


@pytest.mark.slow
def test_peaks_fall_on_the_things_asked_for(encoder):
    """On the shipped examples and twenty evaluation scenes a phrase's highest value lies on its thing in most cases."""
    entries = json.loads((ASSETS / "examples" / "examples.json").read_text())
    chosen = [scenes.draw(e["seed"], 224, e["styles"]) for e in entries if e["for"] == "drawings"] + [
        scenes.split("val")[i] for i in range(20)
    ]
    hits, chances = [], []
    for scene in chosen:
        things = [i for i in np.unique(scene.labels) if (scene.labels == i).mean() > 0.02]
        maps = heatmap(encoder, scene.image, [scenes.names()[i] for i in things])
        for index, values in zip(things, maps, strict=True):
            hits.append(scene.labels.flat[values.argmax()] == index)
            chances.append((scene.labels == index).mean())
    assert np.mean(hits) > 0.7 > 2 * np.mean(chances)


@pytest.mark.slow
def test_the_lines_of_the_readme(monkeypatch, tmp_path, capsys):
    readme = (ASSETS.parent / "README.md").read_text("utf-8")
    code = readme.split("## Six lines of Python\n\n```python\n")[1].split("```")[0]
    monkeypatch.chdir(ASSETS.parent)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))  # a B/14 there would answer
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["encoder"].info.name == bundled.default()
    with Image.open("assets/examples/coffee.jpg") as image:
        assert names["maps"].shape == (2, image.height, image.width)
    shares = names["result"].shares
    assert list(shares) == ["cup", "spoon", "saucer", "wooden table"]
    assert sum(shares.values()) == pytest.approx(1)
    assert str(names["maps"].shape) in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(S14 not in bundled.names(), reason=f"{S14} is not bundled here")
def test_what_a_photograph_does_not_show_peaks_lower():
    """On the shipped photographs, by the highest cosine: a query for what is there against the one for what is not."""
    encoder = tipsv2.load(S14, device="cpu")
    entries = json.loads((ASSETS / "examples" / "examples.json").read_text())
    right = []
    for entry in (entry for entry in entries if entry["for"] == "photographs"):
        peaks = heatmap(encoder, ASSETS / "examples" / entry["file"], entry["queries"]).max(axis=(1, 2))
        there = [query not in entry["absent"] for query in entry["queries"]]
        right += [peak > peaks[~np.array(there)].max() for peak in peaks[there]]
    assert np.mean(right) > 0.8


def test_menu_offers_the_default_first_and_says_what_it_knows():
    first = tipsv2.available()[0]
    assert first.name == bundled.default() and first.source == "bundled"
    assert tipsv2.find("auto").name in (bundled.default(), "tipsv2-b14")
    nano = tipsv2.find(NANO)
    assert nano.resolution == 224 and nano.knows == ("drawings",) and "photograph" in nano.trained_on
    assert tipsv2.find("google/tipsv2-b14").knows == ("photographs",)


# Names and the one that answers


def test_s14_answers_if_it_is_there(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(bundled, "MODELS_FOLDER", tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    shutil.copytree(tiny_folder, tmp_path / NANO)
    assert bundled.default() == tipsv2.find("auto").name == NANO
    shutil.copytree(tiny_folder, tmp_path / S14)
    assert bundled.default() == tipsv2.find("auto").name == tipsv2.available()[0].name == S14
    assert tipsv2.load(device="cpu").info.knows == ("photographs", "drawings")
    shutil.copytree(tiny_folder, tmp_path / "other")  # a folder that somebody puts beside them
    assert tipsv2.find("other").knows == () and "other" in [info.name for info in tipsv2.available()]


def test_an_old_name_works_and_one_line_says_the_new_one(tmp_path, caplog, capsys):
    def said():
        lines = [record.getMessage() for record in caplog.records if record.name == "tipsv2.checkpoints.bundled"]
        caplog.clear()
        bundled._say.cache_clear()
        return lines

    line = "tipsv2-nano is called opentips-nano now: the old name still works."
    said()
    assert [tipsv2.find("tipsv2-nano").name for _ in range(2)] == [NANO, NANO] and said() == [line]
    place = ASSETS / "models" / "tipsv2-nano"
    assert current_name(str(place)) == str(folder(NANO)) and tipsv2.find(place).width == 192 and said() == [line]
    for other in ("google/tipsv2-nano", NANO, "runs/tipsv2-nano", ""):
        assert current_name(other) == other and not said()
    assert tipsv2_main(["convert", "tipsv2-nano", str(tmp_path / "official")]) == 0 and said() == [line]
    base = override(recipes.get("finetune"), ["tuning.base=tipsv2-nano"])
    assert open_base(base)[0].tower.width == 192 and said() == [line]
    teacher = VisionTeacher("tipsv2-nano")
    assert teacher.model.config.hidden_size == 192 and said() == [line]
    studio = Studio("tipsv2-nano", device="cpu")
    assert studio.first == NANO and said() == [line]
    assert studio.encoder("tipsv2-nano").info.name == NANO and said() == [line]


def test_the_line_goes_to_stderr():
    code = "from tipsv2.checkpoints.catalogue import find; find('tipsv2-nano'); find('tipsv2-nano')"
    told = subprocess.run([sys.executable, "-c", code], cwd=ASSETS.parent, capture_output=True, text=True)
    assert told.stderr == "tipsv2-nano is called opentips-nano now: the old name still works.\n" and not told.stdout


# Weights in half precision


@pytest.fixture(scope="module")
def half(tiny_folder, tmp_path_factory):
    """The tiny encoder in float16, to be shown images twice as large as its position table."""
    place = tmp_path_factory.mktemp("half") / "tiny-half"
    shutil.copytree(tiny_folder, place)
    Tipsv2Model.from_pretrained(tiny_folder).half().save_pretrained(place)
    (place / "preprocessor_config.json").write_text(json.dumps(preprocessor_settings(112)))
    return place


def test_half_precision_on_the_disk_is_computed_in_what_the_machine_multiplies(half, tiny_folder, monkeypatch):
    stored = load_file(half / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    image = scenes.draw(0, 112).image
    for native, dtype, error in ((False, torch.float32, 2e-3), (True, torch.bfloat16, 0.1)):
        monkeypatch.setattr("tipsv2.network.encoder.native_bf16", lambda device, native=native: native)
        plain = tipsv2.load(half, device="cpu", fast=False).model
        for tower in (plain.vision_model, plain.text_model):
            assert {parameter.dtype for parameter in tower.parameters()} == {dtype}
        encoder = tipsv2.load(half, device="cpu")
        assert encoder.dtype == dtype
        whole = tipsv2.load(tiny_folder, device="cpu", dtype="float32")
        for ours, theirs in (
            (encoder.encode_image(image).patches, whole.encode_image(image, 112).patches),
            (encoder.encode_text(["a dog"]), whole.encode_text(["a dog"])),
        ):
            assert ours.dtype == torch.float32 and ours.shape == theirs.shape
            assert (ours - theirs).norm() < error * theirs.norm()


def test_plain_transformers_opens_half_precision(half):
    model, report = Tipsv2Model.from_pretrained(half, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    pixels = torch.rand(1, 3, 56, 56)
    with torch.no_grad():
        assert torch.isfinite(model.vision_model(pixels.to(model.dtype)).last_hidden_state).all()  # as it is stored
        found = model.eval().float().vision_model(pixels).last_hidden_state
    ours = tipsv2.load(half, device="cpu", dtype="float32").encode_pixels(pixels)
    assert torch.allclose(ours["patches"][0].flatten(0, 1), found[0, 2:], atol=1e-4)


def test_an_encoder_is_shown_images_at_the_size_of_its_preprocessor(half, tiny_folder, tmp_path):
    assert tipsv2.find(half).resolution == 112 and tipsv2.find(tiny_folder).resolution == 56
    encoder = tipsv2.load(half, device="cpu")
    assert encoder.info.resolution == 112
    assert encoder.encode_image(Image.new("RGB", (300, 200))).patches.shape == (8, 12, 48)
    assert encoder.encode_image(Image.new("RGB", (300, 200)), 56).patches.shape == (4, 6, 48)
    for broken in ("{", "[]", '{"size": 7}', '{"size": {"height": "x"}}', '{"size": {"height": -1}}', '{"size": {}}'):
        shutil.copytree(tiny_folder, tmp_path / "broken", dirs_exist_ok=True)
        (tmp_path / "broken" / "preprocessor_config.json").write_text(broken)
        assert tipsv2.find(tmp_path / "broken").resolution == 56
