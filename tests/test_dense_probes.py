"""Depth, normals and segmentation by a probe: every number against a loop or a closed form, then whole evaluations."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from test_dpt import make_dpt

from tipsv2 import scenes
from tipsv2.__main__ import main
from tipsv2.analysis.depth import load_dpt
from tipsv2.evaluation.layouts import Split
from tipsv2.evaluation.probing.dense import evaluate_task
from tipsv2.evaluation.segmentation import linear as segmentation_probe
from tipsv2.evaluation.tasks import depth, normals
from tipsv2.scenes.geometry import FAR, NEAR

SMALL = dict(resolution=28, limit=4, train_limit=6, epochs=1, progress=False)


def turned(vectors: np.ndarray, degrees: float) -> np.ndarray:
    """Unit vectors [..., 3] turned towards a direction across them (so by exactly that angle)."""
    across = np.cross(vectors, [0.3, -0.7, 0.648])
    across /= np.linalg.norm(across, axis=-1, keepdims=True)
    return math.cos(math.radians(degrees)) * vectors + math.sin(math.radians(degrees)) * across


# Depth


def test_depth_is_the_mean_of_the_bins():
    outputs = torch.randn(1, depth.BINS, 2, 3, generator=torch.Generator().manual_seed(0)) * 3
    found = depth.expected_depth(outputs)
    for row in range(2):
        for column in range(3):
            weights = [max(float(outputs[0, k, row, column]), 0) + 0.1 for k in range(256)]
            bins = [0.001 + k * (10 - 0.001) / 255 for k in range(256)]
            expected = sum(w * b for w, b in zip(weights, bins, strict=True)) / sum(weights)
            assert float(found[0, row, column]) == pytest.approx(expected, rel=1e-5)


def test_depth_scores_equal_a_loop():
    rng = np.random.default_rng(0)
    truth, found = rng.uniform(0.5, 12, (6, 7)).astype(np.float32), rng.uniform(0.5, 10, (6, 7)).astype(np.float32)
    truth[0, :3] = np.nan
    truth[1, 0] = 0
    squares, relative, near, count = 0.0, 0.0, 0, 0
    for t, f in zip(truth.ravel().tolist(), found.ravel().tolist(), strict=True):
        if not 0.001 < t < 10:
            continue
        squares, relative, count = squares + (t - f) ** 2, relative + abs(t - f) / t, count + 1
        near += max(t / f, f / t) < 1.25
    one = depth.score(truth, found)
    assert one["pixels"] == count < 38
    assert one["rmse"] == pytest.approx(math.sqrt(squares / count))
    assert one["abs_rel"] == pytest.approx(relative / count) and one["delta1"] == pytest.approx(near / count)


def test_a_constant_guess_of_depth_has_closed_forms():
    two = depth.score(np.array([[1.0, 2.0]]), np.full((1, 2), 2.0))
    assert (two["rmse"], two["abs_rel"], two["delta1"]) == (pytest.approx(math.sqrt(0.5)), 0.5, 0.5)
    perfect = depth.score(np.array([[3.0]]), np.array([[3.0]]))
    numbers = depth.summary({"a": two, "b": perfect})
    assert numbers["rmse"] == round(math.sqrt(0.5) / 2, 4) and numbers["delta1"] == 0.75
    assert numbers["interval"]["delta1"] == [0.5, 1.0]  # of two images, both may be the same one


def test_the_loss_of_depth_is_scale_invariant_but_for_its_part():
    """A guess wrong by one factor everywhere: the variance is 0, and 0.15 of the squared mean is left."""
    truth = torch.tensor([[[2.0, 4.0], [float("nan"), 20.0]]])  # two are judged
    outputs = torch.zeros(1, depth.BINS, 2, 2)  # all weights 0.1: the middle bin
    guess = float(depth.expected_depth(outputs)[0, 0, 0])
    g = [math.log(guess + 0.001) - math.log(t + 0.001) for t in (2.0, 4.0)]
    mean = sum(g) / 2
    expected = math.sqrt(sum((x - mean) ** 2 for x in g) / 2 + 0.15 * mean**2)
    assert float(depth.loss(outputs, truth)) == pytest.approx(expected, rel=1e-5)
    outputs.requires_grad_()
    depth.loss(outputs, torch.full((1, 2, 2), guess)).backward()  # a perfect guess: no infinite slope
    assert torch.isfinite(outputs.grad).all()


# Normals


def test_a_known_rotation_is_the_angle_that_is_found():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(30, 40, 3))
    truth /= np.linalg.norm(truth, axis=-1, keepdims=True)
    for degrees in (0, 11, 22, 29, 90, 179):
        assert np.allclose(normals.angles(truth, turned(truth, degrees)), degrees, atol=1e-5)
    # half of the pixels 10 degrees off, a quarter 20, a quarter 50
    off = np.concatenate([turned(truth[:15], 10), turned(truth[15:], 20)])
    off[15:, 20:] = turned(truth[15:, 20:], 50)
    numbers = normals.summary({"a": normals.score(truth, off)})
    rmse = math.sqrt(0.5 * 100 + 0.25 * 400 + 0.25 * 2500)
    assert numbers["rmse"] == numbers["rmse_pixels"] == round(rmse, 4) and numbers["mean"] == 22.5
    assert (numbers["under_11.25"], numbers["under_22.5"], numbers["under_30"]) == (0.5, 0.75, 0.75)
    assert numbers["interval"] == {}  # one image tells of none


def test_the_median_and_the_two_roots_over_images():
    rng = np.random.default_rng(1)
    truth = np.tile([0.0, 0.0, 1.0], (10, 20, 1))
    scores, all_angles = [], []
    for count in (50, 200):
        degrees = rng.uniform(0, 60, 200)[:count]
        found = truth.copy().reshape(-1, 3)
        for k, angle in enumerate(degrees):
            found[k] = turned(found[k], angle)
        known = truth.copy().reshape(-1, 3)
        known[count:] = np.nan
        scores.append(normals.score(known.reshape(truth.shape), found.reshape(truth.shape)))
        all_angles.append(degrees)
    numbers = normals.summary(dict(enumerate(scores)))
    pooled = np.concatenate(all_angles)
    assert numbers["median"] == pytest.approx(np.median(pooled), abs=0.1)
    assert numbers["mean"] == pytest.approx(pooled.mean(), abs=1e-3)
    assert numbers["rmse_pixels"] == pytest.approx(np.sqrt((pooled**2).mean()), abs=1e-3)
    assert numbers["rmse"] == pytest.approx(np.mean([np.sqrt((a**2).mean()) for a in all_angles]), abs=1e-3)


def test_the_loss_of_normals_is_the_mean_angle():
    truth = torch.tensor([0.0, 0.0, 1.0]).repeat(1, 2, 2, 1)
    truth[0, 1, 1] = float("nan")
    outputs = torch.tensor([[0.0, 0, 5], [0, 2, 2], [3, 0, 0], [1, 0, 0]]).T.reshape(1, 3, 2, 2)  # any length
    assert float(normals.loss(outputs, truth)) == pytest.approx((0 + math.pi / 4 + math.pi / 2) / 3, abs=0.01)


# Segmentation


def test_miou_is_that_of_the_sum_of_the_tables():
    rng = np.random.default_rng(0)
    split = Split("x", "val", (), ("a", "b", "c", "d"))
    pairs = [(rng.integers(-1, 3, (5, 6)), rng.integers(0, 3, (5, 6))) for _ in range(5)]
    scores = {str(k): segmentation_probe.score(*pair, split) for k, pair in enumerate(pairs)}
    hit, union = np.zeros(4), np.zeros(4)
    for truth, found in pairs:
        for t, f in zip(truth.ravel(), found.ravel(), strict=True):
            if t >= 0:
                hit[t] += t == f
                union[t] += 1
                union[f] += t != f
    numbers = segmentation_probe.TASK.summary(scores, split)
    assert numbers["miou"] == pytest.approx((hit[:3] / union[:3]).mean(), abs=1e-4)
    assert numbers["pixel_accuracy"] == pytest.approx(hit.sum() / sum((t >= 0).sum() for t, _ in pairs), abs=1e-4)
    assert scores["1"]["pixels"] == (pairs[1][0] >= 0).sum()


# The scenes' made-up geometry


def test_the_ground_of_a_scene_is_a_plane_that_looks_up():
    """Of a camera that looks level, height under it is (row - horizon) * depth: the same all over the ground."""
    scene = scenes.draw(3, 112)
    far = scenes.depth(scene).astype(np.float64)
    rows = ((np.arange(112) + 0.5) / 112)[:, None] * np.ones((1, 112))
    height = (rows + 1 / (FAR / NEAR - 1)) * far
    ground = scene.owner == 0
    assert ground.any() and np.allclose(height[ground], height[ground][0], rtol=1e-5)
    assert NEAR < far[ground].min() and far.max() < FAR
    facing = scenes.normals(scene)
    assert (facing[ground] == (0, 1, 0)).all() and (facing[~ground] == (0, 0, 1)).all()


def test_what_is_drawn_in_front_is_nearer():
    checked = 0
    for seed in range(8):
        scene = scenes.draw(seed, 112)
        far = scenes.depth(scene)
        cards = [far[scene.owner == k] for k in range(1, len(scene.objects) + 1)]
        flat = [float(card[0]) for card in cards if card.size]
        assert all((card == card[0]).all() for card in cards if card.size)
        assert flat == sorted(flat, reverse=True)
        for k, thing in enumerate(scene.objects, 1):
            assert ((scene.labels[scene.owner == k] - len(scenes.STUFF)) == thing.noun).all()
        checked += len(flat)
    assert checked > 12


# Whole evaluations


@pytest.mark.parametrize("task", [depth, normals, segmentation_probe])
def test_a_probe_on_scenes(task, tiny_encoder, tmp_path, monkeypatch):
    numbers = task.evaluate(tiny_encoder, "scenes:style", out=tmp_path, **SMALL)
    assert json.loads(json.dumps(numbers)) == numbers
    assert (numbers["images"], numbers["train_images"], numbers["left_out"]) == (4, 6, 0)
    pictures = {kind: sorted(tmp_path.glob(f"{kind}_1*.png")) for kind in ("best", "worst")}
    assert all(len(found) == 1 and Image.open(found[0]).width > 3 * 28 for found in pictures.values())
    again = task.evaluate(tiny_encoder, "scenes:style", **SMALL)  # nothing kept, the same numbers
    assert again == numbers
    monkeypatch.setattr(type(tiny_encoder), "encode_pixels", lambda *_: pytest.fail("encoded again"))
    monkeypatch.setattr(task, "TASK", replace(task.TASK, pictures=lambda *_: None))
    assert task.evaluate(tiny_encoder, "scenes:style", out=tmp_path, **SMALL) == numbers
    with pytest.raises(ValueError, match="another features"):
        task.evaluate(tiny_encoder, "scenes:style", out=tmp_path, **SMALL, features="values")


def test_a_perfect_guess_is_perfect_and_a_constant_one_is_45_degrees_off(tiny_encoder):
    """A guess half between up and towards the camera is 45 degrees off everywhere in a scene."""
    given = (tiny_encoder, "scenes:val", 28, 5, None, False, "final", 1, None)
    half = np.float32([0, math.sqrt(0.5), math.sqrt(0.5)])
    numbers = evaluate_task(normals.TASK, *given, predict=lambda image, side: np.tile(half, (28, 28, 1)))
    assert numbers["rmse"] == numbers["mean"] == pytest.approx(45, abs=1e-3) and numbers["under_30"] == 0
    assert numbers["median"] == pytest.approx(45, abs=0.1)
    by_picture = {s.image.tobytes(): scenes.depth(s) for s in map(scenes.split("val", 28).__getitem__, range(5))}
    numbers = evaluate_task(depth.TASK, *given, predict=lambda image, side: by_picture[np.asarray(image).tobytes()])
    assert (numbers["rmse"], numbers["abs_rel"], numbers["delta1"]) == (0, 0, 1)


def test_dpt_heads_are_judged_on_the_same_data(tiny_encoder, tmp_path, capsys):
    make_dpt().save_pretrained(tmp_path / "all")
    make_dpt("Tipsv2DptForDepthEstimation").save_pretrained(tmp_path / "deep")
    model = load_dpt(tmp_path / "all", device="cpu")
    chosen = dict(resolution=56, limit=2, progress=False, head="dpt")
    numbers = depth.evaluate(model, "scenes:val", **chosen)
    expected = []
    for k in range(2):
        scene = scenes.split("val", 56)[k]
        expected.append(math.sqrt(np.mean((scenes.depth(scene) - model.predict(scene.image, 56).depth) ** 2)))
    assert numbers["rmse"] == pytest.approx(np.mean(expected), abs=1e-4) and numbers["head"] == "dpt"
    assert 0 < normals.evaluate(model, "scenes:val", **chosen)["mean"] < 180
    with pytest.raises(ValueError, match="no head for normals, only for depth"):
        normals.evaluate(load_dpt(tmp_path / "deep", device="cpu"), "scenes:val", **chosen)
    with pytest.raises(ValueError, match="needs a model with DPT heads"):
        depth.evaluate(tiny_encoder, "scenes:val", **chosen)
    with pytest.raises(ValueError, match="needs an encoder"):
        depth.evaluate(model, "scenes:val", **chosen | {"head": "linear"})
    for given in (dict(features="final"), dict(epochs=3), dict(train_limit=5)):
        with pytest.raises(ValueError, match="leave them out with --head dpt"):
            normals.evaluate(model, "scenes:val", **chosen, **given)
    arguments = ["evaluate", "depth", "--model", str(tmp_path / "all"), "--head", "dpt", "--limit", "2"]
    assert main([*arguments, "--resolution", "56", "--device", "cpu", "--json", "--out", str(tmp_path / "out")]) == 0
    assert json.loads(capsys.readouterr().out)["rmse"] == numbers["rmse"]
    assert json.loads((tmp_path / "out" / "record.json").read_text())["delta1"] == numbers["delta1"]
    assert main([*arguments, "--features", "final"]) == 2 and "of the probe" in capsys.readouterr().err


def test_sentences(tiny_encoder):
    for given, words in (
        ({"features": "layer:7"}, "layer:1 to layer:3"),
        ({"limit": 0}, "limit=0"),
        ({"train_limit": 0}, "limit=0"),
        ({"epochs": 0}, "epochs=0"),
        ({"resolution": 30}, "multiple of the patch size"),
    ):
        with pytest.raises(ValueError, match=words):
            depth.evaluate(tiny_encoder, "scenes:val", **SMALL | given)
    with pytest.raises(ValueError, match="scenes:val"):
        depth.evaluate(tiny_encoder, "scenes:nothing", **SMALL)
