"""Training on anybody's images: batches whatever the workers, what cannot be read, and runs that resume bit for bit."""

import json
import math
import os
import random
import re
import signal

import datasets
import numpy as np
import photos
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tipsv2 import scenes
from train.__main__ import main
from train.data.batches import Batches, BatchStream
from train.data.samples import CaptionedImages
from train.data.views import global_crop, random_window
from train.network.tokenizer import train_tokenizer
from train.network.towers import build
from train.objectives import Objective
from train.parallel.signals import Stopped
from train.recipe import recipes
from train.recipe.overrides import override
from train.run import checkpoint, monitor
from train.run.loop import fit


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(monitor, "SCENES", 4)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([f"picture number {i}" for i in range(99)], 400)


def timeless(run):
    timing = ("images_per_second", "data_wait")
    return [{k: v for k, v in line.items() if k not in timing} for line in lines(run)]


def recipe(data, *more):
    fields = [f"data.source={data}", "precision=fp32", "tower.vocabulary=400", "stages.0.steps=4", "stages.1.steps=4"]
    return override(recipes.get("smoke"), [*fields, "sample_every=1000", "trackers=", *more])


def numbers(batch):
    """The pictures of a batch, read off their blue."""
    return [photos.number_of(image) for image in batch["image"]]


@pytest.mark.parametrize("kind", ["folder", "tars"])
def test_workers_do_not_change_the_batches(tmp_path, tokenizer, kind):
    path = photos.folder(tmp_path / "x", 20) if kind == "folder" else photos.shards(tmp_path / "x", 12, 5, 3)
    (path / "007.png").write_bytes(b"") if kind == "folder" else None
    chosen = recipe(path, "data.buffer=16", "data.flip=0.5")
    alone = list(BatchStream(Batches(chosen, tokenizer), 0, 0))
    with_workers = list(BatchStream(Batches(chosen, tokenizer), 0, 3))
    later = list(BatchStream(Batches(chosen, tokenizer), 5, 2))
    assert len(alone) == len(with_workers) == 8
    for expected, found in [*zip(alone, with_workers, strict=True), *zip(alone[5:], later, strict=True)]:
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            assert torch.equal(value, found[name]) if torch.is_tensor(value) else value == found[name]


def test_scenes_are_as_they_always_were(tokenizer):
    """Batches of the bundled scenes, written out: consecutive scenes, one generator a process and step."""
    chosen = override(recipes.get("smoke"), ["seed=2", "data.short_share=0.3"])
    batch = Batches(chosen, tokenizer, 1, 2)[5]
    start = 2 * 10**9 + 5 * 8 + 4
    drawn, rng = [scenes.draw(start + i, 56) for i in range(4)], random.Random(start)
    assert np.array_equal((batch["image"] * 255).round().byte().permute(0, 2, 3, 1), [s.image for s in drawn])
    synthetic = [s.captions["short" if rng.random() < 0.3 else "detailed"] for s in drawn]
    for role, texts in (("web", [s.captions["web"] for s in drawn]), ("synthetic", synthetic)):
        expected = tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
        assert torch.equal(batch[f"{role}_ids"], expected["input_ids"])
    assert not {"unreadable", "problems"} & batch.keys()


def test_global_crops_keep_their_share_and_shape():
    """On a ramp in x and y the corners of a crop give back its window."""
    wide, high = 400, 300
    x, y = np.meshgrid((np.arange(wide) + 0.5) / wide * 255, (np.arange(high) + 0.5) / high * 255)
    ramp = Image.fromarray(np.stack([x, y, 0 * x], -1).round().astype(np.uint8))
    generator, shares = torch.Generator().manual_seed(0), []
    for _ in range(200):
        crop = global_crop(ramp, 64, random_window(ramp.size, generator, (0.3, 0.6)))
        assert crop.shape == (3, 64, 64) and 0 <= crop.min() and crop.max() <= 1
        across = (crop[0, :, -1] - crop[0, :, 0]).mean().item() * 64 / 63
        down = (crop[1, -1] - crop[1, 0]).mean().item() * 64 / 63
        assert 0.74 < across * wide / (down * high) < 1.36
        shares.append(across * down)
    assert 0.29 < min(shares) < 0.34 and 0.56 < max(shares) < 0.61
    square = Image.fromarray(np.asarray(ramp)[:, :300])
    whole = global_crop(square, 100, random_window(square.size, generator, (1.0, 1.0), flip=1.0))
    assert whole[0, :, 0].mean() > whole[0, :, -1].mean()  # mirrored
    plain = global_crop(ramp, 64, random_window(ramp.size, generator, (1.0, 1.0), flip=0.0))
    assert plain[0, :, 0].mean() < plain[0, :, -1].mean()
    long = ramp.resize((900, 100))
    long = global_crop(long, 32, random_window(long.size, generator, (1.0, 1.0)))  # never squeezed by more than 4 : 3
    assert (long[0, :, -1] - long[0, :, 0]).mean().item() * 32 / 31 * 900 / 100 == pytest.approx(4 / 3, abs=0.1)


def test_captions_follow_their_image_and_their_role(tmp_path, tokenizer):
    """Each row of ids is a caption of its own picture; short and detailed come in the asked shares."""
    path = photos.folder(tmp_path / "x", 16)
    for i in range(16):
        (path / f"{i:03}.txt").unlink()
        roles = {"web": [f"web {i}", f"net {i}"], "short": f"short {i}", "detailed": f"long {i} " + "word " * 2000}
        (path / f"{i:03}.json").write_text(json.dumps(roles))
    batches, kinds = Batches(recipe(path, "data.short_share=0.25", "data.flip=0.5"), tokenizer), []
    for step in range(8):
        batch = batches[step]
        assert batch["web_ids"].shape[1] <= 64 and batch["synthetic_ids"].shape[1] <= 64
        for k, number in enumerate(numbers(batch)):
            web, synthetic = (
                tokenizer.decode(batch[f"{r}_ids"][k][batch[f"{r}_mask"][k] > 0]) for r in ("web", "synthetic")
            )
            assert web.split() in (["web", str(number)], ["net", str(number)])
            assert synthetic.split()[:2] in (["short", str(number)], ["long", str(number)])
            kinds.append((web.split()[0], synthetic.split()[0]))
    assert 6 <= sum(k[1] == "short" for k in kinds) <= 28 and 20 <= sum(k[0] == "web" for k in kinds) <= 44  # of 64


@pytest.mark.parametrize("kind", ["folder", "tars"])
def test_an_unusable_image_gives_its_place_to_the_next(tmp_path, tokenizer, kind):
    """A file that is cut off, an empty one, an empty caption and a missing file; the same ones every time, counted."""
    bad = {3: "cut", 8: "empty", 11: "caption", 20: "missing"}

    def change(i, files):
        if bad.get(i) in ("cut", "empty"):
            files["png"] = files["png"][:50] if bad[i] == "cut" else b""
        if bad.get(i) == "caption":
            files |= {"txt": b" ", "json": b"{}"}
        return {k: v for k, v in files.items() if not (bad.get(i) == "missing" and k == "png")}

    if kind == "folder":
        path = photos.folder(tmp_path / "x", 40)
    else:
        path = tmp_path / "x"
        photos.tar(path / "0.tar", range(25), change)
        photos.tar(path / "1.tar", range(25, 40), change)
    batches = Batches(recipe(path, "data.buffer=40"), tokenizer)
    if kind == "folder":  # a file may vanish after the folder was listed
        for i in bad:
            if bad[i] == "missing":
                (path / f"{i:03}.png").unlink()
            else:
                name = path / (f"{i:03}.txt" if bad[i] == "caption" else f"{i:03}.png")
                name.write_bytes({"cut": photos.encoded(i)[:50], "empty": b"", "caption": b" \n"}[bad[i]])
    total = 0
    for step in range(4, 8):  # the second stage
        batch, row = batches[step], batches.source.order.at(1, step - 4, 8)
        tried = [int(re.search(r"0*(\d+)", row(k).name)[1]) for k in range(8 + len(bad))]
        good = [n for n in tried if n not in bad][:8]
        before = tried[: tried.index(good[-1])]
        assert numbers(batch) == good and int(batch["unreadable"]) == len(before) - 7
        assert [int(re.search(r"0*(\d+)", name)[1]) for name in batch["problems"]] == [n for n in before if n in bad]
        total += len(before) - 7
    assert total


def test_what_cannot_be_trained_on(tmp_path, tokenizer):
    told = r"=8, stages.1.batch_size=8 are more than .* holds: 7 pairs. Set 'stages.\*.batch_size=7' or less"
    with pytest.raises(ValueError, match=told):
        Batches(recipe(photos.folder(tmp_path / "seven", 7)), tokenizer)
    with pytest.raises(ValueError, match="one pair only"):
        Batches(recipe(photos.folder(tmp_path / "one", 1)), tokenizer)
    for workers in (0, 1):  # of a stream this shows when it ends; from a worker too it is one sentence
        with pytest.raises(ValueError, match="^stages.0.batch_size=8 is more than .* holds: 7 pairs[^\n]*$"):
            next(BatchStream(Batches(recipe(photos.shards(tmp_path / f"t{workers}", 4, 3)), tokenizer), 0, workers))
    with pytest.raises(ValueError, match="one pair only"):
        Batches(recipe(photos.shards(tmp_path / "t", 1)), tokenizer)[0]
    path = photos.folder(tmp_path / "bad", 30)
    for file in path.glob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(ValueError, match=r"bad: 132 of 132 images in a row cannot be used. 0.*png"):
        Batches(recipe(path), tokenizer)[0]
    for field, hint in (
        ("crop_min=0", "crop_min"),
        ("crop_max=0.2", "in order"),
        ("flip=2", "flip"),
        ("buffer=0", "buf"),
    ):
        with pytest.raises(ValueError, match=hint):
            Batches(recipe(path, f"data.{field}"), tokenizer)


def start(chosen):
    torch.manual_seed(chosen.seed)
    return Objective(chosen, build(chosen, 400))


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "tars"])
def test_four_steps_and_four_more_are_eight(tmp_path, tokenizer, kind):
    """Bit for bit, with an unreadable image on the way: stopped after step 4, and once more within the second stage."""
    path = photos.folder(tmp_path / "x", 30) if kind == "folder" else photos.shards(tmp_path / "x", 9, 9, 12)
    (path / "004.png").write_bytes(b"") if kind == "folder" else None
    chosen = recipe(path, "save_every=1000", "workers=1", "data.buffer=16", "data.unreadable=0.3")
    fit(chosen, start(chosen), tokenizer, tmp_path / "whole", show=False)
    for done in (4, 6):
        objective = start(chosen)
        after = type(objective).after_step

        class Interrupted(type(objective)):
            def after_step(self, step, after=after, done=done):
                after(self, step)
                if step + 2 == done:  # the stop is agreed on in the next step
                    os.kill(os.getpid(), signal.SIGTERM)

        objective.__class__ = Interrupted
        with pytest.raises(Stopped, match=f"after step {done}$"):
            fit(chosen, objective, tokenizer, tmp_path / "parts", resume=True, show=False)
    torch.manual_seed(999)
    fit(chosen, start(chosen), tokenizer, tmp_path / "parts", resume=True, show=False)
    whole, parts = timeless(tmp_path / "whole"), timeless(tmp_path / "parts")
    assert whole == parts and len([x for x in whole if "loss" in x]) == 8
    assert (whole[7]["unreadable"] > 0) == (kind == "folder")
    first, second = (load_file(checkpoint.latest(tmp_path / r) / "state.safetensors") for r in ("whole", "parts"))
    assert first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_a_damaged_record_of_the_data_is_named(tmp_path):
    source = CaptionedImages(recipe(photos.folder(tmp_path / "x", 16)), 0, 1)
    record = tmp_path / "data.jsonl"
    source.remember(record, main=True)
    source.remember(record, main=True)  # unchanged
    record.write_text("")
    with pytest.raises(ValueError, match=r"data.jsonl is damaged.*delete that file"):
        source.remember(record, main=True)


@pytest.mark.slow
def test_a_run_on_spoilt_data_saves_and_stops(tmp_path, tokenizer):
    path = photos.folder(tmp_path / "x", 16)
    for i in (2, 5, 7):
        (path / f"{i:03}.png").write_bytes(b"")
    chosen, run = recipe(path), tmp_path / "run"
    with pytest.raises(ValueError, match=r"stopped after step 2: 3 of 19 images .*00[257].png: it is empty.* --resume"):
        fit(chosen, start(chosen), tokenizer, run, show=False)
    assert lines(run)[-1]["unreadable"] == 3 and checkpoint.latest(run).name == "step-0000002"
    for i in (2, 5, 7):
        (path / f"{i:03}.png").write_bytes(photos.encoded(i))
    with pytest.raises(ValueError, match="has changed since the run began .16 pairs then, 17 now"):
        (path / "900.png").write_bytes(photos.encoded(90))
        fit(chosen, start(chosen), tokenizer, run, resume=True, show=False)
    (path / "900.png").unlink()
    fit(chosen, start(chosen), tokenizer, run, resume=True, show=False)
    assert lines(run)[7]["unreadable"] == 3


def test_the_command_trains_on_a_folder(tmp_path, capsys):
    """A tokenizer of its captions, a run, a model; and what is wrong is one sentence, before a folder is made."""
    path = photos.folder(tmp_path / "x", 12)
    (path / "000.txt").write_text("schnabeltier " * 3)
    run = ["pretrain", "trackers=", "precision=fp32", "--recipe", "smoke", "--data", str(path)]
    assert main([*run, "--out", str(tmp_path / "run"), "data.crop_min=0.8"]) == 0
    assert "the encoder is in" in capsys.readouterr().err
    assert len([x for x in lines(tmp_path / "run") if x.get("loss", math.nan) > 0]) == 10
    assert "schnabeltier" in (tmp_path / "run" / "tokenizer" / "tokenizer.json").read_text("utf-8")
    assert main([*run, "--out", str(tmp_path / "run2"), "stages.0.batch_size=64"]) == 2
    assert main([*run, "--out", str(tmp_path / "run2"), "data.web=titel"]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert "batch_size=64 is more than" in errors[-2] and "no column 'titel'" in errors[-1]
    assert not (tmp_path / "run2").exists()
