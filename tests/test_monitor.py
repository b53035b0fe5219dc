"""What a run leaves to look at: when it samples and of what, that training does not notice, what is said."""

import json
import re
from functools import partial

import numpy as np
import photos
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from train.network.tokenizer import train_tokenizer
from train.network.towers import build
from train.objectives import Objective
from train.recipe import recipes
from train.recipe.overrides import override
from train.run import checkpoint, monitor
from train.run.loop import fit


@pytest.fixture(autouse=True)
def few_scenes(monkeypatch):
    monkeypatch.setattr(monitor, "SCENES", 2)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([f"picture number {i}" for i in range(99)], 400)


@pytest.fixture
def own(tmp_path):
    return photos.folder(tmp_path / "photos", 12)


def recipe(*fields):
    return override(recipes.get("smoke"), ["precision=fp32", "tower.vocabulary=400", "trackers=", *fields])


def train(chosen, tokenizer, run, **more):
    torch.manual_seed(chosen.seed)
    return fit(chosen, Objective(chosen, build(chosen, 400)), tokenizer, run, **{"show": False} | more)


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def scored(run):
    return [line["step"] for line in lines(run) if "miou_values" in line]


@pytest.mark.parametrize(
    "fields, steps",
    [
        ([], [0, 5, 10]),
        (["sample_every=1000"], [0, 10]),
        (["sample_every=4"], [0, 4, 8, 10]),
        (["sample_every=0"], []),
        (["data.source=photos", "sample_every=1000"], [0, 2, 4, 6, 8, 10]),
        (["data.source=photos", "sample_every=1"], list(range(11))),
        (["data.source=photos", "stages.0.steps=1", "stages.1.steps=2", "sample_every=1000"], [0, 1, 2, 3]),
        (["data.source=photos", "sample_every=0"], []),
    ],
)
def test_when_a_run_is_sampled(fields, steps):
    chosen = recipe(*fields)
    assert [step for step in range(chosen.steps + 1) if monitor.due(chosen, step)] == steps


@pytest.mark.slow
@pytest.mark.parametrize("data", ["scenes", "own"])
def test_training_does_not_notice_that_it_is_sampled(data, own, tokenizer, tmp_path):
    """Bit for bit the same losses and weights with a sample at every step and with none, where nothing is left."""
    found = []
    for every in (0, 1):
        chosen = recipe(f"data.source={own if data == 'own' else 'scenes'}", f"sample_every={every}")
        run = tmp_path / str(every)
        train(chosen, tokenizer, run)
        state = load_file(checkpoint.latest(run) / "state.safetensors")
        found.append(([(x["loss"], x["gradient_norm"]) for x in lines(run) if "loss" in x], state))
        assert scored(run) == (list(range(11)) if every else [])
        assert (run / "samples").exists() == bool(every)
    (losses, state), (others, other) = found
    assert losses == others and len(losses) == 10
    assert state.keys() == other.keys() and all(torch.equal(state[key], other[key]) for key in state)


@pytest.mark.slow
def test_a_run_measures_itself_by_pictures_that_it_keeps_apart(tokenizer, tmp_path, capsys):
    source = photos.folder(tmp_path / "photos", 20)
    chosen = recipe(f"data.source={source}", "data.held_out=0.2", "sample_every=5")
    train(chosen, tokenizer, tmp_path / "run", show=True)
    measured = [line for line in lines(tmp_path / "run") if "recall_held_out" in line]
    assert [line["step"] for line in measured] == scored(tmp_path / "run")
    assert all(0 <= line[name] <= 1 for line in measured for name in ("recall_learned", "recall_held_out"))
    assert json.loads((tmp_path / "run" / "samples" / "held.json").read_text()) == [False, False, True, True]
    assert (tmp_path / "run" / "samples" / "image-3.png").exists()
    told = capsys.readouterr()
    assert "R@1 among 4 pairs: learned from" in told.out and "4 pairs are kept apart" in told.err


@pytest.mark.slow
def test_the_picture_shows_ones_own_images_under_their_queries(own, tokenizer, tmp_path, monkeypatch):
    (own / "001.txt").write_text("a picture of number one and of nothing else")
    titles, headed = [], monitor.headed
    monkeypatch.setattr(monitor, "headed", lambda pixels, title: titles.append(title) or headed(pixels, title))
    train(recipe(f"data.source={own}"), tokenizer, tmp_path / "run")
    asked = json.loads((tmp_path / "run" / "samples" / "queries.json").read_text())
    others = [[f"picture number {k}"] for k in (0, 2, 3)]
    assert asked == [others[0], ["picture", "number", "nothing else"], *others[1:]]
    pictures = sorted((tmp_path / "run" / "samples").glob("step-*.png"))
    assert [path.stem for path in pictures] == [f"step-{step:07d}" for step in (0, 2, 4, 6, 8, 10)]
    expected = [[f"step {step}", *row] for step in (0, 2, 4, 6, 8, 10) for row in asked]
    assert titles == [title for row in expected for title in row]
    side, first = monitor.SIDE, np.asarray(Image.open(pictures[0]))
    high = len(first) // 4
    assert first.shape == (4 * high, 5 * side, 3) and high > side
    for row in range(4):
        middle = first[(row + 1) * high - side // 2, side - 20]  # of the image's bright half; its blue is its number
        assert np.allclose(middle, photos.picture(row).getpixel((39, 15)), atol=1)
    assert (first[2 * high - side :, side : 2 * side] != first[2 * high - side :, 2 * side : 3 * side]).any()
    assert (first[:high, 2 * side :] == 255).all()  # the first image has one query
    later = np.asarray(Image.open(pictures[-1]))
    assert (first[high - side : high, :side] == later[high - side : high, :side]).all()
    assert (first[high - side : high, side : 2 * side] != later[high - side : high, side : 2 * side]).any()


@pytest.mark.parametrize(
    "fields, said",
    [
        ([], r"step 10: patch-text mIoU on drawn scenes final 0\.\d{3}, values 0\.\d{3}\n"),
        (["data.source=OWN"], r"step 10: patch-text mIoU on drawn scenes .* \(it measures nothing of your data; "),
        (["data.source=OWN", "distillation.weight=1"], r"on drawn scenes .* \(it measures what is forgotten; "),
    ],
)
def test_the_line_says_what_the_score_is_about(fields, said, own, tokenizer, tmp_path, capsys):
    chosen = recipe(*(field.replace("OWN", str(own)) for field in fields))
    (tmp_path / "run").mkdir()
    model = build(chosen, 400)
    with monitor.Monitor(tmp_path / "run", chosen, 0, []) as seen:
        seen.sample(10, model, tokenizer, 56)
    assert re.search(said, capsys.readouterr().out)
    assert not (tmp_path / "run" / "samples").exists()  # no image could be shown


@pytest.mark.slow
@pytest.mark.parametrize(
    "spoilt, resumed, said, named",
    [
        ([], False, None, 0),
        ([4], False, "1 image could not be used: 004.png: it is empty", 1),
        ([4, 7], False, "2 images could not be used: 00", 2),
        (range(7), False, "7 images could not be used: 00", 5),
        ([4], True, "at least 1 image could not be used. `train check` names them all.", 0),
    ],
)
def test_the_end_tells_the_loss_and_what_could_not_be_used(
    spoilt, resumed, said, named, own, tokenizer, tmp_path, capsys
):
    """An image that is met in every epoch is counted once; a run that is resumed at its end has met none."""
    for number in spoilt:
        (own / f"{number:03}.png").write_bytes(b"")
    chosen = recipe(f"data.source={own}", "sample_every=0", "data.unreadable=1", "stages.*.batch_size=4")
    train(chosen, tokenizer, tmp_path / "run", show=not resumed)
    if resumed:
        train(chosen, tokenizer, tmp_path / "run", resume=True, show=True)
    out = capsys.readouterr().out
    last = [line for line in lines(tmp_path / "run") if "loss" in line][-1]
    assert last["unreadable"] > len(spoilt) or not spoilt
    assert f"step 10, the last: loss {last['loss']:.3f}\n" in out
    assert said in out if said else "could not be used" not in out
    assert len(set(re.findall("00[0-9].png: it is empty", out))) == out.count(".png:") == named
    assert ("names them all" in out) == (len(spoilt) > named)


def fail(*_, **__):
    raise OSError("no space left")


@pytest.mark.slow
@pytest.mark.parametrize("step", [0, 5, 10])
def test_a_sample_a_run_died_in_is_made_on_resume(step, tokenizer, tmp_path, monkeypatch):
    """At the start, amid and at the end: the resumed run's metrics and pictures are those of one that never died."""
    train(recipe(), tokenizer, tmp_path / "whole")
    scores = monitor.score_scenes
    left = iter([scores] * (step // 5) + [fail])
    monkeypatch.setattr(monitor, "score_scenes", lambda *given, **more: next(left)(*given, **more))
    with pytest.raises(OSError, match="no space"):
        train(recipe(), tokenizer, tmp_path / "parts")
    assert step not in scored(tmp_path / "parts")
    monkeypatch.setattr(monitor, "score_scenes", scores)
    resume = partial(train, recipe(), tokenizer, tmp_path / "parts", resume=True)
    model = resume()
    assert model.is_dir() and scored(tmp_path / "parts") == [0, 5, 10]
    logs = [
        [{k: v for k, v in line.items() if k not in ("images_per_second", "data_wait")} for line in lines(tmp_path / k)]
        for k in ("whole", "parts")
    ]
    assert logs[0] == logs[1]
    for path in (tmp_path / "whole" / "samples").iterdir():
        assert path.read_bytes() == (tmp_path / "parts" / "samples" / path.name).read_bytes()
    monkeypatch.setattr(monitor, "score_scenes", fail)
    resume()  # all is there: nothing is scored twice
    assert scored(tmp_path / "parts") == [0, 5, 10]


@pytest.mark.slow
def test_images_larger_than_any_scene_are_sampled(own, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(monitor, "LARGEST", 50)
    drawn, draw = [], monitor.draw
    monkeypatch.setattr(monitor, "draw", lambda seed, side: drawn.append(side) or draw(seed, side))
    train(recipe(f"data.source={own}", "sample_every=1000"), tokenizer, tmp_path / "run")
    assert set(drawn) == {42} and scored(tmp_path / "run")[-1] == 10
